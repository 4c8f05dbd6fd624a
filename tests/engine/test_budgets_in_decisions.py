"""Budgets in the engine: held back when none is left, exact within a batch, settled by outcomes, free again in time."""

import asyncio
import re
import time
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from faulty_store import FaultyStore

from engine import limits
from engine.cli import main
from engine.config import parse
from engine.errors import ConfigError
from engine.record import DecisionRecord, parse_decision_id
from engine.store import RedisStore, StoreFull, StoreUnavailable
from engine.store.budgetboard import PartUse
from tests.small_engine import DAY_MS, PARTITIONS, START_MS, SmallEngine, catalogue_of
from tests.store.conftest import Server

CONFIG = b"""
opportune: 1
name: shop
limit: 1
timezone: Europe/Prague
silence: false
channels: [{id: web}]
budgets:
  - {id: stock, offers: [tv, radio], units: 10, takes: {tv: 2}}
  - {id: letters, offers: [letter], units: 3, per: day, consumed: served}
  - {id: shown, offers: [banner], units: 2, consumed: presented, reserved: 1h}
offers:
  - {id: tv, value: 900, window: 1d, treatments: [{text: tv}]}
  - {id: radio, value: 50, window: 1d, treatments: [{text: radio}]}
  - {id: letter, value: 40, treatments: [{text: letter}]}
  - {id: banner, value: 30, treatments: [{text: banner}]}
  - {id: hello, value: 1, treatments: [{text: hello}]}
fallback: [hello]
exploration: {method: greedy}
"""


class BudgetEngine(SmallEngine):
    async def look(self) -> None:
        """What the keeper does in a server all the time, long enough to have leased all that it wants."""
        for _ in range(12):
            self.now_ms += 300
            await self.service.keeper.step()

    async def used(self, account: str) -> tuple[int, int]:
        """(confirmed, reserved)"""
        parts: list[PartUse] = await self.store.use(account, self.now_ms)
        return sum(part.confirmed for part in parts), sum(part.reserved for part in parts)

    async def served(self, count: int, **fields: object) -> list[tuple[str, str]]:
        """(offer, decision) of so many customers who come at once."""
        self.came = getattr(self, "came", 0) + 1
        answers = await asyncio.gather(*(self.decide(f"c{self.came}-{n}", "web", **fields) for n in range(count)))
        return [(offer.offer_id, answer.decision_id) for answer in answers for offer in answer.offers]


async def opened(text: bytes = CONFIG) -> BudgetEngine:
    engine = BudgetEngine(text)
    await engine.look()
    return engine


async def all_served(engine: BudgetEngine, times: int = 40) -> dict[str, list[str]]:
    """Decisions by offer until the budgets are gone."""
    found: dict[str, list[str]] = {}
    for _ in range(times):
        for offer, decision in await engine.served(1):
            found.setdefault(offer, []).append(decision)
        await engine.look()
    return found


async def test_all_units_are_used_and_none_more() -> None:
    engine = await opened()
    found = await all_served(engine)
    assert {offer: len(made) for offer, made in found.items()} == {
        "tv": 5, "letter": 3, "banner": 2, "hello": 30
    }  # fmt: skip
    assert await engine.used("stock@always") == (0, 10)
    assert await engine.used("letters@2025-06-15") == (3, 0)


async def test_the_answer_says_until_when_units_are_kept() -> None:
    engine = await opened()
    kept: dict[str, int] = {}
    for number in range(12):
        asked = {"request_id": f"r{number}"}
        answer = await engine.decide(f"k{number}", "web", **asked)
        [offer] = answer.offers
        kept[offer.offer_id] = max(0, offer.reserved_until_ms - answer.time_ms)
        again = await engine.decide(f"k{number}", "web", **asked)
        assert again.repeated and again.offers[0].reserved_until_ms == offer.reserved_until_ms
        await engine.look()
    assert kept == {"tv": DAY_MS, "letter": 0, "banner": 3_600_000, "hello": 0}
    # The buckets that units are reserved in end a little later, never earlier.
    assert await engine.used("shown@always") == (0, 2)
    engine.now_ms += 3_600_000 - 12 * 12 * 300
    assert await engine.used("shown@always") == (0, 2)


async def test_a_batch_hands_no_unit_out_twice() -> None:
    engine = await opened()
    total: dict[str, int] = {}
    for _ in range(10):
        for offer, _ in await engine.served(40):
            total[offer] = total.get(offer, 0) + 1
        await engine.look()
    assert total == {"tv": 5, "letter": 3, "banner": 2, "hello": 390}


