"""The rules of identity one by one: who wins, what is refused, what late repeats and damage change."""

import base64
import itertools
from collections.abc import Sequence
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.eventlog import StreamLog
from engine.identity import (
    Advanced,
    EntityKind,
    Stored,
    advance,
    belonging,
    entity_entry,
    link_entry,
    unlink_entry,
)
from engine.ingest import Ingest
from engine.limits import CUSTOMER_IDENTITIES_MAX, ENTITY_ENTRIES_MAX
from engine.links import Action, EntityLink, Links, LinksError, Parts, Status, moved, moved_to
from engine.replay import FeatureReplay
from engine.rollups import belongs_to
from engine.store import LINKS, PARTS, MemoryStore
from engine.timeline import Keeper
from features import HEADER_CAS_BYTES, Event, FeatureSpec, Layout, Offset

DAY_MS = 86_400_000
LAYOUT = Layout.compile([FeatureSpec("spent", "sum", "buy", attribute="amount", resolution=1.0)])
HOUSEHOLD = EntityKind("household", many=False)
KINDS = {"household_id": HOUSEHOLD, "product_id": EntityKind("product", many=True)}


class World:
    """A store, ingest, and a clock that the test holds."""

    def __init__(self) -> None:
        self.now_ms = 1_750_000_000_000
        self.store = MemoryStore(5, lambda: self.now_ms)
        self.ingest = Ingest(LAYOUT, self.store, Keeper({}), entities=KINDS)
        self.bought = 0

    async def append(self, *entries: tuple[str, bytes]) -> None:
        await self.store.append_events(entries)

    async def buy(self, name: str, amount: float, **attributes: Any) -> None:
        self.bought += 1
        entry = [name, self.bought, "buy", self.now_ms, {"amount": amount, **attributes}]
        await self.append((name, orjson.dumps(entry)))

    async def link(self, name: str, customer: str, **options: Any) -> None:
        await self.append(link_entry(name, customer, self.now_ms, source="api", **options))

    async def unlink(self, name: str, customer: str) -> None:
        await self.append(unlink_entry(name, customer, self.now_ms, source="api"))

    async def fold(self) -> None:
        for _ in range(1_000):
            if not await self.ingest.round(0):
                return
        raise AssertionError("they keep telling each other")

    async def spent(self, name: str) -> Any:
        """What is known of a name; the customer it belongs to, if it does not stand for itself."""
        [record] = await self.store.read_features([name])
        return moved_to(record) or (LAYOUT.values(record, self.now_ms)["spent"] if record else None)

    async def links(self, name: str) -> Links:
        [data] = await self.store.read_beside(LINKS, [name])
        return Links.unpack(data)

    async def told(self, name: str) -> list[tuple[Action, str]]:
        return [(line.action, line.name) for line in (await self.links(name)).lineage]

    async def belongs(self, name: str) -> list[str]:
        """Ids of what a name belongs to."""
        return [link.id for link in (await self.links(name)).entities]

    @property
    def refusals(self) -> list[str]:
        return [reason for _, reason in self.store.dead]


@pytest.fixture
def world() -> World:
    return World()


# --- who wins --------------------------------------------------------------------------------------------------------


async def test_of_two_customers_who_claim_a_cookie_at_once_the_later_in_its_log_has_it(world: World) -> None:
    await world.buy("cookie=c", 1)
    await world.link("cookie=c", "ann")
    await world.link("cookie=c", "bob")
    await world.buy("cookie=c", 10)
    await world.fold()
    assert [await world.spent(name) for name in ("cookie=c", "ann", "bob")] == ["bob", 1.0, 10.0]
    assert (await world.links("ann")).linked == []
    assert [(i.name, i.status) for i in (await world.links("ann")).identities] == [("cookie=c", Status.KEPT)]


async def test_what_a_former_customer_kept_can_be_taken_back_and_counts_for_the_one_after(world: World) -> None:
    """As it would have if there had been the second link only."""
    await world.buy("cookie=c", 1)
    await world.link("cookie=c", "ann")
    await world.buy("cookie=c", 2)
    await world.link("cookie=c", "bob")
    await world.buy("cookie=c", 10)
    await world.fold()
    await world.unlink("cookie=c", "ann")
    await world.fold()
    assert [await world.spent(name) for name in ("cookie=c", "ann", "bob")] == ["bob", None, 13.0]
    await world.unlink("cookie=c", "bob")
    await world.fold()
    assert [await world.spent(name) for name in ("cookie=c", "ann", "bob")] == [13.0, None, None]
    assert [action for action, _ in await world.told("ann")] == [Action.GAINED, Action.KEPT, Action.LOST]


