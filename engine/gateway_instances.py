"""Requests about offer instances, checked."""

from engine.errors import InvalidArgument, NotFound
from engine.found import Resume
from engine.gateway import shown, text_id
from engine.record import parse_decision_id
from opportune.v1 import decisions_pb2


def resume_of(request: decisions_pb2.Resume, partitions: int) -> Resume:
    """A checked Resume. Raises InvalidArgument, NotFound."""
    if not request.decision_id:
        raise InvalidArgument("resume.decision_id: empty, expected an id that Decide returned")
    place = parse_decision_id(request.decision_id, partitions)
    if place is None:
        raise NotFound(f"resume.decision_id: no decision {shown(request.decision_id)}, or its record was retired")
    return Resume(request.decision_id, *place, text_id(request.offer_id, "resume.offer_id", empty_ok=True))
