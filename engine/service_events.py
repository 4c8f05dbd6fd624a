"""The Events service: the good ones go into the log, the bad ones become dead letters, and the sender learns which."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from engine import metrics
from engine.errors import CallerError, InvalidArgument, Overloaded
from engine.gateway import CheckedEvent, event_of
from engine.gateway_letters import shortened
from engine.limits import DEAD_LETTER_BYTES_MAX, EVENT_BACKLOG_MAX, EVENTS_PER_CALL_MAX
from engine.linking import BY_PUBLISH, Entries, Login, chosen, login_links, targets_of
from engine.record import decision_id
from engine.store.base import partition_of
from opportune.v1 import events_pb2

if TYPE_CHECKING:
    from engine.service import Service

_BACKLOG_FRESH_S: Final = 0.2


class EventService:
    """Publish, and CloudEvents over HTTP."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._backlog_read_s = 0.0
        self._backlog = 0

    async def publish(self, request: events_pb2.PublishRequest) -> events_pb2.PublishResponse:
        """Events.Publish."""
        if not request.events:
            raise InvalidArgument(f"events: empty, expected 1 to {EVENTS_PER_CALL_MAX} events")
        if len(request.events) > EVENTS_PER_CALL_MAX:
            raise InvalidArgument(
                f"events: {len(request.events)}, at most {EVENTS_PER_CALL_MAX} are allowed in one call"
            )
        now_ms = self._service.clock()
        return await self.take(
            (event.id, event.SerializeToString, partial(event_of, event, self._service.catalogue, now_ms))
            for event in request.events
        )

    async def take(
        self, events: Iterable[tuple[str, Callable[[], bytes], Callable[[], CheckedEvent]]]
    ) -> events_pb2.PublishResponse:
        """Record the good ones and keep the bad ones as dead letters; each is (id, payload, check)."""
        response = events_pb2.PublishResponse()
        good: list[CheckedEvent] = []
        bad: list[tuple[bytes, str]] = []
        for index, (event_id, payload, check) in enumerate(events):
            try:
                good.append(check())
            except CallerError as error:
                reason = str(error)
                response.rejected.add(index=index, id=event_id[:64], reason=reason)
                bad.append((shortened(payload(), DEAD_LETTER_BYTES_MAX), reason))
        with self._service.writing():
            if good:
                await self.check_backlog()
                links, entries = await self._placed(good)
                positions = await self._service.inlet.append_events([*links, *entries])
                response.positions.extend(
                    decision_id(partition_of(name, self._service.inlet.partitions), position)
                    for (name, _), position in zip(entries, positions[len(links) :], strict=True)
                )
            if bad:
                metrics.EVENTS_REJECTED.inc(len(bad))
                await self._service.inlet.dead_letters(bad)
        response.accepted = len(good)
        metrics.EVENTS.labels("all").inc(len(good))
        return response

    async def _placed(self, events: Sequence[CheckedEvent]) -> tuple[Entries, Entries]:
        """Links that the events ask for, and the events, each under the name whose log it belongs to."""
        logins = [Login(event.customer, event.traces) for event in events if event.named and event.traces]
        links = await login_links(self._service.store, logins, self._service.clock(), BY_PUBLISH) if logins else []
        anonymous = [trace for event in events if not event.named for trace in event.traces]
        targets = await targets_of(self._service.store, anonymous) if anonymous else {}
        return links, [
            event.under(event.customer if event.named or not event.traces else chosen(event.traces, targets))
            for event in events
        ]

    async def check_backlog(self) -> None:
        """Refuse events that the log might have to drop before they are folded."""
        if time.monotonic() - self._backlog_read_s > _BACKLOG_FRESH_S:
            self._backlog = max((await self._service.inlet.backlog()).values(), default=0)
            self._backlog_read_s = time.monotonic()
            metrics.EVENTS_WAITING.set(self._backlog)
        if self._backlog > EVENT_BACKLOG_MAX:
            raise Overloaded(f"{self._backlog} events of a partition wait to be folded; publish again in a moment")