async def test_a_device_that_goes_to_and_fro_counts_for_whoever_has_it(world: World) -> None:
    for round_number in range(6):
        await world.link("cookie=c", ("ann", "bob")[round_number % 2])
        await world.buy("cookie=c", 10**round_number)
        if round_number % 3:
            await world.fold()
    await world.fold()
    assert [await world.spent(name) for name in ("ann", "bob")] == [10101.0, 101010.0]


async def test_taking_back_what_was_never_linked_changes_nothing(world: World) -> None:
    await world.buy("cookie=c", 1)
    await world.buy("ann", 2)
    await world.unlink("cookie=c", "ann")
    await world.unlink("cookie=c", "cookie=c")
    await world.fold()
    assert [await world.spent(name) for name in ("cookie=c", "ann")] == [1.0, 2.0]
    assert world.refusals == []
    assert await world.told("cookie=c") == []


async def test_history_of_an_identity_that_was_forgotten_still_counts(world: World) -> None:
    """Its state went away after 400 days without an event, the customer's did not. The login begins a new part."""
    await world.buy("phone=p", 1)
    await world.link("phone=p", "ann")
    await world.fold()
    world.now_ms += 300 * DAY_MS
    await world.buy("ann", 10)
    await world.fold()
    world.now_ms += 150 * DAY_MS
    assert await world.spent("phone=p") is None
    await world.buy("phone=p", 100)
    await world.link("phone=p", "ann")
    await world.fold()
    assert await world.spent("ann") == 111.0
    assert (await world.links("ann")).linked == ["phone=p"]


# --- what is refused -------------------------------------------------------------------------------------------------


async def test_each_cannot_belong_to_the_other_even_if_both_are_asked_at_once(world: World) -> None:
    """Nobody could know when asked. Neither link stands, and both are told."""
    await world.buy("ann", 1)
    await world.buy("bob", 2)
    await world.link("ann", "bob")
    await world.link("bob", "ann")
    await world.fold()
    assert [await world.spent(name) for name in ("ann", "bob")] == [1.0, 2.0]
    assert any("each would belong to the other" in reason for reason in world.refusals)
    assert (Action.UNLINKED_FROM, "bob") in await world.told("ann")
    await world.link("ann", "bob")
    await world.fold()
    assert [await world.spent(name) for name in ("ann", "bob")] == ["bob", 3.0], "one of them may"


@pytest.mark.parametrize("size", [3, 4, 7])
async def test_a_ring_ends_in_customers_who_stand_for_themselves(world: World, size: int) -> None:
    names = [f"customer-{number}" for number in range(size)]
    for number, name in enumerate(names):
        await world.buy(name, 10**number)
        await world.link(name, names[(number + 1) % size])
    await world.fold()
    total = 0.0
    for name in names:
        found = await world.spent(name)
        for _ in range(size):
            found = await world.spent(found) if isinstance(found, str) else found
        assert isinstance(found, float), "everybody ends at somebody who stands for himself"
        total += await world.spent(name) if not isinstance(await world.spent(name), str) else 0.0
    assert total == float("1" * size), "everything counts once"


async def test_a_name_is_not_linked_to_itself(world: World) -> None:
    await world.buy("ann", 1)
    await world.link("ann", "ann")
    await world.link("ann", "")
    await world.fold()
    assert await world.spent("ann") == 1.0
    assert all("it is the same name" in reason for reason in world.refusals)
    assert len(world.refusals) == 2


async def test_a_customer_id_that_belongs_to_somebody_is_not_taken_from_there(world: World) -> None:
    await world.buy("b17", 1)
    await world.link("b17", "ann", only_free=True)
    await world.link("b17", "bob", only_free=True)
    await world.fold()
    assert [await world.spent(name) for name in ("b17", "ann", "bob")] == ["ann", 1.0, None]
    assert world.refusals == ["'b17' is not linked to 'bob': it belongs to 'ann', which must be taken back first"]


