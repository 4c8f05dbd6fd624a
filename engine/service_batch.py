"""Decisions.DecideMany: many decisions in one call, each as Decide makes them, answered as they come.

One request names up to DECIDE_MANY_ENTRIES_MAX customers and its answers are streamed; a longer list is sent in several
calls of one batch id. Not as a stream of chunks in one call: that could not be sent again in part after a broken
connection, nor over HTTP, and the flow control of the answers already holds back who sends faster than it reads.

At most DECIDE_MANY_QUEUE_MAX customers of a call wait in the decider or to be read, so a caller that reads slowly holds
up itself alone, and memory is bounded. When the caller leaves, what waits is dropped; what is under way is recorded,
and told by the same batch id later.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from engine import limits
from engine.drafts import Ask
from engine.errors import CallerError, InvalidArgument, OpportuneError, Overloaded, ServerError
from engine.gateway import ask_of, customer_named, shown
from engine.serving import Answer
from opportune.v1 import decisions_pb2

if TYPE_CHECKING:
    from engine.service import Service

_BATCH_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def batch_id_of(text: str, field: str = "batch_id") -> str:
    """An id of a batch, or of a list of leads. Raises InvalidArgument."""
    if not text:
        raise InvalidArgument(f"{field}: empty, expected 1 to {limits.BATCH_ID_BYTES_MAX} bytes")
    if len(text) > limits.BATCH_ID_BYTES_MAX or not _BATCH_ID.fullmatch(text):
        raise InvalidArgument(
            f"{field}: {shown(text)}, expected 1 to {limits.BATCH_ID_BYTES_MAX} of A-Z, a-z, 0-9, '_', '.' and '-', "
            "the first a letter or digit"
        )
    return text


class _Place:
    """One customer of a call, waiting for the decision."""

    __slots__ = ("_gone", "_results", "customer", "index")

    def __init__(self, index: int, customer: str, results: "asyncio.Queue[tuple[_Place, Answer | Exception]]") -> None:
        self.index = index
        self.customer = customer
        self._results = results
        self._gone = False

    def done(self) -> bool:
        return self._gone

    def set_result(self, answer: Answer) -> None:
        self._gone = True
        self._results.put_nowait((self, answer))

    def set_exception(self, error: Exception) -> None:
        self._gone = True
        self._results.put_nowait((self, error))

    def leave(self) -> None:
        self._gone = True


class BatchService:
    """DecideMany."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._under_way = 0

    async def decide_many(
        self, request: decisions_pb2.DecideManyRequest
    ) -> AsyncIterator[decisions_pb2.DecideManyResponse]:
        """Decisions.DecideMany. Raises InvalidArgument, Overloaded, and Unavailable when the server stops meanwhile."""
        common, base = self._checked(request)
        if self._under_way >= limits.DECIDE_MANY_BATCHES_MAX:
            raise Overloaded(
                f"{limits.DECIDE_MANY_BATCHES_MAX} batches are under way already; send it again in a moment"
            )
        self._under_way += 1
        results: asyncio.Queue[tuple[_Place, Answer | Exception]] = asyncio.Queue()
        waiting: set[_Place] = set()
        customers = list(request.customers)
        catalogue = self._service.catalogue
        at, stopped = 0, None
        try:
            while waiting or (at < len(customers) and stopped is None):
                while at < len(customers) and stopped is None and len(waiting) < limits.DECIDE_MANY_QUEUE_MAX:
                    place = _Place(at, customers[at].customer_id, results)
                    at += 1
                    try:
                        if self._service.catalogue is not catalogue:
                            # Another configuration came into service: its channels may have other places.
                            catalogue, base = self._service.catalogue, self._service.ask(common)
                        ask = self._ask(common, base, customers[place.index])
                        self._service.decider.enqueue_bulk(ask, place, preview=request.preview)
                        waiting.add(place)
                    except CallerError as error:
                        yield _failed(place, error)
                    except ServerError as error:
                        stopped = error
                if not waiting:
                    continue
                try:
                    async with asyncio.timeout(limits.DECIDE_MANY_WAIT_MS_MAX / 1e3):
                        place, answer = await results.get()
                except TimeoutError:
                    for place in sorted(waiting, key=lambda place: place.index):
                        place.leave()
                        yield _failed(place, Overloaded("callers of Decide kept the server busy; send it again later"))
                    waiting.clear()
                    continue
                waiting.discard(place)
                yield await self._response(place, answer)
            if stopped is not None:
                raise stopped
        finally:
            for place in waiting:
                place.leave()
            self._under_way -= 1

    def _checked(
        self, request: decisions_pb2.DecideManyRequest
    ) -> tuple[decisions_pb2.DecideRequest, Ask]:
        """What is common to all, as a Decide request and checked. Raises InvalidArgument."""
        batch = batch_id_of(request.batch_id)
        if not request.customers:
            raise InvalidArgument(f"customers: empty, expected 1 to {limits.DECIDE_MANY_ENTRIES_MAX}")
        if len(request.customers) > limits.DECIDE_MANY_ENTRIES_MAX:
            raise InvalidArgument(
                f"customers: {len(request.customers)}, at most {limits.DECIDE_MANY_ENTRIES_MAX} are allowed in one "
                "call; send the others in further calls with the same batch_id"
            )
        common = decisions_pb2.DecideRequest(
            request_id=f"batch/{batch}",
            customer_id="any",
            channel=request.channel,
            placement=request.placement,
            context=request.context,
            limit=request.limit,
            time_ms=request.time_ms,
            language=request.language,
            purposes=request.purposes,
        )
        return common, self._service.ask(common)

    def _ask(
        self, common: decisions_pb2.DecideRequest, base: Ask, customer: decisions_pb2.BatchCustomer
    ) -> Ask:
        """The checked request of one customer. Raises InvalidArgument."""
        name = customer_named(customer.customer_id, "customer_id")
        now_ms = self._service.clock()
        if not customer.context:
            return base._replace(customer=name, time_ms=base.time_ms if common.time_ms else now_ms)
        own = decisions_pb2.DecideRequest()
        own.CopyFrom(common)
        own.customer_id = name
        for fact, value in customer.context.items():
            own.context[fact].CopyFrom(value)
        return ask_of(own, self._service.catalogue, now_ms)

    async def _response(self, place: _Place, answer: Answer | Exception) -> decisions_pb2.DecideManyResponse:
        try:
            if isinstance(answer, Exception):
                raise answer
            written = await self._service.written(answer)
        except OpportuneError as error:
            return _failed(place, error)
        response = decisions_pb2.DecideManyResponse(index=place.index, customer_id=place.customer)
        response.answer.ParseFromString(written)
        return response


def _failed(place: _Place, error: OpportuneError) -> decisions_pb2.DecideManyResponse:
    return decisions_pb2.DecideManyResponse(
        index=place.index,
        customer_id=place.customer[: limits.CUSTOMER_BYTES_MAX],
        error=decisions_pb2.BatchError(status=error.grpc_status.name, message=str(error)),
    )
