"""Dead letters, read again: a payload is an event as it came, a message of Publish or a CloudEvent in JSON."""

import orjson
from google.protobuf.message import DecodeError

from opportune.v1 import events_pb2


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