async def test_one_identity_too_many_stays_a_visitor_and_disturbs_nobody(world: World) -> None:
    for number in range(CUSTOMER_IDENTITIES_MAX + 1):
        await world.buy(f"cookie={number}", 1)
        await world.link(f"cookie={number}", "ann")
        await world.fold()
    last = f"cookie={CUSTOMER_IDENTITIES_MAX}"
    assert await world.spent("ann") == float(CUSTOMER_IDENTITIES_MAX)
    assert await world.spent(last) == 1.0
    [refusal] = world.refusals
    assert refusal == f"'{last}' is not linked to 'ann': the customer has 64 linked names, at most 64 are allowed"
    assert await world.told(last) == [(Action.LINKED_TO, "ann"), (Action.UNLINKED_FROM, "ann")]
    await world.unlink("cookie=0", "ann")
    await world.link(last, "ann")
    await world.fold()
    assert await world.spent(last) == "ann", "once there is room"


async def test_of_a_kind_of_many_the_newest_have_room_and_leave_that_of_other_kinds(world: World) -> None:
    for number in range(ENTITY_ENTRIES_MAX + 8):
        await world.buy("ann", 1, product_id=f"p{number:02}")
        world.now_ms += 1
    await world.buy("ann", 5, household_id="h1")
    await world.append(entity_entry("ann", EntityKind("account", many=True), "a1", world.now_ms))
    await world.fold()
    assert await world.spent("ann") == ENTITY_ENTRIES_MAX + 8 + 5.0
    assert await world.belongs("ann") == [*(f"p{number:02}" for number in range(8, 40)), "h1", "a1"]
    world.now_ms += 1
    await world.buy("ann", 5, household_id="h2", product_id="p00")
    await world.fold()
    assert await world.belongs("ann") == [*(f"p{number:02}" for number in range(9, 40)), "a1", "h2", "p00"]
    assert world.refusals == []


async def test_what_an_earlier_release_let_fill_up_has_room_for_a_household(world: World) -> None:
    """It refused what came to 32 entities, of whatever kind."""
    await world.buy("ann", 1, household_id="h1")
    await world.fold()
    full = Links(entities=[EntityLink("product", f"p{number}", 5 + number, "") for number in range(ENTITY_ENTRIES_MAX)])
    values = world.store._beside[LINKS]._values
    values["ann"] = (values["ann"][0], full.pack())
    await world.buy("ann", 1, household_id="h1")
    await world.fold()
    assert [link.id for link in (await world.links("ann")).entities][-1] == "h1"
    assert len((await world.links("ann")).entities) == ENTITY_ENTRIES_MAX + 1


async def test_what_a_linked_name_belongs_to_takes_no_room_from_its_customer(world: World) -> None:
    mine = [f"p{number:02}" for number in range(ENTITY_ENTRIES_MAX)]
    for product in mine:
        await world.buy("ann", 1, product_id=product)
    for number in range(ENTITY_ENTRIES_MAX + 3):
        world.now_ms += 1
        await world.buy("cookie=c", 1, product_id=f"q{number:02}")
    await world.buy("cookie=c", 1, household_id="h1")
    await world.link("cookie=c", "ann")
    await world.fold()
    links = await world.links("ann")
    assert await world.belongs("ann") == [*mine, "h1"]
    assert belongs_to(links.entities, "household") == "h1"
    assert len((await world.links("cookie=c")).entities) == ENTITY_ENTRIES_MAX + 1
    await world.unlink("cookie=c", "ann")
    await world.fold()
    assert await world.belongs("ann") == mine
    assert world.refusals == []


kinds = st.sampled_from(["product", "account", "household"])


