"""New features from the retained log: exactly as if they had been declared from the start, whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import limits
from engine.catalogue import Catalogue
from engine.cli import main
from engine.cli_store import event_log_of
from engine.errors import InvalidArgument, NotAllowed, Unavailable
from engine.eventlog import StreamLog
from engine.history import fromlog
from engine.identity import link_entry
from engine.ingest import Ingest
from engine.layouts import keep_layout
from engine.store import FeatureWrite, MemoryStore, StoreUnavailable
from engine.timeline import Keeper
from features import FeatureSpec, Layout, Offset
from opportune.v1 import common_pb2, customers_pb2, events_pb2
from tests.engine_process import Client, EngineProcess
from tests.history.past import NOW_MS, SHOP, catalogue_of, load, records
from tests.waiting import wait_until

PARTITIONS = 2
TYPES = ("visit", "purchase")
BEFORE = (
    FeatureSpec("visits", "count", "visit"),
    FeatureSpec("visits_50", "count", "visit", window_ms=50, tile_ms=10),
    FeatureSpec("spent", "sum", "purchase", attribute="amount"),
)
AFTER = (
    *BEFORE,
    FeatureSpec("purchases", "count", "purchase"),
    FeatureSpec("spent_50", "sum", "purchase", attribute="amount", window_ms=50),
    FeatureSpec("least", "min", "purchase", attribute="amount"),
    FeatureSpec("shops", "distinct", "purchase", attribute="shop"),
    FeatureSpec("newest", "last", "purchase", attribute="amount"),
)
WIDER = (*AFTER, FeatureSpec("visits_900", "count", "visit", window_ms=900, tile_ms=10))

Sent = tuple[str, int, str, int, dict[str, Any]]


def specs() -> st.SearchStrategy[list[FeatureSpec]]:
    """Some features of a few kinds, windows and event types."""
    kinds = st.tuples(
        st.sampled_from(["count", "sum", "mean", "min", "max", "last", "first", "distinct", "recency", "decayed"]),
        st.sampled_from(TYPES),
        st.sampled_from([None, 10, 30, 200]),
        st.booleans(),
    )
    return st.lists(kinds, max_size=6).map(lambda rows: [_spec(f"f{at}", *row) for at, row in enumerate(rows)])


def _spec(name: str, function: str, event: str, window_ms: int | None, large: bool) -> FeatureSpec:
    valued = function not in ("count", "recency", "decayed")
    return FeatureSpec(
        name,
        function,
        event,
        attribute="amount" if valued else None,
        window_ms=None if function in ("recency", "decayed") else window_ms,
        tile_ms=10 if window_ms and function not in ("recency", "decayed") else None,
        half_life_ms=30 if function == "decayed" else None,
        condition="amount > 5.0" if large else None,
    )


def sents() -> st.SearchStrategy[list[Sent]]:
    """Events of three customers, some of them repeated, in no order of time."""
    rows = st.tuples(
        st.sampled_from(["ann", "bob", "eve"]),
        st.integers(0, 30),
        st.sampled_from(TYPES),
        st.integers(0, 400),
        st.integers(1, 1_000).map(lambda cents: {"amount": cents / 100, "shop": f"s{cents % 7}"}),
    )
    return st.lists(rows, max_size=40)


def random_sents(seed: int, number: int = 300, customers: int = 12) -> list[Sent]:
    dice = Random(seed)
    return [
        (
            f"c{dice.randrange(customers)}",
            at + 1,
            dice.choice(TYPES),
            at,
            {"amount": dice.randrange(1, 100) / 4, "shop": f"s{dice.randrange(9)}"},
        )
        for at in range(number)
    ]


class Engine:
    """A store, and ingest of one configuration after the other."""

    def __init__(self, store: MemoryStore | None = None, **bounds: int) -> None:
        self._ms = count(1_000)
        self.store = store or MemoryStore(PARTITIONS, lambda: next(self._ms), **bounds)
        self.layout = Layout.compile([])
        self.ingest: Ingest | None = None
        self._known: list[Sequence[FeatureSpec]] = []

    def configure(self, declared: Sequence[FeatureSpec]) -> None:
        self.layout = Layout.compile(declared, older=self._known)
        self._known.append(declared)
        self.ingest = Ingest(self.layout, self.store, Keeper({}), batch_max=7)

    async def take(self, sents: Sequence[Sent]) -> None:
        for sent in sents:
            await self.store.append_events([(sent[0], orjson.dumps(sent))])
        await self.fold()

    async def fold(self) -> None:
        assert self.ingest is not None
        while await self.ingest.round(0):
            pass

    async def record(self, customer: str) -> bytes | None:
        [record] = await self.store.read_features([customer])
        return record

    async def fill(self, *names: str) -> fromlog.Report:
        return await fromlog.fill(self.store, StreamLog(self.store), self.layout, names)


def customers_of(sents: Sequence[Sent]) -> list[str]:
    return sorted({sent[0] for sent in sents})


async def changed(
    sents: Sequence[Sent], cut: int, before: Sequence[FeatureSpec] = BEFORE, after: Sequence[FeatureSpec] = AFTER,
    store: MemoryStore | None = None, **bounds: int
) -> Engine:  # fmt: skip
    engine = Engine(store, **bounds)
    engine.configure(before)
    await engine.take(sents[:cut])
    engine.configure(after)
    await engine.take(sents[cut:])
    return engine


async def assert_as_from_the_start(engine: Engine, sents: Sequence[Sent], declared: Sequence[FeatureSpec]) -> None:
    """The very bytes, but for positions of the log: both logs give the same ones."""
    always = Engine()
    always.configure(declared)
    await always.take(sents)
    for customer in customers_of(sents):
        mine, theirs = await engine.record(customer), await always.record(customer)
        assert mine is not None and theirs is not None
        values = [engine.layout.values(record, 450) for record in (mine, theirs)]
        assert str(values[0]) == str(values[1])
        everything = engine.layout.parts(engine.layout.names) if declared else ()
        assert engine.layout.refilled(mine, theirs, everything) == engine.layout.refilled(mine, mine, ())
        assert engine.layout.header(mine).events == engine.layout.header(theirs).events


# --- where the log is whole -----------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    before=specs(), after=specs(), sents=sents(), cuts=st.lists(st.integers(0, 40), min_size=2, max_size=2),
    back=st.booleans(),
)  # fmt: skip
def test_after_any_change_every_byte_is_as_if_the_features_had_been_there_from_the_start(
    before: list[FeatureSpec], after: list[FeatureSpec], sents: list[Sent], cuts: list[int], back: bool
) -> None:
    async def run() -> None:
        first, second = sorted(cuts)
        engine = Engine()
        engine.configure(before)
        await engine.take(sents[:first])
        engine.configure(after)
        if back:  # a rolling change: some servers are of the one and some of the other configuration
            await engine.take(sents[first : (first + second) // 2])
            engine.configure(before)
            await engine.take(sents[(first + second) // 2 : second])
            engine.configure(after)
        else:
            await engine.take(sents[first:second])
        try:
            report = await engine.fill()
        except NotAllowed:
            assert not engine.layout.parts()
        else:
            assert not report.left and not report.partly
            kept = [await engine.record(customer) for customer in customers_of(sents[:second])]
            again = await engine.fill()
            assert (again.whole, again.partly, again.unchanged) == (0, 0, len(kept))
            assert kept == [await engine.record(customer) for customer in customers_of(sents[:second])], "idempotent"
        await engine.take(sents[second:])
        await assert_as_from_the_start(engine, sents, after)

    asyncio.run(run())


async def test_the_whole_record_is_that_of_the_log_late_events_counted() -> None:
    sents = random_sents(1)
    Random(1).shuffle(sents)
    engine = await changed(sents, 200, after=WIDER)
    report = await engine.fill()
    assert report.features == (*(spec.name for spec in AFTER[3:]), "visits_900")
    assert (report.events, report.whole) == (300, 12)
    fresh = fromlog._Fresh(engine.layout)
    for partition in range(PARTITIONS):
        piece = await StreamLog(engine.store).read(partition, Offset.ZERO)
        assert piece is not None
        fresh.absorb(piece.arrivals)
    assert fresh.records == {customer: await engine.record(customer) for customer in customers_of(sents)}
    assert any(engine.layout.header(record).late for record in fresh.records.values())


async def test_only_the_features_named_are_filled_if_any_are() -> None:
    engine = await changed([("ann", 1, "purchase", 10, {"amount": 3.0, "shop": "a"})], 1)
    assert (await engine.fill("purchases")).features == ("purchases",)
    values = engine.layout.values(await engine.record("ann"), 20)
    assert (values["purchases"], values["least"], values["spent"]) == (1.0, None, 3.0)
    # One that another configuration kept, and that began anew: it was dropped in between.
    engine.configure(BEFORE[:2])
    await engine.take([("ann", 2, "purchase", 11, {"amount": 4.0})])
    engine.configure(AFTER)
    await engine.take([("ann", 3, "purchase", 12, {"amount": 5.0})])
    assert "spent" not in (await engine.fill()).features
    assert engine.layout.values(await engine.record("ann"), 20)["spent"] == 5.0
    assert (await engine.fill("spent")).whole == 1
    assert engine.layout.values(await engine.record("ann"), 20)["spent"] == 12.0
    with pytest.raises(InvalidArgument, match="--feature: feature 'spend': there is none"):
        await engine.fill("spend")
    engine.configure(BEFORE)
    with pytest.raises(NotAllowed, match="no feature is new"):
        await engine.fill()


async def test_a_store_that_is_fed_from_kafka_is_refused() -> None:
    engine = await changed(random_sents(1, 20), 10)
    await engine.store.remember("events", b"{}")
    with pytest.raises(NotAllowed, match="in Kafka: name its brokers with --kafka HOST:PORT"):
        async with event_log_of(engine.store, None):
            pass


# --- while others write ---------------------------------------------------------------------------------------------


class Busy(MemoryStore):
    """Something takes place between a fill's reading and its writing."""

    meanwhile: Callable[[], Awaitable[None]] | None = None
    fills = 0

    async def write_records(self, writes: Sequence[FeatureWrite]) -> list[bool]:
        if self.meanwhile is not None:
            self.fills += 1
            await self.meanwhile()
        return await super().write_records(writes)


