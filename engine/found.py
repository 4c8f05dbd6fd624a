"""What was read of the offers that a customer has open, before it is decided. engine.instances reads it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from engine.parameters import Quote
from features import Offset


class Resume(NamedTuple):
    """An offer that a caller wants to go on with."""

    decision_id: str
    partition: int
    position: Offset
    offer_id: str
    """"": the only one of the decision."""


class Begun(NamedTuple):
    """An open offer as the record of its decision has it."""

    quote: Quote
    channel: str
    """"" if its configuration was not kept."""
    context: bytes
    """Facts of that conversation."""


class Resumed(NamedTuple):
    """The open offer to go on with."""

    offer: int
    """Its index in the catalogue."""
    quote: Quote
    began: str
    """The decision that began it."""
    expires_ms: int
    policy_version: int
    """Of that decision."""


class Found(NamedTuple):
    """What is known of one customer's open offers."""

    begun: Mapping[tuple[Offset, int], Begun]
    """By position of the decision and key of the offer."""
    held: Mapping[int, Quote]
    """By index of the offer: the quote whose parameters are held."""
    resumed: Resumed | None


NOTHING_FOUND: Final = Found(MappingProxyType({}), MappingProxyType({}), None)
