"""CloudEvents 1.0 in JSON: structured mode and batches, as bodies of HTTP.

    id, source, type   as in the standard, and required like there
    subject            the customer id; optional with identities
    identities         an extension: kind=value, several separated by spaces, percent-encoded where they hold any
    time               RFC 3339; now if it is missing
    data               an object with the attributes of the event; what its type does not declare is not looked at;
                       data_base64 is refused

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from engine.catalogue import Catalogue
from engine.deepjson import written
from engine.errors import InvalidArgument
from engine.gateway import (
    CheckedEvent,
    Plain,
    checked_event,
    customer_named,
    customer_of,
    identities_in,
    shown,
    with_traces,
)
from engine.limits import EVENTS_PER_CALL_MAX, TEXT_BYTES_MAX

ONE: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
_RFC_3339: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
"""Python reads more: weeks, no signs between the numbers, commas."""


def events_in(
    body: bytes, content_type: str, catalogue: Catalogue, now_ms: int
) -> Iterator[tuple[str, Callable[[], bytes], Callable[[], CheckedEvent]]]:
    """(id, payload, check) of each event of a body, for Service.take_events. Raises InvalidArgument for the body."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"body: not JSON: {error}") from error
    # A plain application/json body is read for what it is: producers often cannot set the type.
    if content_type == BATCH and not isinstance(parsed, list):
        raise InvalidArgument(f"body: {shown(parsed)}, expected a list of events for {BATCH}")
    if content_type == ONE and not isinstance(parsed, dict):
        raise InvalidArgument(f"body: {shown(parsed)}, expected one event, an object, for {ONE}")
    events = parsed if isinstance(parsed, list) else [parsed]
    if not 1 <= len(events) <= EVENTS_PER_CALL_MAX:
        raise InvalidArgument(f"body: {len(events)} events, expected 1 to {EVENTS_PER_CALL_MAX}")
    return ((_id(event), _payload(event), _check(event, catalogue, now_ms)) for event in events)


def _id(event: Any) -> str:
    found = event.get("id") if isinstance(event, dict) else None
    return found if isinstance(found, str) else ""


def _payload(event: Any) -> Callable[[], bytes]:
    return lambda: written(event)


def _check(event: Any, catalogue: Catalogue, now_ms: int) -> Callable[[], CheckedEvent]:
    return lambda: event_of(event, catalogue, now_ms)


def event_of(event: Any, catalogue: Catalogue, now_ms: int) -> CheckedEvent:
    """One CloudEvent, checked. Raises InvalidArgument."""
    if not isinstance(event, dict):
        raise InvalidArgument(f"event: {shown(event)}, expected an object")
    if (version := event.get("specversion")) != "1.0":
        came = "missing" if version is None else shown(version)
        raise InvalidArgument(f"specversion: {came}, expected '1.0'")
    texts = {name: _text(event, name) for name in ("id", "source", "type", "subject", "identities")}
    if event.get("data_base64") is not None:
        raise InvalidArgument("data_base64: bytes have no attributes, expected data, an object of attributes")
    data = event.get("data", {})
    if not isinstance(data, dict):
        raise InvalidArgument(f"data: {shown(data)}, expected an object of attributes")
    declared = catalogue.event_types.get(texts["type"], ())
    attributes = {name: _plain(name, value) for name in declared if (value := data.get(name)) is not None}
    identities = identities_in(texts["identities"])
    if texts["subject"] or not identities:
        customer = customer_named(texts["subject"], "subject")
    else:
        customer = customer_of("", identities, catalogue)
    checked = checked_event(
        texts["id"],
        texts["source"],
        texts["type"],
        customer,
        time_ms_of(event.get("time")),
        attributes,
        catalogue,
        now_ms,
    )
    return with_traces(checked, texts["subject"], identities, catalogue)


def _text(event: dict[str, Any], name: str) -> str:
    value = event.get(name, "")
    if not isinstance(value, str):
        raise InvalidArgument(f"{name}: {shown(value)}, expected a text")
    return value


def _plain(name: str, value: Any) -> Plain:
    if isinstance(value, (bool, int, float)):
        if isinstance(value, int) and abs(value) > 2**53:
            raise InvalidArgument(f"data.{name}: {value}, expected a number up to 2^53")
        return value if isinstance(value, bool) else float(value)
    if isinstance(value, str):
        if len(value.encode()) > TEXT_BYTES_MAX:
            raise InvalidArgument(f"data.{name}: {len(value.encode())} bytes, at most {TEXT_BYTES_MAX} are allowed")
        return value
    raise InvalidArgument(f"data.{name}: {shown(value)}, expected a number, a text or true or false")


def time_ms_of(value: Any) -> int:
    """The `time` of a CloudEvent; 0 if it has none. Raises InvalidArgument."""
    if value is None:
        return 0
    try:
        if not isinstance(value, str):
            raise ValueError("it is no text")
        if _RFC_3339.fullmatch(value) is None:
            raise ValueError("it has no time zone" if _RFC_3339.fullmatch(f"{value}Z") else "it is of another form")
        when = datetime.fromisoformat(value.upper())  # Python has no small z
        time_ms = int(when.astimezone(UTC).timestamp() * 1000)
        if time_ms <= 0:
            raise ValueError("it is not after 1970-01-01")  # and 0 would stand for "now"
        return time_ms
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"time: {shown(value)}, expected RFC 3339 like 2026-05-04T09:30:00Z: {error}") from error
