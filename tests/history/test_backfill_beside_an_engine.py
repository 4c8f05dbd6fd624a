"""A whole engine serves and takes events while history is loaded into it."""

import threading
from pathlib import Path

from features import Layout
from opportune.v1 import common_pb2, customers_pb2, decisions_pb2, events_pb2
from tests.engine_process import Client, EngineProcess
from tests.waiting import wait_until

CUSTOMERS = 2_000
LIVE_AMOUNT, PAST_AMOUNT = 7, 1_000


def live_customer(number: int) -> str:
    """Customers of the files too, once their records can be merged."""
    return f"c{number}" if hasattr(Layout, "merge") else f"live{number}"


def test_backfill_beside_an_engine_that_serves(tmp_path: Path) -> None:
    rows = [f"c{number},2024-05-{day:02d},{PAST_AMOUNT}" for day in (1, 2, 3) for number in range(CUSTOMERS)]
    path = tmp_path / "purchases.csv"
    path.write_text("\n".join(["who,at,amount", *rows]))
    with EngineProcess(tmp_path) as engine, engine.start().client() as client:
        sent: list[str] = []
        stop = threading.Event()
        publishing = threading.Thread(target=publish, args=(client, sent, stop))
        publishing.start()
        try:
            wait_until(lambda: len(sent) > 20, 10, "events come in")
            words = ["--data", str(engine.data), "--type", "purchase", "--customer", "who", "--time", "at", str(path)]
            done = engine.run("backfill", "--config", str(engine.config), *words, timeout_s=60)
        finally:
            stop.set()
            publishing.join(10)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"loaded {len(rows):,} events" in done.stdout
        live = {customer: sent.count(customer) for customer in set(sent)}
        past = {f"c{number}" for number in range(0, CUSTOMERS, 100)}
        for customer in sorted(past | set(live)):
            purchases = live.get(customer, 0) + 3 * customer.startswith("c")
            spent = LIVE_AMOUNT * live.get(customer, 0) + 3 * PAST_AMOUNT * customer.startswith("c")
            wait_until(
                lambda c=customer, p=purchases, s=spent: known(client, c) == {"purchases": p, "spent": s},  # type: ignore[misc]
                10,
                f"{customer} has spent {spent} in {purchases} purchases",
            )
        answer = client.decisions.Decide(decisions_pb2.DecideRequest(customer_id="c1", channel="web"), timeout=5)
        assert answer.state.known
        assert engine.stop() == 0


def test_history_may_come_before_the_engine_is_started_for_the_first_time(tmp_path: Path) -> None:
    path = tmp_path / "purchases.csv"
    path.write_text(f"who,at,amount\nann,2024-05-01,{PAST_AMOUNT}\n")
    with EngineProcess(tmp_path) as engine:
        words = ["--data", str(engine.data), "--type", "purchase", "--customer", "who", "--time", "at", str(path)]
        done = engine.run("backfill", "--config", str(engine.config), *words, timeout_s=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "loaded 1 events" in done.stdout
        assert engine.data.stat().st_mode & 0o777 == 0o700
        again = engine.run("backfill", "--config", str(engine.config), *words, timeout_s=60)
        assert "loaded before" in again.stdout
        with engine.start().client() as client:
            assert known(client, "ann") == {"purchases": 1, "spent": PAST_AMOUNT}
            assert engine.stop() == 0


CLAIMS = """
opportune: 1
name: claims
channels: [{id: web}]
events:
  - type: complaint
    attributes: {case: {type: text}, topic: {type: text}, channel: {type: text}, state: {type: text}}
    timeline: {kind: complaint, channel: "{channel}", text: "{topic}", case: case, closes: {state: closed}}
offers:
  - {id: card, value: 40, treatments: [{text: a card}]}
"""


def test_complaints_of_history_are_cases_that_live_events_go_on_with(tmp_path: Path) -> None:
    rows = [
        "ann,2026-05-01,A17,late,web,open",
        "ann,2026-05-03,A17,late,branch,open",
        "ann,2026-04-01,A11,fees,web,open",
        "ann,2026-04-02,A11,fees,web,closed",
    ]
    path = tmp_path / "complaints.csv"
    path.write_text("\n".join(["who,at,case,topic,channel,state", *rows]))
    with EngineProcess(tmp_path, config=CLAIMS) as engine, engine.start().client() as client:
        words = ["--data", str(engine.data), "--type", "complaint", "--customer", "who", "--time", "at", str(path)]
        done = engine.run("backfill", "--config", str(engine.config), *words, timeout_s=60)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "1 of them have events of these files on their timelines" in done.stdout

        def cases() -> dict[str, tuple[bool, int]]:
            found = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id="ann"), timeout=5)
            return {case.case_id: (case.open, case.complaints) for case in found.cases}

        assert cases() == {"A11": (False, 1), "A17": (True, 2)}
        event = events_pb2.Event(id="e1", source="crm", type="complaint", customer_id="ann")
        event.attributes["case"].text, event.attributes["state"].text = "A17", "closed"
        client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5)
        wait_until(lambda: cases() == {"A11": (False, 1), "A17": (False, 2)}, 10, "the case is closed")
        assert engine.stop() == 0


def publish(client: Client, sent: list[str], stop: threading.Event) -> None:
    while not stop.is_set():
        customer = live_customer(len(sent) % 50)
        event = events_pb2.Event(
            id=f"e{len(sent)}",
            source="test",
            type="purchase",
            customer_id=customer,
            attributes={"amount": common_pb2.Value(number=LIVE_AMOUNT)},
        )
        client.events.Publish(events_pb2.PublishRequest(events=[event]), timeout=5)
        sent.append(customer)


def known(client: Client, customer: str) -> dict[str, float]:
    asked = customers_pb2.GetCustomerRequest(customer_id=customer)
    found = client.customers.Get(asked, timeout=5)
    return {feature.name: feature.value.number for feature in found.features}