def busy() -> Busy:
    ms = count(1_000)
    return Busy(PARTITIONS, lambda: next(ms))


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_takes_events_meanwhile_is_filled_all_the_same(seed: int) -> None:
    sents, store = random_sents(seed, 400), busy()
    engine = await changed(sents[:250], 200, store=store)
    waiting = sents[250:]

    async def publish() -> None:
        nonlocal waiting
        batch, waiting = waiting[:9], waiting[9:]
        await engine.take(batch)

    store.meanwhile = publish
    report = await engine.fill()
    assert store.fills > 3, "some were written to in between"
    assert report.whole == 12 and not report.left
    store.meanwhile = None
    await engine.take(waiting)
    await assert_as_from_the_start(engine, sents, AFTER)


async def test_an_ingest_that_read_before_the_fill_does_not_write_over_it() -> None:
    sents = random_sents(3)

    class Late(MemoryStore):
        armed = False

        async def write_features(self, *arguments: Any) -> list[bool]:
            if self.armed:
                self.armed = False
                await engine.fill()
            return await super().write_features(*arguments)

    ms = count(1_000)
    store = Late(PARTITIONS, lambda: next(ms))
    engine = await changed(sents[:250], 200, store=store)
    store.armed = True
    await engine.take(sents[250:])
    assert not store.armed
    await assert_as_from_the_start(engine, sents, AFTER)


