"""Everything that can go wrong and that a caller sees, on one page.

OpportuneError
├── CallerError            the caller's fault
│   ├── InvalidArgument    INVALID_ARGUMENT     400   a field is wrong: which, what came, what was expected
│   ├── NotFound           NOT_FOUND            404   no such decision or offer
│   └── NotAllowed         FAILED_PRECONDITION  409   the move is not allowed from where things stand
├── ServerError            not the caller's fault
│   ├── Overloaded         RESOURCE_EXHAUSTED   429   a queue or the disk is full: nothing was recorded, try later
│   └── Unavailable        UNAVAILABLE          503   the store is away or the server stops: send it again
├── ConfigError            the operator's fault: file, line, what was expected
├── DataFolderError        the operator's fault: the folder is in use, foreign or damaged
└── BrokerError            the operator's fault: the broker is away at the start, or its topics are not the store's

DEADLINE_EXCEEDED comes from the transport: who waits no longer needs no answer.
"""

from http import HTTPStatus

import grpc


class OpportuneError(Exception):
    """Root of all errors that have a message for people."""

    grpc_status = grpc.StatusCode.INTERNAL
    http_status = HTTPStatus.INTERNAL_SERVER_ERROR


class CallerError(OpportuneError):
    """The caller sent something wrong; sending it again changes nothing."""


class InvalidArgument(CallerError):
    """A field is wrong. The message names the field, what came and what was expected."""

    grpc_status = grpc.StatusCode.INVALID_ARGUMENT
    http_status = HTTPStatus.BAD_REQUEST


class NotFound(CallerError):
    """The decision or the offer named does not exist."""

    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = HTTPStatus.NOT_FOUND


class NotAllowed(CallerError):
    """The move is not allowed from where the offer stands."""

    grpc_status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = HTTPStatus.CONFLICT


class ServerError(OpportuneError):
    """The engine could not do it now; nothing was recorded."""


class Overloaded(ServerError):
    """A queue or the data disk is full."""

    grpc_status = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = HTTPStatus.TOO_MANY_REQUESTS


class Unavailable(ServerError):
    """The store is away or the server is stopping."""

    grpc_status = grpc.StatusCode.UNAVAILABLE
    http_status = HTTPStatus.SERVICE_UNAVAILABLE


class ConfigError(OpportuneError):
    """The configuration is wrong. The message is "file:line: where: what was expected", one line a problem."""


class DataFolderError(OpportuneError):
    """The data folder is in use by another engine, belongs to another one, or is damaged."""


class BrokerError(OpportuneError):
    """The broker cannot be used: away at the start, or with topics other than those the store was filled from."""
