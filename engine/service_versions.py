"""Policies: messages in, messages out. What it does stands in engine.versions."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from google.protobuf.message import Message

from engine.config import version_of
from engine.errors import ConfigError, InvalidArgument, NotAllowed
from engine.store_errors import store_errors
from engine.versions import Changed, Versions, described
from engine.versions_check import compiled, summary
from opportune.v1 import policies_pb2

if TYPE_CHECKING:
    from engine.service import Service

_LISTED: Final = 100
_LISTED_MAX: Final = 1_000


class PoliciesService:
    """Validate, Propose, Approve, Rollback and List."""

    def __init__(self, service: "Service") -> None:
        self._service = service
        self._versions = Versions(service.store, service.clock)
        # To compile takes a second of a core: one at a time leaves the others to decisions.
        self._one_at_a_time = asyncio.Lock()

    def methods(self) -> Sequence[tuple[str, type, Callable[[Any], Awaitable[Message]]]]:
        """As engine.service.methods."""
        return (
            ("opportune.v1.Policies/Validate", policies_pb2.ValidateRequest, self.validate),
            ("opportune.v1.Policies/Propose", policies_pb2.ProposeRequest, self.propose),
            ("opportune.v1.Policies/Approve", policies_pb2.ApproveRequest, self.approve),
            ("opportune.v1.Policies/Rollback", policies_pb2.RollbackRequest, self.rollback),
            ("opportune.v1.Policies/List", policies_pb2.ListVersionsRequest, self.list),
        )

    async def validate(self, request: policies_pb2.ValidateRequest) -> policies_pb2.ValidateResponse:
        """Policies.Validate."""
        response = policies_pb2.ValidateResponse(version=version_of(request.text))
        async with self._one_at_a_time:
            try:
                catalogue = await asyncio.to_thread(compiled, request.text, "text", new=True)
            except ConfigError as error:
                response.problems.extend(str(error).splitlines())
                return response
        for what, count, which in summary(catalogue):
            response.contents.add(what=what, count=count, which=which)
        return response

    async def propose(self, request: policies_pb2.ProposeRequest) -> policies_pb2.ChangeResponse:
        """Policies.Propose."""
        async with self._one_at_a_time:
            with self._service.writing(), _said(InvalidArgument):
                call = self._versions.propose(
                    request.text, request.by, request.note, name="text", dry_run=request.dry_run
                )
                return _change(await call)

    async def approve(self, request: policies_pb2.ApproveRequest) -> policies_pb2.ChangeResponse:
        """Policies.Approve."""
        async with self._one_at_a_time:
            with self._service.writing(), _said(NotAllowed):
                return _change(await self._versions.approve(request.version, request.by, request.note))

    async def rollback(self, request: policies_pb2.RollbackRequest) -> policies_pb2.ChangeResponse:
        """Policies.Rollback."""
        async with self._one_at_a_time:
            with self._service.writing(), _said(NotAllowed):
                return _change(await self._versions.rollback(request.version, request.by, request.note))

    async def list(self, request: policies_pb2.ListVersionsRequest) -> policies_pb2.ListVersionsResponse:
        """Policies.List."""
        with store_errors():
            history = await self._versions.history()
        rows = described(history)[: min(request.limit or _LISTED, _LISTED_MAX)]
        names = set(policies_pb2.ConfigVersion.DESCRIPTOR.fields_by_name)
        return policies_pb2.ListVersionsResponse(
            versions=[
                policies_pb2.ConfigVersion(**{name: value for name, value in row.items() if name in names})
                for row in rows
            ],
            active=history.active,
        )


def _change(changed: Changed) -> policies_pb2.ChangeResponse:
    return policies_pb2.ChangeResponse(
        version=changed.version, state=changed.state, before=changed.before, approvals_missing=changed.missing
    )


@contextmanager
def _said(status: type[InvalidArgument] | type[NotAllowed]) -> Iterator[None]:
    """What is wrong with a configuration, in the words of the API."""
    try:
        yield
    except ConfigError as error:
        raise status(str(error)) from error