@given(named=st.lists(st.tuples(kinds, st.integers(0, 60), st.integers(0, 90)), max_size=150), dice=st.randoms())
def test_what_has_room_does_not_depend_on_the_order_of_arrival(named: list[tuple[str, int, int]], dice: Random) -> None:
    def held(told: Sequence[tuple[str, int, int]]) -> list[EntityLink]:
        entities: list[EntityLink] = []
        for kind, number, time_ms in told:
            many = kind != "household"
            entities = belonging(entities, EntityKind(kind, many), f"{number:02}", time_ms) or entities
        return sorted(entities)

    newest: dict[tuple[str, str], int] = {}
    for kind, number, time_ms in named:
        newest[kind, f"{number:02}"] = max(time_ms, newest.get((kind, f"{number:02}"), 0))
    room = {"product": ENTITY_ENTRIES_MAX, "account": ENTITY_ENTRIES_MAX, "household": 1}
    wanted = []
    for kind, most in room.items():
        ranked = sorted(((at, name) for (of, name), at in newest.items() if of == kind), reverse=True)
        wanted += [EntityLink(kind, name, at, "") for at, name in ranked[:most]]
    assert held(named) == sorted(wanted)
    assert held(dice.sample(named, len(named))) == sorted(wanted)


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"to": "ann"},
        {"from": "x", "born": "nonsense", "at": "1-0", "status": 1},
        {"from": "x", "born": "1-0", "at": "1-0", "status": 9},
        {"kind": "household"},
    ],
)
@pytest.mark.parametrize("control", ["@link", "@unlink", "@part", "@entity", "@moon"])
async def test_an_entry_that_cannot_be_read_is_kept_aside(world: World, control: str, told: dict[str, Any]) -> None:
    """Another release may have written it. Those behind it do not wait."""
    await world.append(("ann", orjson.dumps(["ann", 0, control, world.now_ms, told])))
    await world.buy("ann", 1)
    await world.fold()
    assert await world.spent("ann") == 1.0
    [refusal] = world.refusals
    assert refusal.startswith(f"entry {control} cannot be read")


# --- late repeats, cuts, damage --------------------------------------------------------------------------------------


def told(at: int, amount: float, status: Status = Status.LINKED) -> Event:
    """What cookie=c tells ann."""
    record = LAYOUT.fold(None, [Event(1, "buy", 1, {"amount": amount}, Offset(1, 0))]).record
    attributes: dict[str, Any] = {
        "from": "cookie=c", "born": "5-0", "at": f"{at}-0", "link": "5-0", "status": int(status),
        "record": base64.b64encode(record).decode(), "names": ["cookie=c"], "entities": [],
        "since": 1, "source": "api", "request": "", "reason": "",
    }  # fmt: skip
    told.offset += 1  # type: ignore[attr-defined]
    return Event(0, "@part", 1, attributes, Offset(100, told.offset))  # type: ignore[attr-defined]


told.offset = 0  # type: ignore[attr-defined]


def fold(record: bytes | None, events: Sequence[Event]) -> bytes:
    return LAYOUT.fold(record, events).record


def after(stored: Stored, *events: Event) -> tuple[Stored, Advanced]:
    done = advance(LAYOUT, fold, "ann", stored, events, {})
    return Stored(done.record or None, done.parts, done.links), done


def test_what_was_told_earlier_changes_nothing_when_it_comes_late() -> None:
    stored, _ = after(Stored(None, None, None), told(at=20, amount=2))
    late, _ = after(stored, told(at=10, amount=1))
    assert late.record == stored.record
    gone, _ = after(late, told(at=30, amount=0, status=Status.RELEASED))
    assert gone.record is None
    still, _ = after(gone, told(at=20, amount=2))
    assert still.record is None, "what was taken back stays so"


names = st.sampled_from(["ann", "bob"])
entries = st.one_of(
    st.tuples(st.just("buy"), st.sampled_from(["", "h1", "h2"])),
    st.tuples(st.just("@link"), names),
    st.tuples(st.just("@unlink"), names),
    st.tuples(st.just("@part"), st.sampled_from(["LINKED", "KEPT", "RELEASED"])),
)


@given(steps=st.lists(entries, max_size=20), cuts=st.lists(st.integers(1, 20), max_size=6))
def test_where_the_log_is_cut_into_batches_changes_no_byte(steps: list[tuple[str, str]], cuts: list[int]) -> None:
    events = []
    for number, (what, detail) in enumerate(steps, 1):
        if what == "buy":
            attributes: dict[str, Any] = {"amount": 1.0} | ({"household_id": detail} if detail else {})
        elif what == "@part":
            attributes = dict(told(number, float(number), Status[detail]).attributes)
        else:
            attributes = {"to": detail, "source": "api", "request": "", "reason": "", "only_free": False}
        events.append(Event(number, what, number, attributes, Offset(1_000 + number, 0)))

    def run(batches: list[list[Event]]) -> Stored:
        stored = Stored(None, None, None)
        for batch in batches:
            done = advance(LAYOUT, fold, "cookie=x", stored, batch, KINDS)
            stored = Stored(done.record or None, done.parts, done.links)
        return stored

    places = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    batches = [events[start:end] for start, end in itertools.pairwise(places)]
    whole = run([events] if events else [])
    assert run(batches) == whole
    again = advance(LAYOUT, fold, "cookie=x", whole, events, KINDS) if whole.parts else None
    assert again is None or (again.record or None, again.parts, again.links, again.sends) == (
        whole.record, whole.parts, whole.links, []
    )  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
