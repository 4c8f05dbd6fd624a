"""`opportune lift` on what a real engine decided: every figure is what was done, and what cannot be told is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

from engine.cli import main
from engine.errors import InvalidArgument
from engine.evaluate import enginelog
from engine.eventlog import StreamLog
from engine.history import decisions
from engine.history.decisions import Written
from engine.lift.command import check, report
from engine.lift.comparing import Comparison, Measured
from engine.lift.insegments import InSegments
from engine.lift.report import Report, Verdict, sentence
from engine.limits import EVENT_LOG_ENTRIES_MAX, PARTITIONS
from engine.store import MemoryStore, RedisStore
from models.lift import Arm, compare
from tests.small_engine import CONFIG, DAY_MS, START_MS, SmallEngine, catalogue_of
from tests.store.conftest import Server, shared_server

__all__ = ["shared_server"]

SHOP = CONFIG + b"""
silence: false
experiments:
  - name: autumn
    goal: {event: purchase, value: amount}
    arms:
      - {name: control, share: 0.4, policy: control}
      - {name: even, share: 0.2, policy: eligibility_only}
"""
CUSTOMERS = 700


async def a_past(engine: SmallEngine, customers: int = CUSTOMERS, seed: int = 1) -> dict[str, list[float]]:
    """Customers who ask twice; (value less cost, spent) of each. Whoever is offered something spends more."""
    dice = np.random.default_rng(seed)
    done: dict[str, list[float]] = {}
    for number in range(customers):
        customer = f"c{number}"
        await engine.publish("purchase", customer, amount=1_000.0)  # before: it does not count
        engine.now_ms += 1_000
        net = spent = 0.0
        for _ in range(2):
            answer = await engine.decide(customer, "web" if number % 4 else "branch", context={"vip": number % 2 == 0})
            for offer in answer.offers:
                net -= offer.contact_cost
                if dice.random() < 0.4:
                    await engine.report(answer.decision_id, offer.offer_id, "accepted")
                    net += offer.value
            amount = float(dice.integers(1, 50)) + 20.0 * bool(answer.offers)
            await engine.publish("purchase", customer, amount=amount)
            spent += amount
        done[customer] = [net, spent]
        engine.now_ms += 1_000
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    return done


async def lift_of(
    engine: SmallEngine,
    by: str | None = None,
    from_ms: int | None = None,
    event_log_entries_max: int = EVENT_LOG_ENTRIES_MAX,
) -> Report:
    events = StreamLog(engine.store, event_log_entries_max)
    return await report(engine.store, events, engine.catalogue, (), from_ms, None, by, "the log")


def measured(one: Comparison, arm: str, over: str, measure: str) -> Measured:
    return next(m for m in one.lifts if (m.arm, m.over, m.measure) == (arm, over, measure))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def past() -> AsyncIterator[tuple[SmallEngine, dict[str, list[float]]]]:
    engine = SmallEngine(SHOP)
    await engine.store.save_config(engine.catalogue.version, SHOP)
    yield engine, await a_past(engine)


@pytest.mark.asyncio(loop_scope="module")
async def test_every_figure_is_what_was_done(past: tuple[SmallEngine, dict[str, list[float]]]) -> None:
    engine, done = past
    found = await lift_of(engine, "channel")
    one = found.comparisons[0]
    arms: dict[str, list[list[float]]] = {"champion": [], "control": [], "even": []}
    for customer, both in done.items():
        arms[engine.catalogue.experiments.of(customer, START_MS).names[0].removeprefix("autumn:")].append(both)
    for figures in one.arms:
        own = np.array(arms[figures.arm])
        assert (figures.people, figures.decisions) == (len(own), 2 * len(own))
        assert figures.value == pytest.approx(own[:, 0].mean()) and figures.goal == pytest.approx(own[:, 1].mean())
    assert {figures.arm: figures.counts["offers"] for figures in one.arms}["control"] == 0
    for measure, column in (("value", 0), ("goal", 1)):
        values = {arm: np.array(rows)[:, column] for arm, rows in arms.items()}
        clock = 2 * (len(values["champion"]) + len(values["control"]))
        expected = compare(Arm.of(values["champion"]), Arm.of(values["control"]), clock)
        told = measured(one, "champion", "control", measure).lift
        assert told is not None
        for ours, theirs in ((told.difference, expected.difference), (told.sequence, expected.sequence)):
            assert (ours.value, ours.low, ours.high) == pytest.approx((theirs.value, theirs.low, theirs.high))
        assert measured(one, "even", "champion", measure).lift is not None
    # 20 a purchase and two purchases, whatever would have been bought anyway.
    goal = measured(one, "champion", "control", "goal")
    assert goal.lift is not None and goal.lift.sequence.tells
    assert goal.lift.sequence.low < 40.0 < goal.lift.sequence.high
    assert "more, however often it is looked at" in sentence(goal)
    assert not one.ratio_is_odd and found.verdict is Verdict.ANSWERED
    assert [part.part for part in found.comparisons] == ["", "channel branch", "channel web"]
    assert sum(arm.people for part in found.comparisons[1:] for arm in part.arms) == CUSTOMERS
    assert json.loads(found.to_json())["experiments"][0]["lifts"][0]["lift"]["difference"]["value"]


@pytest.mark.asyncio(loop_scope="module")
async def test_apart_by_a_fact_and_from_a_time(past: tuple[SmallEngine, dict[str, list[float]]]) -> None:
    engine, _ = past
    found = await lift_of(engine, "vip", START_MS + CUSTOMERS * 1_000)
    assert [part.part for part in found.comparisons] == ["", "vip False", "vip True"]
    assert sum(arm.people for arm in found.comparisons[0].arms) == CUSTOMERS // 2


@pytest.mark.asyncio(loop_scope="module")
async def test_a_log_of_events_that_does_not_reach_back_is_refused(
    past: tuple[SmallEngine, dict[str, list[float]]],
) -> None:
    engine, _ = past
    log = engine.store._events[0]  # type: ignore[attr-defined]
    kept, positions = dict(log.data), list(log.positions)
    try:
        log.trim(100, log.last)
        found = await lift_of(engine, event_log_entries_max=100)
    finally:
        log.data, log.positions = kept, positions
    [refusal] = found.comparisons[0].refusals
    assert "event log of partition 0" in refusal and "begins at 2025-" in refusal and "expected --from" in refusal
    assert found.verdict is Verdict.REFUSED
    assert {m.measure for m in found.comparisons[0].lifts} == {"value"}
    # From where the log is whole it is answered again.
    later = await lift_of(engine, None, START_MS + CUSTOMERS * 1_000, event_log_entries_max=100_000)
    assert not later.comparisons[0].refusals


@pytest.mark.asyncio(loop_scope="module")
async def test_other_policies_are_not_judged_by_whom_nothing_could_be_offered(
    past: tuple[SmallEngine, dict[str, list[float]]],
) -> None:
    engine, _ = past
    written = decisions.Written()
    batches = decisions.decided(engine.store, engine.catalogue, None, None, written)
    log = await enginelog.read(batches, written, engine.catalogue, None, "reward", "the log")
    control = {f"c{n}" for n in range(CUSTOMERS) if engine.catalogue.experiments.of(f"c{n}", START_MS).controls}
    repeated = next(remark for remark in log.remarks if "repeated a draw" in remark)
    assert len(log) + int(repeated.split()[2]) == 2 * (CUSTOMERS - len(control))
    assert any(f"left out {2 * len(control)} decisions for control groups" in remark for remark in log.remarks)


SEGMENTS = b"""
segments:
  - {name: spender, when: "spent_30d > 100.0"}
  - {name: complains, when: "complaints_90d > 0.0"}