async def test_a_customer_who_never_rests_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    sents, store = random_sents(4), busy()
    engine = await changed(sents, 200, store=store)
    numbers = count(1_000)

    async def publish() -> None:
        await engine.take([("c1", next(numbers), "visit", 1_000, {})])

    store.meanwhile = publish
    monkeypatch.setattr(limits, "BACKFILL_CONFLICT_RETRIES_MAX", 5)
    with pytest.raises(Unavailable, match=r"run the same command again: customers are written to all the time, 1 of"):
        await engine.fill()
    store.meanwhile = None
    assert not (await engine.fill()).left


@pytest.mark.parametrize("after", [False, True], ids=["before a write", "after a write"])
async def test_killed_at_any_write_and_done_again_it_leaves_the_same_bytes(
    after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BACKFILL_CUSTOMERS_BATCH_MAX", 2)
    sents = random_sents(5)

    class Away(MemoryStore):
        left = 0

        async def write_records(self, writes: Sequence[FeatureWrite]) -> list[bool]:
            self.left -= 1
            if self.left == 0 and not after:
                raise StoreUnavailable("gone")
            written = await super().write_records(writes)
            if self.left == 0:
                raise StoreUnavailable("gone")
            return written

    for at in range(1, 50):
        ms = count(1_000)
        store = Away(PARTITIONS, lambda ms=ms: next(ms))  # type: ignore[misc]
        engine = await changed(sents, 200, store=store)
        store.left = at
        try:
            await engine.fill()
        except Unavailable:
            await engine.fill()
            await assert_as_from_the_start(engine, sents, AFTER)
        else:
            break
    assert at == 7, "six writes of two customers"


# --- where the log is not whole -------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(sents=sents(), cut=st.integers(0, 40), kept=st.integers(1, 20), after=st.sampled_from([AFTER, WIDER]))
def test_of_a_log_that_was_trimmed_as_much_as_it_has_and_never_less_than_there_was(
    sents: list[Sent], cut: int, kept: int, after: tuple[FeatureSpec, ...]
) -> None:
    # Without repeats: whether one is told depends on what is no longer in the log.
    sents = [(who, number, *rest) for number, (who, _, *rest) in enumerate(sents, 1)]  # type: ignore[misc]
    asyncio.run(fill_trimmed(sents, cut, kept, after))


@pytest.mark.parametrize("after", [AFTER, WIDER], ids=["new", "longer"])
@pytest.mark.parametrize("kept", [20, 60, 120])
async def test_a_trimmed_log_fills_whoever_has_taken_less_than_it_has(
    kept: int, after: tuple[FeatureSpec, ...]
) -> None:
    sents = random_sents(kept, 300, 20)
    few, many = [await fill_trimmed(sents, cut, kept, after) for cut in (290, 100)]
    assert few.partly > 8, "ten events since the change, and the log has more"
    if after is AFTER:
        assert (many.left[fromlog.BEYOND] > 8) == (kept < 100), "a hundred a log, which has them or has not"


async def fill_trimmed(
    sents: Sequence[Sent], cut: int, kept: int, after: Sequence[FeatureSpec]
) -> fromlog.Report:
    """Change the configuration at `cut`, and fill from the newest `kept` entries of each log; each part is judged."""
    engine = await changed(sents, cut, after=after, event_log_entries_max=kept)
    layout, store = engine.layout, engine.store
    before = {customer: await engine.record(customer) for customer in customers_of(sents)}
    fresh = fromlog._Fresh(layout)
    pieces = [await StreamLog(store).read(p, Offset.ZERO) for p in range(PARTITIONS)]
    for piece in pieces:
        fresh.absorb(piece.arrivals if piece else ())
    report = await engine.fill()
    assert report.events == sum(piece.entries for piece in pieces if piece)
    for customer, had in before.items():
        has = await engine.record(customer)
        assert has is not None and had is not None
        made = fresh.records.get(customer)
        if made is None:
            assert has == had, "nothing is known of them"
            continue
        has = layout.refilled(has, has, ())  # carried over, if nothing was written
        all_sent = [sent for sent in sents if sent[0] == customer]
        since_change = [sent for sent in sents[cut:] if sent[0] == customer]
        for part in layout.parts():
            filled = layout.refilled(has, made, (part,)) == has
            assert filled or layout.refilled(has, had, (part,)) == has, "one or the other"
            if layout.header(made).events == len(all_sent):
                assert filled
            elif layout.header(made).events >= len(since_change) and not part.known_to:
                assert filled, "the log has all that the new cells took"
            elif layout.header(made).events < len(since_change):
                assert layout.refilled(has, had, (part,)) == has, "they know more than the log"
        for name in ("purchases", "shops", "visits", "spent"):
            assert layout.values(has, 450)[name] >= layout.values(had, 450)[name]  # type: ignore[operator]
    again = await engine.fill()
    assert (again.whole, again.partly) == (0, 0)
    return report


async def test_what_could_not_be_filled_is_told_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FROM_LOG_ENTRIES_MAX", 3)
    amount = {"amount": 1.0, "shop": "s"}
    engine = Engine(event_log_entries_max=8)
    engine.configure(BEFORE)
    for _ in range(3):
        await engine.take([(who, 0, "purchase", 1, amount) for who in ("ann", "bob", "eve", "joe")])
    engine.configure(AFTER)
    await engine.take([("ann", 0, "purchase", at, amount) for at in range(12)])  # alone it fills a log
    report = await engine.fill()
    assert report.left == {fromlog.BEYOND: 1}
    values = engine.layout.values(await engine.record("ann"), 20)
    assert (values["purchases"], values["spent"]) == (12.0, 15.0)
    assert report.partly + report.whole + report.unchanged + 1 <= 4
    assert report.whole + report.partly >= 1


async def test_state_that_began_anew_or_cannot_be_read_is_left_alone() -> None:
    sents = [(who, 0, "purchase", at, {"amount": 1.0}) for at in range(4) for who in ("ann", "bob", "eve", "joe")]
    engine = await changed(sents, 8)  # type: ignore[arg-type]
    values = vars(engine.store)["_features"]
    values.put("ann", engine.layout.fold(None, []).record)
    values.put("bob", values.get("bob")[:-1] + b"\xff")
    stranger = Layout.compile([FeatureSpec("x", "count", "y")]).fold(None, []).record
    values.put("eve", stranger)
    report = await engine.fill()
    assert report.left == {fromlog.MORE: 1, fromlog.UNREADABLE: 2}
    assert (report.whole, await engine.record("eve")) == (1, stranger)


async def test_names_that_were_linked_are_left_alone() -> None:
    sents: list[Sent] = [(who, 0, "purchase", 1, {"amount": 1.0}) for who in ("ann", "cookie=c", "bob")]
    engine = await changed(sents, 3)
    await engine.store.append_events([link_entry("cookie=c", "ann", 5, source="test")])
    await engine.fold()
    before = [await engine.record(name) for name in ("ann", "cookie=c")]
    report = await engine.fill()
    assert (report.whole, report.left) == (1, {fromlog.LINKED: 2})
    assert before == [await engine.record(name) for name in ("ann", "cookie=c")]


async def test_what_nothing_of_ours_wrote_is_passed_over() -> None:
    engine = Engine()
    engine.configure(BEFORE)
    await engine.take([("ann", 0, "purchase", 1, {"amount": 1.0})])
    await engine.store.append_events([("ann", b"no event")])
    await engine.fold()
    engine.configure(AFTER)
    assert (await engine.fill()).whole == 1


@pytest.mark.parametrize(
    ("loaded_after", "left", "least"),
    [(False, {}, 100.0), (True, {fromlog.HISTORY: 1}, 10.0)],
    ids=["loaded before the change", "loaded after it"],
)
def test_history_from_files_is_never_replaced(
    tmp_path: Path, loaded_after: bool, left: dict[str, int], least: float
) -> None:
    text = SHOP + "  - {name: least, event: purchase, function: min, attribute: amount}\n"
    old, new = catalogue_of(SHOP), catalogue_of(text)
    ms = count(1_800_000_000_000)
    store = MemoryStore(4, lambda: next(ms))
    path = tmp_path / "history.csv"
    path.write_text("who,at,amount\nann,2024-05-01,10\nann,2024-05-02,10\n")
    source = {"files": [str(path)], "type": "purchase", "customer": "who", "time": "at"}

    async def live(number: int, catalogue: Catalogue, text: str) -> None:
        await keep_layout(store, catalogue.version, text.encode(), catalogue.layout)
        data = orjson.dumps(["ann", number, "purchase", 1_750_000_000_000 + number, {"amount": 100.0}])
        await store.append_events([("ann", data)])
        await Ingest(catalogue.layout, store, catalogue.keeper).round(0)

    asyncio.run(live(1, old, SHOP))
    if not loaded_after:
        load(store, old, tmp_path, source)
    asyncio.run(live(2, new, text))
    if loaded_after:
        load(store, new, tmp_path, source)
    report = asyncio.run(fromlog.fill(store, StreamLog(store), new.layout, ()))
    assert (report.features, dict(report.left)) == (("least",), left)
    [record] = records(store, ["ann"])
    assert new.layout.values(record, NOW_MS)["least"] == least, "as far back as the log reaches, or as it was"


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_beside_an_engine_and_replay_finds_everything_equal(tmp_path: Path) -> None:
    more = "  - {name: largest, event: purchase, function: max, attribute: amount}\noffers:"
    with EngineProcess(tmp_path) as engine:
        where = ["backfill", "--config", str(engine.config), "--data", str(engine.data), "--from-log"]
        with engine.start().client() as client:
            publish(client, [("ann", 70.0), ("ann", 5.0), ("bob", 3.0)])
            done = engine.run(*where)
            assert done.returncode == 1 and "no feature is new" in done.stderr, done.stdout + done.stderr
            assert engine.stop() == 0
        engine.config.write_text(engine.config.read_text().replace("offers:", more))
        with engine.start().client() as client:
            publish(client, [("ann", 6.0), ("joe", 1.0)])
            wait_until(lambda: known(client, "ann")["purchases"] == 3.0, 10, "all is folded")
            assert known(client, "ann")["largest"] == 6.0
            done = engine.run(*where)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stdout.splitlines() == [
                "filled largest from 5 events",
                "2 customers filled from their first event on; 1 had it all already",
            ]
            assert known(client, "ann") == {"spent": 81.0, "purchases": 3.0, "largest": 70.0}
            assert known(client, "bob")["largest"] == 3.0
            engine.replay()
            assert engine.stop() == 0
        done = engine.run(*where, "--feature", "largest", "--feature", "spent")
        assert done.stdout.splitlines() == [
            "filled spent, largest from 5 events",
            "0 customers filled from their first event on; 3 had it all already",
        ]
        engine.replay()


def publish(client: Client, purchases: Sequence[tuple[str, float]]) -> None:
    events = [
        events_pb2.Event(
            id=f"{customer} {amount}",
            source="test",
            type="purchase",
            customer_id=customer,
            attributes={"amount": common_pb2.Value(number=amount)},
        )
        for customer, amount in purchases
    ]
    client.events.Publish(events_pb2.PublishRequest(events=events), timeout=5)


def known(client: Client, customer: str) -> dict[str, float]:
    found = client.customers.Get(customers_pb2.GetCustomerRequest(customer_id=customer), timeout=5)
    return {feature.name: feature.value.number for feature in found.features}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--from-log"], "expected --data or --redis, one of them"),
        (["--from-log", "x.csv"], "--from-log reads the event log of the engine: expected no FILES"),
        (["--from-log", "--check"], "expected no --check"),
        (["--from-log", "--until", "2024-05-02"], "expected no --until"),
        (["--feature", "spent", "x.csv"], "--feature goes with --from-log"),
        (["--from-log", "--redis", "unix:///nowhere.sock"], "the store is away"),
    ],
)
def test_what_is_wrong_with_the_command_is_told(tmp_path: Path, words: list[str], expected: str) -> None:
    (tmp_path / "past.yaml").write_text(SHOP)
    result = CliRunner().invoke(main, ["backfill", "--config", str(tmp_path / "past.yaml"), *words])
    assert result.exit_code != 0
    assert expected in result.output