async def test_a_slate_longer_than_what_is_left_gets_as_many_places() -> None:
    engine = await opened(CONFIG.replace(b"[tv, radio], units: 10, takes: {tv: 2}", b"[tv, radio, hello], units: 2"))
    await engine.look()
    answers = [await engine.decide("ann", "web", limit=5)]
    assert len(answers[0].offers) <= 5
    taken = [offer.offer_id for offer in answers[0].offers if offer.offer_id in ("tv", "radio", "hello")]
    assert len(taken) <= 2
    assert sum(await engine.used("stock@always")) == len(taken) > 0


async def test_outcomes_settle_each_once() -> None:
    engine = await opened()
    made = (await all_served(engine))["tv"]
    await engine.report(made[0], "tv", "accepted", "yes")
    assert await engine.used("stock@always") == (2, 8)
    assert (await engine.report(made[0], "tv", "accepted", "yes")).duplicate
    await engine.report(made[0], "tv", "fulfilled")
    await engine.report(made[1], "tv", "presented")
    assert await engine.used("stock@always") == (2, 8)
    await engine.report(made[1], "tv", "declined")
    assert await engine.used("stock@always") == (2, 6)
    await engine.report(made[2], "tv", "not_presented")
    await engine.report(made[0], "tv", "cancelled")
    assert await engine.used("stock@always") == (0, 4)
    await engine.look()
    again = await all_served(engine)
    assert len(again["tv"]) == 3, "what came back is offered again"


async def test_what_is_presented_is_used_up_whatever_comes_of_it() -> None:
    engine = await opened()
    banner = (await all_served(engine))["banner"]
    await engine.report(banner[0], "banner", "presented")
    await engine.report(banner[0], "banner", "declined")
    await engine.report(banner[1], "banner", "not_presented")
    assert await engine.used("shown@always") == (1, 0)


async def test_reservations_run_out_by_themselves_and_late_acceptances_are_told() -> None:
    engine = await opened()
    first = (await all_served(engine))["tv"]
    engine.now_ms += DAY_MS + DAY_MS // 32
    await engine.look()
    assert await engine.used("stock@always") == (0, 0)
    again = (await all_served(engine))["tv"]
    assert len(again) == 5
    late = engine.service.keeper.stock  # the units are all taken again
    assert late.left("stock@always") == 0
    answer = await engine.report(first[0], "tv", "accepted")
    assert answer.late
    assert await engine.used("stock@always") == (2, 10), "counted, though it goes over"


async def test_each_day_has_its_own_units_by_the_time_of_the_decision() -> None:
    engine = await opened()
    assert len((await all_served(engine))["letter"]) == 3
    engine.now_ms += DAY_MS
    await engine.look()
    assert len((await all_served(engine))["letter"]) == 3
    yesterday = engine.now_ms - DAY_MS
    assert "letter" not in {offer for offer, _ in await engine.served(5, time_ms=yesterday)}


async def test_the_record_says_what_was_held_back_and_why() -> None:
    engine = await opened()
    await all_served(engine)
    [(offer, decision)] = await engine.served(1)
    assert offer == "hello"
    place = parse_decision_id(decision, PARTITIONS)
    assert place is not None
    [data] = await engine.store.entries([place])
    record = DecisionRecord.unpack(data or b"")
    assert record.basis is not None
    names = {engine.catalogue.holds.names[hold.limit]: hold.scope for hold in record.basis.holds}
    assert names == {"budget stock": 0, "budget letters": 0, "budget shown": 0}
    stock = next(hold for hold in record.basis.holds if hold.limit == 0)
    assert engine.catalogue.holds.covers(stock).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("units_left", [1])
async def test_who_takes_less_may_still_have_the_rest(units_left: int) -> None:
    engine = await opened(CONFIG.replace(b"units: 10", b"units: 3"))
    found = await all_served(engine)
    assert (len(found["tv"]), len(found["radio"])) == (1, 1)
    assert await engine.used("stock@always") == (0, 2 + units_left)


async def test_an_offer_that_a_dead_server_had_leased_comes_back() -> None:
    engine = await opened()
    keeper = engine.service.keeper
    assert keeper.stock.left("stock@always") > 0
    other = BudgetEngine(CONFIG, store=engine.store)
    other.now_ms = engine.now_ms + 10_000  # the first was not heard of for so long
    found = await all_served(other)
    assert len(found["tv"]) == 5
    engine.now_ms = other.now_ms
    answers = await engine.served(3)  # it lives, after all, and thinks that it has units
    assert {offer for offer, _ in answers} == {"hello"}
    assert await other.used("stock@always") == (0, 10)


