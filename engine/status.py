"""What callers are told of an error: the status of gRPC and a message."""

import logging

import grpc

from engine import metrics
from engine.errors import OpportuneError

log = logging.getLogger(__name__)


def status_of(error: Exception) -> tuple[grpc.StatusCode, str]:
    """Status and message of an error; what is not an error of ours is logged and told as INTERNAL."""
    if isinstance(error, OpportuneError):
        metrics.REFUSED.labels(error.grpc_status.name).inc()
        return error.grpc_status, str(error)
    log.error("a call failed", exc_info=error)
    metrics.REFUSED.labels("INTERNAL").inc()
    return grpc.StatusCode.INTERNAL, "an error of the engine; its log has the details"


def refused(status: grpc.StatusCode, message: str) -> tuple[grpc.StatusCode, str]:
    """The same pair, counted: for what is refused before a handler sees it."""
    metrics.REFUSED.labels(status.name).inc()
    return status, message
