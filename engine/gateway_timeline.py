"""Which part of a timeline a caller asks for, checked; and the tokens by which one page leads to the next.

A token is the place of the last entry shown and a check of the request it belongs to, so that it cannot be used with
another customer or another selection without notice. It is no secret and no signature: whoever may ask for a page may
ask for any.
"""

from base64 import b64decode, urlsafe_b64encode
from struct import Struct
from typing import Final
from zlib import crc32

import orjson

from engine import limits
from engine.errors import InvalidArgument
from engine.gateway import shown, text_id
from engine.timeline import Kind
from engine.timelineview import Wanted
from opportune.v1 import customers_pb2

KINDS_MAX: Final = 16
CHANNELS_MAX: Final = limits.CONTEXT_ENTRIES_MAX
_TOKEN: Final = Struct("<qQI")
_TOKEN_CHARACTERS: Final = len(urlsafe_b64encode(bytes(_TOKEN.size)).rstrip(b"="))


def wanted_of(request: customers_pb2.GetCustomerRequest, customer: str) -> Wanted:
    """What a checked request wants of the timeline. Raises InvalidArgument."""
    size_max = limits.TIMELINE_PAGE_ENTRIES_MAX
    if request.page_size > size_max:
        default = limits.TIMELINE_PAGE_ENTRIES
        raise InvalidArgument(f"page_size: {request.page_size}, expected 1 to {size_max}, or 0 for {default}")
    for field, values, most in (("kinds", request.kinds, KINDS_MAX), ("channels", request.channels, CHANNELS_MAX)):
        if len(values) > most:
            raise InvalidArgument(f"{field}: {len(values)} entries, at most {most} are allowed")
    since_ms, until_ms = _time(request.since_ms, "since_ms"), _time(request.until_ms, "until_ms")
    if until_ms and since_ms >= until_ms:
        raise InvalidArgument(f"until_ms: {until_ms}, expected a time after since_ms, {since_ms}, or 0 for no end")
    return Wanted(
        kinds=frozenset(_kind(kind, f"kinds[{at}]") for at, kind in enumerate(request.kinds)),
        channels=frozenset(text_id(channel, f"channels[{at}]") for at, channel in enumerate(request.channels)),
        since_ms=since_ms,
        until_ms=until_ms,
        count=request.page_size or limits.TIMELINE_PAGE_ENTRIES,
        before=_place(request, customer) if request.page_token else None,
    )


def token_of(request: customers_pb2.GetCustomerRequest, customer: str, place: tuple[int, int] | None) -> str:
    """The token of the page after this place; "" if there is none.

    >>> request = customers_pb2.GetCustomerRequest(customer_id="ann")
    >>> request.page_token = token_of(request, "ann", (1_750_000_000_000, 7))
    >>> wanted_of(request, "ann").before
    (1750000000000, 7)
    """
    if place is None:
        return ""
    return urlsafe_b64encode(_TOKEN.pack(*place, _check(request, customer, place))).rstrip(b"=").decode()


def _place(request: customers_pb2.GetCustomerRequest, customer: str) -> tuple[int, int]:
    token = request.page_token
    try:
        if len(token) != _TOKEN_CHARACTERS:
            raise ValueError
        padded = token + "=" * (-len(token) % 4)
        time_ms, entry_id, check = _TOKEN.unpack(b64decode(padded, altchars=b"-_", validate=True))
    except ValueError:  # of which binascii's is one
        raise InvalidArgument(f"page_token: {shown(token)} is none, expected a next_page_token as it came") from None
    if check != _check(request, customer, (time_ms, entry_id)):
        raise InvalidArgument(
            "page_token: of another request, expected the same customer, kinds, channels, since_ms and until_ms"
        )
    return time_ms, entry_id


def _check(request: customers_pb2.GetCustomerRequest, customer: str, place: tuple[int, int]) -> int:
    selection = [sorted(request.kinds), sorted(request.channels), request.since_ms, request.until_ms]
    return crc32(orjson.dumps([customer, selection, place]))


def _kind(number: int, field: str) -> Kind:
    try:
        return Kind(number)
    except ValueError:
        there = ", ".join(f"TIMELINE_KIND_{kind.name}" for kind in Kind)
        raise InvalidArgument(f"{field}: {number or 'missing'}, expected one of {there}") from None


def _time(time_ms: int, field: str) -> int:
    if not 0 <= time_ms <= limits.TIME_MS_MAX:
        raise InvalidArgument(f"{field}: {time_ms} is not a time, expected milliseconds since 1970-01-01 UTC, or 0")
    return time_ms