async def test_servers_on_a_real_store_share_a_budget_exactly(shared_server: Server, tmp_path: Path) -> None:
    """Three servers, 64 callers at a time; and what `opportune budgets` says of it afterwards."""
    await shared_server.say(b"FLUSHALL")
    stores = [await RedisStore.open(shared_server.url, limits.PARTITIONS) for _ in range(3)]
    engines = [BudgetEngine(CONFIG.replace(b"units: 10", b"units: 100"), store=store) for store in stores]
    clock = time.time_ns() // 1_000_000  # what the command takes for now
    made: list[str] = []
    for turn in range(16):
        for engine in engines:
            engine.now_ms = clock + 300 * turn
        await asyncio.gather(*(engine.service.keeper.step() for engine in engines))
        answers = await asyncio.gather(*(engines[n % 3].decide(f"{turn}-{n}", "web") for n in range(64)))
        made += [offer.offer_id for answer in answers for offer in answer.offers]
    assert 2 * made.count("tv") + made.count("radio") == 100
    assert (made.count("letter"), made.count("banner")) == (3, 2)
    for engine in engines:
        await engine.service.drain()
    for store in stores:
        await store.close()
    config = tmp_path / "shop.yaml"
    config.write_bytes(CONFIG.replace(b"units: 10", b"units: 100"))
    arguments = ["budgets", "--config", str(config), "--redis", shared_server.url]
    told = await asyncio.to_thread(CliRunner().invoke, main, [*arguments, "--json"])
    assert told.exit_code == 0, told.output
    [stock, letters, _] = orjson.loads(told.output)["budgets"]
    assert (stock["units"], stock["reserved"], stock["leased"], stock["free"]) == (100, 100, 0, 0)
    assert (letters["confirmed"], letters["free"]) == (3, 0)
    table = await asyncio.to_thread(CliRunner().invoke, main, arguments)
    assert "100.0%" in table.output


async def test_an_engine_without_budgets_keeps_nothing_and_asks_for_nothing() -> None:
    engine = SmallEngine()
    await engine.service.keeper.step()
    assert await engine.store.budget_notes() == {}
    assert (await engine.decide("ann")).offers


PACED = CONFIG.replace(b"units: 3, per: day,", b"units: 100, per: day, pace: even,")
DELIVERED = PACED.replace(b"pace: even,", b"minimum: 90,").replace(b"value: 40", b"value: 1")


async def test_a_budget_that_is_used_too_fast_gets_a_price_and_the_record_keeps_it() -> None:
    engine = BudgetEngine(PACED)
    engine.now_ms = START_MS - START_MS % DAY_MS  # two in the morning
    await engine.look()
    for _ in range(12):
        await engine.served(8)
        await engine.look()
    prices = engine.service.keeper.prices
    assert prices is not None
    assert prices[2] > 0
    assert [at for at in range(5) if prices[at]] == [2]
    [(_, decision)] = await engine.served(1)
    place = parse_decision_id(decision, PARTITIONS)
    assert place is not None
    [data] = await engine.store.entries([place])
    basis = DecisionRecord.unpack(data or b"").basis
    assert basis is not None
    assert basis.prices == ((2, prices[2]),)


async def test_a_budget_that_must_be_delivered_gets_a_bonus_when_it_lags() -> None:
    engine = BudgetEngine(DELIVERED)
    engine.now_ms = START_MS - START_MS % DAY_MS + DAY_MS // 2
    await engine.look()
    await engine.look()
    prices = engine.service.keeper.prices
    assert prices is not None
    assert prices[2] < 0
    # All servers have the price of the one that computes it.
    other = BudgetEngine(DELIVERED, engine.store)
    other.now_ms = engine.now_ms
    await other.service.keeper.step()
    assert other.service.keeper.prices is not None
    assert other.service.keeper.prices[2] == pytest.approx(prices[2], rel=0.2)


WRONG = [
    (b"units: 10", b"units: -1", "budgets[0].units: expected greater than or equal to 0, got -1", 9),
    (b"units: 10", b"units: 1.5", "budgets[0].units", 9),
    (b"units: 10", b"units: 10, minimum: 5", "budgets[0].minimum: what has no end cannot be paced", 9),
    (b"units: 10", b"units: 10, pace: even", "budgets[0].pace: what has no end cannot be paced", 9),
    (b"units: 3,", b"units: 3, minimum: 4,", "budgets[1].minimum: expected no more than the 3 units", 10),
    (b"id: letters", b"id: stock", "budget 'stock' is already there as budgets[0]", 10),
    (b"[tv, radio]", b"[tv, radio, car]", "budgets[0].offers[2]: no offer 'car'", 9),
    (b"{tv: 2}", b"{tv: 11}", "11 units of 10: it could never be made", 9),
    (b"{tv: 2}", b"{hello: 2}", "the budget does not cover the offer 'hello'", 9),
    (b"{tv: 2}", b"{tv: -2}", "budgets[0].takes.tv", 9),
    (b"offers: [letter]", b"categories: [none]", "no offer has the category 'none'", 10),
    (b"consumed: served", b"consumed: served, reserved: 1h", "nothing is reserved", 10),
    (b"per: day", b"per: hour", "budgets[1].per", 10),
]


