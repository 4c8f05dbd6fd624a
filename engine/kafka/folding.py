"""Records of the events topic into the store.

The fold is that of engine.ingest; each record of state is replaced only if nobody else replaced it meanwhile. Nothing
else is written, so there is nothing that could be half done: a crash leaves some customers with the batch and some
without, and the next who gets it ignores what is behind a watermark.
"""

from collections.abc import Callable, Sequence

from engine.ingest import Ingest, Logged, Send, parsed
from engine.kafka.sequence import Record
from engine.kafka.topics import Incarnation
from engine.store.base import Store, StoreError

Letter = tuple[bytes, str]
"""(payload, reason)"""


def events_of(batch: Sequence[Record], known: Incarnation) -> tuple[dict[str, list[Logged]], list[Letter]]:
    """Events of a batch by customer, in order, and what is no event, with the reason."""
    events: dict[str, list[Logged]] = {}
    dead: list[Letter] = []
    for record in batch:
        data = record.value or b""
        try:
            customer, digest, event_type, time_ms, attributes = parsed(data)
        except ValueError as error:
            dead.append((data, f"{_place(record)}: no event of this engine: {error}"))
            continue
        home = known.partition_of(customer)
        if home != record.partition:
            # Folded here, it would race with the customer's events in the right partition for one watermark.
            dead.append((data, f"{_place(record)}: customer {customer!r} belongs to partition {home}"))
            continue
        event = Logged(digest, event_type, time_ms, attributes, known.position(record.offset), data)
        events.setdefault(customer, []).append(event)
    return events, dead


def _place(record: Record) -> str:
    return f"{record.topic}[{record.partition}] offset {record.offset}"


class Folder:
    """Folds batches into one store."""

    def __init__(
        self, ingest: Ingest, store: Store, send: Send, home: Callable[[str], int] | None = None
    ) -> None:
        """`send` appends (name, entry) to the events topic; `home` is the partition of a name there."""
        self._ingest = ingest
        self._home = home
        self._store = store
        self._send = send

    async def fold(self, events: dict[str, list[Logged]]) -> list[Letter]:
        """Bring the records of these customers up to date; all written when it returns. Raises StoreError.

        Returns events that cannot be folded, with the reason.
        """
        dead: list[Letter] = []

        async def refuse(letters: Sequence[Letter]) -> None:
            dead.extend(letters)

        try:
            await self._ingest.fold(dict(events), self._store.write_records, refuse, self._send, self._home)
        except StoreError:
            raise
        except Exception as error:
            # Who may write to the topic may write anything, and one event must not stop a partition. What was folded
            # already is behind its watermark, so halves can be tried until the one is found.
            halves = _halves(events)
            if not halves:
                [[event]] = events.values()
                return [(event.data, f"cannot be folded: {type(error).__name__}: {error}")]
            return [letter for half in halves for letter in await self.fold(half)]
        return dead


def _halves(events: dict[str, list[Logged]]) -> list[dict[str, list[Logged]]]:
    """A batch in two, in order of the log, which copies for entities must keep; nothing if it is one event."""
    in_order = sorted(((event, name) for name in events for event in events[name]), key=lambda pair: pair[0].offset)
    middle = len(in_order) // 2
    halves: list[dict[str, list[Logged]]] = []
    for part in (in_order[:middle], in_order[middle:]) if middle else ():
        halves.append({})
        for event, name in part:
            halves[-1].setdefault(name, []).append(event)
    return halves