"""


async def test_people_count_in_the_segments_that_they_were_in_when_they_first_came() -> None:
    """By what the decision saw, with all that came after, under whatever configuration it was made."""
    store = MemoryStore(4, lambda: engine.now_ms)
    engine = SmallEngine(SHOP, store)  # which knows of no segments
    await store.save_config(engine.catalogue.version, SHOP)
    was: dict[str, set[str]] = {}
    spent: dict[str, float] = {}
    for number in range(120):
        customer = f"c{number}"
        was[customer] = {"spender"} if number % 2 else set()
        if number % 3 == 0:
            was[customer].add("complains")
            await engine.publish("complaint", customer)
        if number % 2:
            await engine.publish("purchase", customer, amount=500.0)
    await engine.fold()
    engine.now_ms += 1_000
    for number, customer in enumerate(was):
        if number == 100:
            now_ms, engine = engine.now_ms, SmallEngine(SHOP + SEGMENTS, store)
            engine.now_ms = now_ms
            await store.save_config(engine.catalogue.version, SHOP + SEGMENTS)
        await engine.decide(customer, "web")
    engine.now_ms += 1_000
    for number, customer in enumerate(was):
        spent[customer] = 200.0 + number
        await engine.publish("purchase", customer, f"later-{number}", amount=spent[customer])
    await engine.fold()
    engine.now_ms += 1_000
    for customer in was:
        await engine.decide(customer, "web")  # by now everybody spends
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    found = await lift_of(engine, "segment")
    assert [part.part for part in found.comparisons] == [
        "", "segment spender", "segment complains", "segment (none)"
    ]  # fmt: skip
    for part, name in zip(found.comparisons[1:], ("spender", "complains", ""), strict=True):
        own = [customer for customer, names in was.items() if (name in names if name else not names)]
        assert sum(arm.people for arm in part.arms) == len(own)
        assert sum(arm.decisions for arm in part.arms) == 2 * len(own), "the later decisions are theirs, too"
        goals = sum((arm.goal or 0.0) * arm.people for arm in part.arms)
        assert goals == pytest.approx(sum(spent[customer] for customer in own))
    assert json.loads(found.to_json())["by"] == "segment"


async def test_a_first_decision_that_does_not_tell_is_in_no_segment() -> None:
    engine = SmallEngine(SHOP + SEGMENTS)
    answer = await engine.decide("ann", "web")
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    batches = [batch async for batch in decisions.decided(engine.store, engine.catalogue, None, None, Written())]
    [one] = [one for _, batch in batches for one in batch if one.record.customer == "ann"]
    assert answer.decision_id and one.record.basis is not None
    segments = InSegments(engine.catalogue)
    cut = replace(one, record=replace(one.record, basis=replace(one.record.basis, seen=b"\x01")))
    late = replace(one, record=replace(one.record, degraded=1))
    older = replace(one, record=replace(one.record, basis=None))
    assert segments.names == ("spender", "complains", "(none)", "(not told)")
    assert segments.of([one, cut, late, older, replace(one, catalogue=None)]) == [b"\x04", *[b"\x08"] * 4]


async def test_stages_count_as_attribution_says() -> None:
    more = b"    contact_cost: 2\n    outcomes: {accepted: {reward: 0.25}}\n"
    text = SHOP.replace(b"    value: 40\n", b"    value: 40\n" + more)
    engine = SmallEngine(text.replace(b"policy: control", b"policy: champion").replace(b"name: control", b"name: a"))
    told = {"ann": ["accepted"], "bob": ["accepted", "fulfilled"], "cid": ["accepted", "cancelled"]}
    told["dan"] = ["not_presented"]
    worth = {"ann": 0.25 * 40 - 2, "bob": 40.0 - 2, "cid": -2.0, "dan": 0.0, "eve": -2.0}
    for name in worth:
        answer = await engine.decide(name, "web")
        assert [offer.offer_id for offer in answer.offers] == ["card"]
        for stage in told.get(name, []):
            await engine.report(answer.decision_id, "card", stage)
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    one = (await lift_of(engine)).comparisons[0]
    assert sum(arm.value * arm.people for arm in one.arms) == pytest.approx(sum(worth.values()))
    counts = {name: sum(arm.counts[name] for arm in one.arms) for name in ("accepted", "fulfilled", "cancelled")}
    assert counts == {"accepted": 2, "fulfilled": 1, "cancelled": 1}
    assert all(m.lift is None and "people, expected 100 at least" in m.refusal for m in one.lifts)
    assert "not known" in sentence(one.lifts[0])


async def test_people_who_come_in_other_shares_than_configured_raise_an_alarm() -> None:
    engine = SmallEngine(SHOP)
    for n in range(500):
        # Somebody "saves" calls for the control group: they get nothing anyway.
        if n % 3 or not engine.catalogue.experiments.of(f"c{n}", START_MS).controls:
            await engine.decide(f"c{n}", "web")
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    found = await lift_of(engine)
    assert found.comparisons[0].ratio_is_odd and found.verdict is Verdict.REFUSED


async def test_decisions_under_other_shares_are_left_out() -> None:
    store = MemoryStore(4, lambda: engine.now_ms)
    before = SHOP.replace(b"share: 0.4", b"share: 0.1")
    engine = SmallEngine(before, store)
    await store.save_config(engine.catalogue.version, before)
    for n in range(50):
        await engine.decide(f"c{n}", "web")
    now_ms = engine.now_ms
    engine = SmallEngine(SHOP, store)
    engine.now_ms = now_ms + DAY_MS
    await store.save_config(engine.catalogue.version, SHOP)
    for n in range(40):
        await engine.decide(f"c{n}", "web")
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    one = (await lift_of(engine)).comparisons[0]
    assert sum(arm.decisions for arm in one.arms) == 40
    assert any("left out 50 decisions of configurations with other shares" in remark for remark in one.remarks)


async def test_events_twice_and_of_other_names_count_once_for_their_person() -> None:
    text = SHOP + b"identities: [{kind: cookie}]\n"
    engine = SmallEngine(text.replace(b"share: 0.4", b"share: 0.0"))
    answer = await engine.decide("ann", "web")
    engine.now_ms += 1_000
    await engine.publish("purchase", "ann", "same", amount=5.0)
    await engine.publish("purchase", "ann", "same", amount=5.0)
    await engine.publish("purchase", "stranger", amount=7.0)
    engine.now_ms += 30 * DAY_MS
    await engine.decide("the-end", "web")
    one = (await lift_of(engine)).comparisons[0]
    assert answer.customer_id == "ann" and sum((arm.goal or 0.0) * arm.people for arm in one.arms) == 5.0


def test_options_that_name_nothing_are_refused() -> None:
    catalogue = catalogue_of(SHOP)
    for names, by, told in ((("spring",), None, "there are autumn"), ((), "age", "expected channel, segment or")):
        with pytest.raises(InvalidArgument, match=told):
            check(catalogue, names, by)
    with pytest.raises(InvalidArgument, match="--by segment: configuration shop has no segments"):
        check(catalogue, (), "segment")
    check(catalogue_of(SHOP + SEGMENTS), (), "segment")
    with pytest.raises(InvalidArgument, match="has no experiments"):
        check(catalogue_of(CONFIG), (), None)


async def test_the_command_prints_and_writes_it(shared_server: Server, tmp_path: Path) -> None:
    config, out = tmp_path / "shop.yaml", tmp_path / "lift.json"
    config.write_bytes(SHOP)
    store = await RedisStore.open(shared_server.url, PARTITIONS)
    try:
        engine = SmallEngine(SHOP, store)
        await store.save_config(engine.catalogue.version, SHOP)
        await a_past(engine, 60)
    finally:
        await store.close()

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["lift", "--config", str(config), "--log", shared_server.url, *words])

    done = await asyncio.to_thread(run, "--by", "channel", "--json", str(out))
    assert done.exit_code == 3, done.output  # sixty people are too few
    assert "what it brings a person" in done.output and "people, expected 100 at least" in done.output
    assert json.loads(out.read_text())["verdict"] == "refused"
    wrong = await asyncio.to_thread(run, "--experiment", "spring")
    assert wrong.exit_code == 1 and "there are autumn" in wrong.output