@pytest.mark.parametrize(("old", "new", "message", "line"), WRONG, ids=[case[2][:40] for case in WRONG])
def test_what_does_not_fit_is_refused_with_its_line(old: bytes, new: bytes, message: str, line: int) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        parse(CONFIG.replace(old, new), "shop.yaml")
    assert f"shop.yaml:{line}:" in str(refused.value)


async def test_who_runs_dry_gets_what_lies_idle_elsewhere() -> None:
    one = await opened()
    assert one.service.keeper.stock.left("stock@always") > 0
    other = BudgetEngine(CONFIG, store=one.store)
    made: list[str] = []
    for _ in range(40):
        for engine in (one, other):
            engine.now_ms = max(one.now_ms, other.now_ms) + 150
            await engine.service.keeper.step()
        made += [offer for offer, _ in await other.served(1)]
    assert made.count("tv") == 5, "all that there is, though the other server had leased some of it"
    assert one.service.keeper.stock.left("stock@always") == 0


async def test_another_configuration_is_followed_without_losing_count() -> None:
    """More units, another offer: what was used stays used, and old decisions settle by what they took."""
    engine = await opened()
    first = (await all_served(engine))["tv"]
    text = CONFIG.replace(b"units: 10", b"units: 13").replace(b"takes: {tv: 2}", b"takes: {tv: 3}")
    await engine.store.save_config(engine.catalogue.version, CONFIG)
    catalogue = catalogue_of(text)
    engine.service.follow(engine.service.prepared(catalogue))
    await engine.look()
    assert len((await all_served(engine))["tv"]) == 1
    assert await engine.used("stock@always") == (0, 13)
    await engine.report(first[0], "tv", "accepted")
    assert await engine.used("stock@always") == (2, 11), "it had taken 2"


async def test_an_acceptance_that_the_ledger_forgot_is_counted() -> None:
    engine = await opened()
    [(offer, decision)] = await engine.served(1, limit=1)
    assert offer == "tv"
    customer = f"c{engine.came}-0"
    for _ in range(limits.LEDGER_DECISIONS_MAX + 2):
        await engine.decide(customer, "web", limit=1)
        await engine.look()
    assert await engine.used("stock@always") == (0, 10)
    await engine.report(decision, "tv", "declined")
    for number in range(limits.LEDGER_DECISIONS_MAX + 2):
        engine.now_ms += 1
        await engine.decide(customer, "web", request_id=str(number))
    before = await engine.used("stock@always")
    await engine.report(decision, "tv", "accepted")
    after = await engine.used("stock@always")
    assert (after[0], after[1]) == (before[0] + 2, before[1]), "it counts on top: nothing is known of it any more"


async def test_a_server_that_stops_returns_what_it_had() -> None:
    engine = await opened()
    await engine.service.drain()
    assert (await engine.store.leases("stock@always")).by_id == {}
    assert [name for name in await engine.store.budget_notes() if name.startswith("server/")] == []
    assert sum(sum(part.taken.values()) for part in await engine.store.use("stock@always", 0)) == 0


async def test_without_a_store_for_a_while_it_goes_on_with_what_it_has() -> None:
    store = FaultyStore(PARTITIONS, lambda: engine.now_ms)
    engine = BudgetEngine(CONFIG, store=store)
    await engine.look()
    left = engine.service.keeper.stock.left("stock@always")
    store.failing["commit_decisions"] = StoreUnavailable("away")
    assert [offer for offer, _ in await engine.served(1)] == ["hello"], "the fallback list"
    assert engine.service.keeper.stock.left("stock@always") == left - 2, "it may have been written"
    store.failing["commit_decisions"] = StoreFull("no room")
    await engine.served(1)
    assert engine.service.keeper.stock.left("stock@always") == left - 2, "nothing was written"
    store.failing.clear()
    found = await all_served(engine)
    assert len(found["tv"]) == 5, "what was not written came back with its lease"
