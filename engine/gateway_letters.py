"""Dead letters, read again: a payload is an event as it came, a message of Publish or a CloudEvent in JSON."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError

from engine.deepjson import written
from engine.limits import IDENTITIES_MAX
from opportune.v1 import events_pb2

_PARTS_BYTES_MAX: Final = {"identities": 2_048} | dict.fromkeys(
    ("specversion", "id", "source", "type", "subject", "time", "data", "data_base64"), 220
)
"""What is kept of a CloudEvent that is too large."""
_PART_CHARACTERS_MAX: Final = 128


def shortened(payload: bytes, bytes_max: int) -> bytes:
    """A payload of at most so many bytes: without what makes it large, but with its type and whom it is about.

    >>> big = orjson.dumps({"type": "purchase", "subject": "anna", "data": {"note": "x" * 9_000}})
    >>> shortened(big, 4_096)
    b'{"type":"purchase","subject":"anna","data":"\xe2\x80\xa6 (9011 bytes left out)"}'
    """
    if len(payload) <= bytes_max:
        return payload
    try:
        told = orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            short = _short_message(events_pb2.Event.FromString(payload))
        except DecodeError:
            short = b""
    else:
        short = _short_object(told) if isinstance(told, dict) else b""
    return short if 0 < len(short) <= bytes_max else payload[:bytes_max]


def _short_object(told: dict[str, Any]) -> bytes:
    kept: dict[str, Any] = {}
    for name, part in told.items():
        if bytes_max := _PARTS_BYTES_MAX.get(name):
            size = len(written(part))
            kept[name] = part if size <= bytes_max else f"… ({size} bytes left out)"
    return orjson.dumps(kept)


def _short_message(event: events_pb2.Event) -> bytes:
    short = events_pb2.Event(
        id=event.id[:_PART_CHARACTERS_MAX],
        source=event.source[:_PART_CHARACTERS_MAX],
        type=event.type[:_PART_CHARACTERS_MAX],
        customer_id=event.customer_id[:_PART_CHARACTERS_MAX],
        time_ms=event.time_ms,
    )
    for identity in event.identities[:IDENTITIES_MAX]:
        short.identities.add(kind=identity.kind[:64], value=identity.value[:_PART_CHARACTERS_MAX])
    return short.SerializeToString()


def letter_type(payload: bytes) -> str:
    """The type that the producer gave a refused event; "" if it gave none or nothing can be read of it.

    >>> letter_type(events_pb2.Event(id="1", type="purchase").SerializeToString())
    'purchase'
    >>> letter_type(b'{"specversion": "1.0", "type": "purchase"}'), letter_type(b"[1]"), letter_type(b"\\x00")
    ('purchase', '', '')
    """
    try:
        event = orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            return events_pb2.Event.FromString(payload).type
        except DecodeError:
            return ""
    found = event.get("type") if isinstance(event, dict) else None
    return found if isinstance(found, str) else ""


def about(payload: bytes, reason: str, names: Sequence[str]) -> bool:
    """Whether a dead letter tells of one of these names ("kind=value" of a trace, or a customer id).

    >>> anna = events_pb2.Event(id="1", type="purchase", customer_id="anna").SerializeToString()
    >>> about(anna, "", ["anna"]), about(anna, "", ["ann"]), about(b"?", "the state of 'anna' is odd", ["anna"])
    (True, False, True)
    >>> about(b'{"subject": "anna"}', "", ["anna"]), about(b'{"identities": "cookie=c7"}', "", ["cookie=c7"])
    (True, True)
    """
    wanted = set(names)
    try:
        told = set(_texts(orjson.loads(payload)))
    except orjson.JSONDecodeError:
        try:
            event = events_pb2.Event.FromString(payload)
            told = {event.customer_id, *(f"{identity.kind}={identity.value}" for identity in event.identities)}
        except DecodeError:
            told = set()
    return not told.isdisjoint(wanted) or any(_names(reason, name) for name in names)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON value, and the words of each: identities stand several in one."""
    if isinstance(value, str):
        yield value
        yield from value.split()
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)


def _names(text: str, name: str) -> bool:
    # A reason quotes whom it is about; a short id may be part of any word.
    return re.search(rf"(?<![\w=-])['\"]{re.escape(name)}['\"]", text) is not None
