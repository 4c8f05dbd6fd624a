"""The steps of forgetting a person.

    1  the names linked to him: an @forget in the log of each   ingest drops what each has, in order with its events
    2  he himself: an @forget in his log                        only then, so that none of them tells him anything more
    3  ledgers and decisions: an entry that forgets, by name    the ledger goes with it, the learner takes back lessons
    4  entries of the event log, dead letters, leads            removed, copies of entries before the entries
    5  records of decisions and outcomes                        the learner removes them, when its checkpoint is safe

What was done is noted in a receipt after each step, and each step may be repeated: whoever asks again with the same
request id goes on where the last call ended, and forgets nothing that came after step 3 was done.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from typing import Any

import orjson

from engine.forget.entry import ForgetRecord
from engine.forget.finding import DecisionSearch, copies_of, events_of
from engine.identity import forget_entry
from engine.leads.forgetting import forget_leads
from engine.ledger import CAS_BYTES, Ledger, LedgerError
from engine.limits import DECIDE_CONFLICT_RETRIES_MAX, FORGET_POLL_MS, FORGET_WAIT_MS_MAX, LINK_HOPS_MAX
from engine.linking import links_of, targets_of
from engine.links import LinksError, Status, position_of
from engine.outlets import Inlet
from engine.store.base import PARTS, Conflict, Store, StoreUnavailable, partition_of
from engine.timeline import TimelineError
from engine.timeline import unpack as unpack_timeline
from features import Offset

Mentions = Callable[[bytes, str, Sequence[str]], bool]
"""Whether a dead letter, (payload, reason), is about one of these names."""


@dataclass(slots=True)
class Receipt:
    """How far an erasure has come, and what it removed. Names stand in it only until they are no longer needed."""

    at_ms: int
    person: str = ""
    """Who was meant; not kept."""
    stage: str = "begun"
    """begun, erased (all but records that wait for the learner), done."""
    names: list[str] = field(default_factory=list)
    """The customer, then the names linked to him."""
    markers: dict[str, str] = field(default_factory=dict)
    """Position of the @forget of each name."""
    entries: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """(decisions, outcomes, out of reach) by "partition/position" of the entry that forgets them."""
    linked: int = 0
    features: int = 0
    timeline: int = 0
    events: int = 0
    letters: int = 0
    lessons: int = 0

    def pack(self) -> bytes:
        """As the store keeps it."""
        return orjson.dumps(asdict(self))

    @classmethod
    def unpack(cls, data: bytes) -> "Receipt":
        """What `pack` gave."""
        return cls(**orjson.loads(data))

    @property
    def removed(self) -> tuple[int, int, int]:
        """(decisions, outcomes, decisions out of reach) in all."""
        rows = list(self.entries.values())
        return sum(row[0] for row in rows), sum(row[1] for row in rows), sum(row[2] for row in rows)


class Erasing:
    """Forgets people, one store's."""

    def __init__(self, store: Store, inlet: Inlet, mentions: Mentions, *, copied: bool = False) -> None:
        """`copied` says that events are copied for entities: there are roll-ups."""
        self._store = store
        self._inlet = inlet
        self._mentions = mentions
        self.copied = copied

    async def forget(self, asked: str, request_id: str, now_ms: int) -> Receipt:
        """Forget whom a name belongs to, and all names linked to him.

        Raises StoreError; asked again with the same name and request id, it goes on from there.
        """
        key = blake2b(f"{request_id}\0{asked}".encode(), digest_size=16).hexdigest()
        home = partition_of(asked, self._store.partitions)
        known = await self._store.load_receipt(home, key)
        if known is None:
            receipt = Receipt(now_ms, names=[await self._person(asked)])
        else:
            receipt = Receipt.unpack(known)

        async def note() -> None:
            await self._store.save_receipt(home, key, replace(receipt, person="").pack())

        if receipt.stage == "begun":
            receipt.person = receipt.names[0]
            await self._forget_state(receipt.person, receipt, now_ms, note)
            await self._forget_decisions(receipt, now_ms, note)
            await self._forget_log(receipt)
            await forget_leads(self._store, receipt.names)
            receipt.stage, receipt.names, receipt.markers = "erased", [], {}
            await note()
        if receipt.stage == "erased" and await self._learner_done(receipt):
            receipt.stage = "done"
            await note()
        return receipt

    async def _person(self, name: str) -> str:
        """The customer that a name belongs to, over any others in between."""
        for _ in range(LINK_HOPS_MAX):
            if not (to := (await targets_of(self._store, [name]))[name]):
                break
            name = to
        return name

    async def forgot(self, partition: int, position: Offset) -> bool:
        """Whether a decision is forgotten and only waits to be removed, or is removed. Raises StoreError."""
        pending = (await self._pending()).get(partition, {})
        if any(position in record.positions for record in pending.values()):
            return True
        return (await self._store.entries([(partition, position)]))[0] is None

    # --- features, timeline, links ----------------------------------------------------------------------------------

    async def _forget_state(
        self, customer: str, receipt: Receipt, now_ms: int, note: Callable[[], Awaitable[None]]
    ) -> None:
        if customer not in receipt.markers:
            [links] = await links_of(self._store, [customer])
            linked = [found.name for found in links.identities if found.status is Status.LINKED]
            kept = [found.name for found in links.identities if found.status is Status.KEPT]
            receipt.names = list(dict.fromkeys([customer, *receipt.names, *linked]))
            # Those of a call before this one have lost their link by now, and where their marker stands is not known.
            linked = receipt.names[1:]
            await self._count(receipt)
            entries = [forget_entry(name, now_ms, of=customer) for name in linked]
            entries += [forget_entry(name, now_ms, of=customer, kept=True) for name in kept if name not in linked]
            await note()  # their links to him go first, so who comes after a crash would not find them
            markers = await self._append(entries)
            receipt.markers |= {name: at for name, at in markers.items() if name in linked}
            await self._folded(markers)
            receipt.markers |= await self._append([forget_entry(customer, now_ms)])
            await note()
        await self._folded({customer: receipt.markers[customer]})

    async def _count(self, receipt: Receipt) -> None:
        states = await self._store.read_features(receipt.names)
        timelines = await self._store.read_timelines(receipt.names)
        entries = 0
        for data in timelines:
            try:
                entries += len(unpack_timeline(data).entries) if data else 0
            except TimelineError:
                continue
        # A call that goes on after a crash finds less than the first one did.
        receipt.linked = max(receipt.linked, len(receipt.names) - 1)
        receipt.features = max(receipt.features, sum(data is not None for data in states))
        receipt.timeline = max(receipt.timeline, entries)

    async def _append(self, entries: Sequence[tuple[str, bytes]]) -> dict[str, str]:
        positions = await self._inlet.append_events(entries) if entries else []
        return {name: str(at) for (name, _), at in zip(entries, positions, strict=True)}

    async def _folded(self, markers: dict[str, str]) -> None:
        """Wait until ingest has passed these. Raises StoreUnavailable."""
        places = {name: Offset.parse(at) for name, at in markers.items()}

        async def passed() -> bool:
            return all([await self._passed(name, at) for name, at in places.items()])

        if not await _within(passed):
            raise StoreUnavailable("ingest has not come to it yet: it will be forgotten, ask again to know when")

    async def _passed(self, name: str, at: Offset) -> bool:
        if self._inlet is self._store:
            folded = await self._store.folded()
            return folded.get(partition_of(name, self._store.partitions), Offset.ZERO) >= at
        values = [*await self._store.read_features([name]), *await self._store.read_beside(PARTS, [name])]
        return all(value is None or _position(value) >= at for value in values)

    # --- decisions --------------------------------------------------------------------------------------------------

    async def _pending(self) -> dict[int, dict[Offset, ForgetRecord]]:
        """The entries whose records were not removed yet, by partition."""
        found = {}
        for partition, known in (await self._store.forgets()).items():
            data = await self._store.entries([(partition, at) for at in known.pending])
            pairs = zip(known.pending, data, strict=True)
            found[partition] = {at: ForgetRecord.unpack(entry) for at, entry in pairs if entry is not None}
        return found

    async def _forget_decisions(self, receipt: Receipt, now_ms: int, note: Callable[[], Awaitable[None]]) -> None:
        homes: dict[int, list[str]] = {}
        for name in receipt.names:
            homes.setdefault(partition_of(name, self._store.partitions), []).append(name)
        for partition, names in homes.items():
            # Before the log is read: what is removed meanwhile is then known twice, and not taken for something new.
            pending = (await self._pending()).get(partition, {})
            known = {at for record in pending.values() for at in record.positions}
            search = DecisionSearch(self._store, partition, names)
            await search.to_the_end()
            for name in names:
                traces = search.found[name.encode()]
                mine = {*traces.decisions, *traces.silent, *traces.outcomes}
                for at, record in pending.items():
                    if mine.intersection(record.positions):
                        receipt.entries[f"{partition}/{at}"] = _counts(record, set(traces.outcomes))
                await self._forget_name(name, partition, search, known, receipt, now_ms)
                await note()

    async def _forget_name(
        self, name: str, partition: int, search: DecisionSearch, known: set[Offset], receipt: Receipt, now_ms: int
    ) -> None:
        traces = search.found[name.encode()]
        for _ in range(DECIDE_CONFLICT_RETRIES_MAX):
            [(_, data)] = await self._store.read([name])
            # Whatever comes after this read changes the ledger, and the entry is not written.
            await search.to_the_end()
            try:
                named = [entry.position for entry in Ledger.unpack(data).decisions]
            except LedgerError:
                named = []
            entry = traces.entry(now_ms, named, known)
            if entry is None and data is None:
                return
            entry = entry or ForgetRecord(now_ms, ())
            at = await self._store.commit_forget(name, (data or b"")[:CAS_BYTES], entry.pack())
            if not isinstance(at, Conflict):
                receipt.entries[f"{partition}/{at}"] = _counts(entry, set(traces.outcomes))
                return
        raise StoreUnavailable("the customer's ledger kept changing")

    # --- what is left -----------------------------------------------------------------------------------------------

    async def _forget_log(self, receipt: Receipt) -> None:
        names = receipt.names
        receipt.letters += await self._store.drop_dead_letters(
            lambda payload, reason: self._mentions(payload, reason, names)
        )
        if self._inlet is not self._store:
            return  # Kafka removes what is old, and nothing else
        homes: dict[int, dict[str, Offset]] = {}
        for name, at in receipt.markers.items():
            homes.setdefault(partition_of(name, self._store.partitions), {})[name] = Offset.parse(at)
        found_in = {partition: await events_of(self._store, partition, up_to) for partition, up_to in homes.items()}
        if self.copied:
            await self._forget_copies({(at, o.ms, o.seq) for at, found in found_in.items() for o in found}, receipt)
        for partition, found in found_in.items():
            up_to = homes[partition]
            markers = sum(1 for at in found if at in up_to.values())
            receipt.events += max(0, await self._store.delete_events(partition, found) - markers)

    async def _forget_copies(self, originals: Set[tuple[int, int, int]], receipt: Receipt) -> None:
        """Remove copies of events from the logs of entities. Raises StoreError.

        What they added to the entity's record stays. An entry is left in their place, so that who folds the log again
        knows that it does not make that record any more.
        """
        for partition in range(self._store.partitions):
            if found := await copies_of(self._store, partition, originals):
                entities = sorted(set(found.values()))
                told = await self._append([forget_entry(entity, receipt.at_ms) for entity in entities])
                await self._folded(told)
                await self._store.delete_events(partition, sorted(found))

    async def _learner_done(self, receipt: Receipt) -> bool:
        """Wait for the learner, for a while."""
        waiting = [key.split("/") for key in receipt.entries]
        places = [(int(partition), Offset.parse(at)) for partition, at in waiting]

        async def done() -> bool:
            forgets = await self._store.forgets()
            if any(partition not in forgets or at in forgets[partition].pending for partition, at in places):
                return False
            receipt.lessons = sum(forgets[partition].finished.get(at, 0) for partition, at in places)
            return True

        return await _within(done)


def _counts(record: ForgetRecord, outcomes: set[Offset]) -> tuple[int, int, int]:
    reported = sum(at in outcomes for at in record.others)
    return len(record.decisions) + len(record.others) - reported, reported, len(record.lost)


def _position(value: bytes) -> Offset:
    try:
        return position_of(value)
    except LinksError:
        return Offset.ZERO


async def _within(look: Callable[[], Awaitable[Any]]) -> bool:
    """Whether `look` finds what it looks for within FORGET_WAIT_MS_MAX."""
    deadline_s = time.monotonic() + FORGET_WAIT_MS_MAX / 1e3
    while not await look():
        if time.monotonic() > deadline_s:
            return False
        await asyncio.sleep(FORGET_POLL_MS / 1e3)
    return True