async def test_parts_of_another_configuration_are_carried_over_or_left_alone(world: World, known: bool) -> None:
    """The part was told under the old features; the customer's event comes under the new ones."""
    await world.buy("cookie=c", 1)
    await world.link("cookie=c", "ann")
    await world.buy("ann", 10)
    await world.fold()
    before = [await world.store.read_features(["ann"]), await world.store.read_beside(PARTS, ["ann"])]
    more = [*LAYOUT.specs, FeatureSpec("bought", "count", "buy")]
    layout = Layout.compile(more, older=[LAYOUT.specs] if known else ())
    world.ingest = Ingest(layout, world.store, Keeper({}), entities=KINDS)
    await world.buy("ann", 100)
    await world.fold()
    [record] = await world.store.read_features(["ann"])
    if known:
        assert layout.values(record, world.now_ms) == {"spent": 111.0, "bought": 1.0}
        await world.unlink("cookie=c", "ann")
        await world.fold()
        [record] = await world.store.read_features(["ann"])
        assert layout.values(record, world.now_ms)["spent"] == 110.0
    else:
        assert [[record], await world.store.read_beside(PARTS, ["ann"])] == before
        [refusal] = world.refusals
        assert refusal.startswith("the state of customer 'ann' cannot be written: record is of layout")


async def test_damaged_links_begin_anew_and_the_event_still_counts(world: World) -> None:
    await world.buy("ann", 1)
    await world.link("cookie=c", "ann")
    await world.fold()
    for kind in (PARTS, LINKS):
        values = world.store._beside[kind]
        values.put("ann", (values.get("ann") or b"")[:-1] + b"\xff")
    await world.buy("ann", 2)
    await world.fold()
    assert await world.spent("ann") == 3.0


def test_damaged_bytes_raise_nothing_else() -> None:
    parts = Parts(Offset(2, 0), Offset(1, 0), "ann", own={"ann": b"record"})
    data = parts.pack()
    assert Parts.unpack(data) == parts
    for cut in range(len(data)):
        with pytest.raises(LinksError):
            Parts.unpack(data[:cut])
    for at in range(4, len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if at >= 24:  # the position is outside the checksum: it is compared, not read
            with pytest.raises(LinksError):
                Parts.unpack(flipped)
    for wrong in (b"", b"[]", b"{}", b"[2,3]", b'[1,"",[[1]],[],[]]', b"\xff"):
        with pytest.raises(LinksError):
            Links.unpack(wrong)


def test_a_moved_name_is_told_from_a_record() -> None:
    record = LAYOUT.fold(None, []).record
    assert moved_to(record) == ""
    assert moved_to(moved("żółw", Offset(3, 1))) == "żółw"
    assert moved("ann", Offset(3, 1))[:HEADER_CAS_BYTES] != moved("ann", Offset(3, 2))[:HEADER_CAS_BYTES]


# --- replay ----------------------------------------------------------------------------------------------------------


async def test_linked_names_are_folded_again_to_the_byte(world: World) -> None:
    await world.buy("cookie=c", 1, household_id="h1")
    await world.link("cookie=c", "ann")
    await world.link("b17", "ann")
    await world.fold()
    await world.buy("b17", 10)
    await world.buy("ann", 100)
    await world.link("cookie=c", "bob")
    await world.fold()
    await world.unlink("b17", "ann")
    await world.buy("ann", 1000)
    await world.fold()
    assert await differences(world) == []
    values = world.store._beside[PARTS]
    values.put("ann", (values.get("ann") or b"")[:-1] + b"\xff")
    assert [line.split(" at ")[0] for line in await differences(world)] == ["parts of 'ann'"]


async def differences(world: World) -> list[str]:
    found: list[str] = []
    for partition, folded in (await world.store.folded()).items():
        again = FeatureReplay(LAYOUT, Keeper({}), folded, world.now_ms, KINDS)
        after = Offset.ZERO
        while (piece := await StreamLog(world.store).read(partition, after)) is not None:
            for arrival in piece.arrivals:
                for name in again.strangers([arrival]):
                    [record] = await world.store.read_features([name])
                    [parts] = await world.store.read_beside(PARTS, [name])
                    again.expect(name, record, parts)
                again.absorb([arrival])
            after = piece.reached
        found += again.differences()
    return found
