"""Events of foreign producers: CloudEvents in JSON on any topic, keyed in any way.

Each is checked by the same rules as over HTTP and goes to the events topic under its customer; what is refused goes to
the dead letters. A position in the foreign topic says nothing about a customer's record, so what saves from doubling
here is what saves from producers that send twice: source and id of an event are remembered with the customer, for the
last EVENT_IDS_REMEMBERED_MAX of them. Therefore the offset is committed before a customer gets more events than half of
that: what is sent again after a crash is still remembered.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from engine.catalogue import Catalogue
from engine.cloudevents import event_of
from engine.deepjson import written
from engine.errors import CallerError
from engine.gateway import CheckedEvent, Clock
from engine.kafka.folding import Letter
from engine.kafka.producer import Outgoing, dead_letters
from engine.kafka.sequence import Record
from engine.kafka.topics import Incarnation, Topics
from engine.limits import EVENTS_PER_CALL_MAX
from features import EVENT_IDS_REMEMBERED_MAX

EVENTS_A_COMMIT_MAX: Final = EVENT_IDS_REMEMBERED_MAX // 2
"""Events of one customer that may be sent again after a crash. Half, so that others may come in between."""


class Repartitioner:
    """Takes records of foreign topics to the events topic."""

    def __init__(self, catalogue: Catalogue, topics: Topics, known: Incarnation, clock: Clock) -> None:
        self._catalogue = catalogue
        self._topics = topics
        self._known = known
        self._clock = clock

    def parts(self, batch: Sequence[Record]) -> Iterator[tuple[list[Outgoing], list[Record]]]:
        """What to send of a batch and the records it is made of, in parts; after each the offset must be committed."""
        outgoing: list[Outgoing] = []
        part: list[Record] = []
        sent: Counter[str] = Counter()
        for record in batch:
            good, bad = self._checked(record)
            customers = Counter(event.customer for event in good)
            if part and any(sent[customer] + more > EVENTS_A_COMMIT_MAX for customer, more in customers.items()):
                yield outgoing, part
                outgoing, part, sent = [], [], Counter()
            for event in good:
                home = self._known.partition_of(event.customer)
                outgoing.append(Outgoing(self._topics.events, home, event.customer.encode(), event.data))
            outgoing += dead_letters(self._topics, bad, f"{record.topic}[{record.partition}] offset {record.offset}")
            part.append(record)
            sent += customers
        if part:
            yield outgoing, part

    def _checked(self, record: Record) -> tuple[list[CheckedEvent], list[Letter]]:
        value = record.value or b""
        try:
            parsed = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            return [], [(value, f"not JSON: {error}")]
        events = parsed if isinstance(parsed, list) else [parsed]
        if not 1 <= len(events) <= EVENTS_PER_CALL_MAX:
            return [], [(value, f"{len(events)} events, expected 1 to {EVENTS_PER_CALL_MAX}")]
        good, bad = [], []
        for event in events:
            if isinstance(event, dict) and event.get("time") is None:
                # Not the time of reading: it may be hours later, and another one when it is read again.
                event["time"] = datetime.fromtimestamp(record.timestamp, UTC).isoformat()
            try:
                good.append(event_of(event, self._catalogue, self._clock()))
            except CallerError as error:
                bad.append((written(event), str(error)))
        return good, bad

