"""The edge between the wire and the engine: messages in, checked values out. Inside, nothing is checked again.

Each refusal is an InvalidArgument that names the field, what came and what was expected.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import orjson

from engine import limits, metrics
from engine.catalogue import Catalogue, Column
from engine.config_schema import Attribute, key_of
from engine.deepjson import written
from engine.drafts import Ask
from engine.errors import InvalidArgument
from engine.ledger import hash_of
from engine.lifecycle import NEUTRAL, REPORTABLE, Stage, in_words
from engine.terms import MILLIONTHS
from features import text_hash
from opportune.v1 import common_pb2, decisions_pb2, events_pb2, feedback_pb2

Plain = float | str | bool
Clock = Callable[[], int]
"""Milliseconds since 1970-01-01 UTC."""

_SHOWN_MAX: Final = 80
_NO_HEX: Final = re.compile("%(?![0-9A-Fa-f]{2})")


def shown(value: object) -> str:
    """A value as an error message shows it: never long, and what is no text in the words of JSON."""
    text = written(value).decode() if value is None or isinstance(value, (bool, list, dict)) else repr(value)
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}… ({len(text)} characters)"


def text_id(value: str, field: str, bytes_max: int = limits.ID_BYTES_MAX, *, empty_ok: bool = False) -> str:
    """An id as it came. Raises InvalidArgument if it is empty, too long or has what str.isprintable has not."""
    if not value:
        if empty_ok:
            return value
        raise InvalidArgument(f"{field}: empty, expected 1 to {bytes_max} bytes")
    size = len(value) if value.isascii() else len(value.encode())
    if size > bytes_max:
        raise InvalidArgument(f"{field}: {size} bytes, expected 1 to {bytes_max}")
    if not value.isprintable():
        odd = next(letter for letter in value if not letter.isprintable())
        raise InvalidArgument(f"{field}: {shown(value)} has U+{ord(odd):04X}, expected printable text without it")
    return value


def customer_named(value: str, field: str, *, empty_ok: bool = False) -> str:
    """A customer by id, or by the name that answers give an anonymous one, "kind=value", which may be longer.

    Raises InvalidArgument.
    """
    anonymous = "=" in value[1 : limits.ID_BYTES_MAX + 1]
    return text_id(value, field, limits.CUSTOMER_BYTES_MAX if anonymous else limits.ID_BYTES_MAX, empty_ok=empty_ok)


def customer_of(
    customer_id: str, identities: Sequence[common_pb2.Identity], catalogue: Catalogue, where: str = ""
) -> str:
    """The customer a caller means: its id, or an anonymous customer named by its strongest trace."""
    if customer_id:
        return customer_named(customer_id, f"{where}customer_id")
    if not identities:
        raise InvalidArgument(f"{where}customer_id: empty, expected a customer id or at least one entry of identities")
    return traces_of(identities, catalogue, f"{where}identities")[0]


def traces_of(
    identities: Sequence[common_pb2.Identity], catalogue: Catalogue, field: str = "identities"
) -> tuple[str, ...]:
    """The names "kind=value" of identities, each once, strongest first: declared kinds in their order, then others.

    Raises InvalidArgument.
    """
    if len(identities) > limits.IDENTITIES_MAX:
        raise InvalidArgument(f"{field}: {len(identities)} entries, at most {limits.IDENTITIES_MAX} are allowed")
    for at, identity in enumerate(identities):
        kind = text_id(identity.kind, f"{field}[{at}].kind")
        if "=" in kind:
            raise InvalidArgument(f"{field}[{at}].kind: {shown(kind)} has a '=', expected a name without")
        text_id(identity.value, f"{field}[{at}].value", limits.SOURCE_BYTES_MAX)
    strength = catalogue.identity_strength
    ranked = sorted(identities, key=lambda identity: strength.get(identity.kind, len(strength)))
    return tuple(dict.fromkeys(f"{identity.kind}={identity.value}" for identity in ranked))


def identities_in(text: str, field: str = "identities") -> list[common_pb2.Identity]:
    """Identities written as "kind=value kind=value", percent-encoded where they hold spaces. Raises InvalidArgument."""
    found = []
    for part in text.split():
        kind, separator, value = part.partition("=")
        if not separator:
            raise InvalidArgument(f"{field}: {shown(part)}, expected kind=value, several separated by spaces")
        found.append(common_pb2.Identity(kind=_decoded(kind, field), value=_decoded(value, field)))
    return found


def _decoded(text: str, field: str) -> str:
    """Without its percent signs. Raises InvalidArgument: what is no text would be one and the same for many people."""
    if "%" not in text:
        return text
    if _NO_HEX.search(text):
        raise InvalidArgument(f"{field}: {shown(text)}, expected two hex digits behind each percent sign")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{field}: {shown(text)}, expected UTF-8 behind its percent signs") from None


def linkable(traces: Sequence[str], catalogue: Catalogue) -> tuple[str, ...]:
    """Those of declared kinds: only these are linked to the customer id that comes with them."""
    return tuple(trace for trace in traces if trace.partition("=")[0] in catalogue.identity_strength)


def time_of(time_ms: int, field: str, catalogue: Catalogue, now_ms: int) -> int:
    """A caller's time, now if it is 0. Raises InvalidArgument beyond the configured clock bounds."""
    if time_ms == 0:
        return now_ms
    clock = catalogue.config.clock
    if not 0 < time_ms <= limits.TIME_MS_MAX:
        raise InvalidArgument(f"{field}: {time_ms} is not a time, expected milliseconds since 1970-01-01 UTC")
    if time_ms > now_ms + clock.future:
        ahead = time_ms - now_ms
        raise InvalidArgument(f"{field}: {ahead} ms ahead of the server's clock, at most {clock.future} ms are allowed")
    if time_ms < now_ms - clock.past:
        behind = now_ms - time_ms
        raise InvalidArgument(f"{field}: {behind} ms behind the server's clock, at most {clock.past} ms are allowed")
    return time_ms


def plain(value: common_pb2.Value, field: str) -> Plain:
    """The plain value. Raises InvalidArgument for NaN, infinities, empty and over-long values."""
    kind = value.WhichOneof("kind")
    if kind == "number":
        if not math.isfinite(value.number):
            raise InvalidArgument(f"{field}: {value.number}, expected a finite number")
        return value.number
    if kind == "text":
        text = value.text
        if len(text.encode()) > limits.TEXT_BYTES_MAX:
            raise InvalidArgument(f"{field}: {len(text.encode())} bytes, at most {limits.TEXT_BYTES_MAX} are allowed")
        return text
    if kind == "flag":
        return value.flag
    raise InvalidArgument(f"{field}: no value, expected number, text or flag")


def typed(value: Plain, declared: Attribute, field: str) -> Plain:
    """The value, if it fits its declaration. Raises InvalidArgument otherwise."""
    if declared.type == "number":
        if isinstance(value, (bool, str)):
            raise InvalidArgument(f"{field}: {shown(value)} is a {_kind(value)}, expected a number")
        if declared.range and not declared.range[0] <= value <= declared.range[1]:
            raise InvalidArgument(f"{field}: {value}, expected {declared.range[0]} to {declared.range[1]}")
    elif declared.type == "text":
        if not isinstance(value, str):
            raise InvalidArgument(f"{field}: {shown(value)} is a {_kind(value)}, expected a text")
    elif not isinstance(value, bool):
        raise InvalidArgument(f"{field}: {shown(value)} is a {_kind(value)}, expected a flag")
    return value


def _kind(value: Plain) -> str:
    return "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def placed(catalogue: Catalogue, channel: str, placement: str) -> tuple[int, int]:
    """(channel, placement) as indices. Raises InvalidArgument."""
    place = catalogue.placement_index.get((channel, placement))
    if place is not None:
        return catalogue.channel_index[channel], place
    at = catalogue.channel_index.get(channel)
    if at is None:
        if not channel:
            raise InvalidArgument("channel: empty, expected a channel of the catalogue")
        raise InvalidArgument(f"channel: no channel {shown(channel)}; there are {', '.join(catalogue.channel_index)}")
    there = ", ".join(catalogue.config.channels[at].placements) or "none"
    raise InvalidArgument(f"placement: channel {channel!r} has no placement {shown(placement)}; there are {there}")


def ask_of(request: decisions_pb2.DecideRequest, catalogue: Catalogue, now_ms: int) -> Ask:
    """A checked Decide request."""
    customer = request.customer_id
    if not (customer.isascii() and 0 < len(customer) <= limits.ID_BYTES_MAX and customer.isprintable()):
        customer = customer_of(customer, request.identities, catalogue)  # which a plain one needs not
    request_id = text_id(request.request_id, "request_id", empty_ok=True)
    channel, placement = placed(catalogue, request.channel, request.placement)
    if request.limit > limits.SLATE_MAX:
        raise InvalidArgument(f"limit: {request.limit}, expected 1 to {limits.SLATE_MAX}, or 0 for the configured one")
    language = request.language
    if language and len(language.encode()) > 16:
        raise InvalidArgument(f"language: {len(language.encode())} bytes, at most 16 are allowed")
    if len(request.purposes) > limits.PURPOSES_MAX:
        raise InvalidArgument(f"purposes: {len(request.purposes)} entries, at most {limits.PURPOSES_MAX} are allowed")
    given = request.context
    facts: list[tuple[int, float]] = []
    context = b""
    if count := len(given):
        if count > limits.CONTEXT_ENTRIES_MAX:
            raise InvalidArgument(f"context: {count} entries, at most {limits.CONTEXT_ENTRIES_MAX} are allowed")
        values: dict[str, Plain] = {}
        for name in given:  # items() of such a map is Python's, and takes twice as long
            fact = catalogue.facts.get(name)
            if fact is None:
                there = ", ".join(catalogue.facts) or "none"
                raise InvalidArgument(f"context[{shown(name)}]: no such fact is declared; there are {there}")
            column = catalogue.fact_columns[name]
            field = f"context[{name}]"
            said = values[name] = typed(plain(given[name], field), fact, field)
            facts.append((column, _as_number(said, catalogue.columns[column])))
        for name, flag in catalogue.consents.items():
            if name in values and values.get(flag) is not True:
                # Said without consent: neither used nor kept.
                del values[name]
                facts = [fact for fact in facts if fact[0] != catalogue.fact_columns[name]]
        context = orjson.dumps(values) if values else b""
        if len(context) > limits.CONTEXT_BYTES_MAX:
            raise InvalidArgument(
                f"context: {len(context)} bytes in all, at most {limits.CONTEXT_BYTES_MAX} are allowed"
            )
    return Ask(
        customer,
        channel,
        placement,
        tuple(facts),
        context,
        request.limit or catalogue.config.limit,
        time_of(request.time_ms, "time_ms", catalogue, now_ms) if request.time_ms else now_ms,
        language if language in catalogue.languages else catalogue.config.language,
        request_id,
        hash_of(request_id),
    )


def _as_number(value: Plain, column: Column) -> float:
    if isinstance(value, str):
        if column.kind == "hashed":
            return text_hash(value)
        try:
            return float(column.categories.index(value))
        except ValueError:
            return math.nan  # a value that was not declared counts as missing
    return float(value)


# --- events ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckedEvent:
    """An event that may enter the log: its customer and its bytes."""

    customer: str
    """A customer id, or the strongest trace."""
    data: bytes
    named: bool = True
    """Whether the customer is one by id."""
    traces: tuple[str, ...] = ()
    """With a customer id: the traces to be linked to it. Without: all traces, strongest first, if there are several."""

    def under(self, name: str) -> tuple[str, bytes]:
        """(name, entry) of the event under another name."""
        if name == self.customer:
            return self.customer, self.data
        return name, orjson.dumps([name, *orjson.loads(self.data)[1:]])


def event_of(event: events_pb2.Event, catalogue: Catalogue, now_ms: int) -> CheckedEvent:
    """A checked event of a Publish call."""
    given = event.attributes  # of such a map, what is asked for by name is made if it is not there
    declared = catalogue.event_types.get(event.type, ())
    attributes = {name: plain(given[name], f"attributes[{name}]") for name in declared if name in given}
    customer = customer_of(event.customer_id, event.identities, catalogue)
    checked = checked_event(event.id, event.source, event.type, customer, event.time_ms, attributes, catalogue, now_ms)
    return with_traces(checked, event.customer_id, event.identities, catalogue)


def with_traces(
    checked: CheckedEvent, customer_id: str, identities: Sequence[common_pb2.Identity], catalogue: Catalogue
) -> CheckedEvent:
    """The event and what its identities ask for. Raises InvalidArgument."""
    if not identities:
        return checked
    traces = traces_of(identities, catalogue)
    if customer_id:
        return replace(checked, traces=linkable(traces, catalogue))
    return replace(checked, named=False, traces=traces if len(traces) > 1 else ())


def checked_event(
    event_id: str,
    source: str,
    event_type: str,
    customer: str,
    time_ms: int,
    attributes: Mapping[str, Plain],
    catalogue: Catalogue,
    now_ms: int,
) -> CheckedEvent:
    """An event checked against its declared type. Raises InvalidArgument.

    Attributes that the type does not declare are dropped, and their callers do not look at them: producers may grow
    before the configuration does. A time ahead of `now_ms`, as far as the configuration allows, becomes `now_ms`.
    """
    text_id(event_id, "id")
    text_id(source, "source", limits.SOURCE_BYTES_MAX)
    declared = catalogue.event_types.get(event_type)
    if declared is None:
        there = ", ".join(catalogue.event_types) or "none"
        raise InvalidArgument(f"type: no event type {shown(event_type)} is declared; there are {there}")
    when = time_of(time_ms, "time", catalogue, now_ms)
    if when > now_ms:
        # It cannot have happened yet, and it would move the windows of its customer on, past what happens meanwhile.
        metrics.EVENTS_AHEAD.inc()
        when = now_ms
    kept: dict[str, Plain] = {}
    for name, attribute in declared.items():
        value = attributes.get(name)
        if value is None:
            if attribute.required:
                raise InvalidArgument(f"attributes[{name}]: missing, event type {event_type!r} requires it")
            continue
        kept[name] = typed(value, attribute, f"attributes[{name}]")
    digest = hash_of(f"{source}\0{event_id}")
    return CheckedEvent(customer, orjson.dumps([customer, digest, event_type, when, kept]))


# --- outcomes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckedOutcome:
    """A checked Report request."""

    outcome_id: str
    outcome_hash: int
    decision_id: str
    offer_key: int
    offer_id: str
    stage: Stage
    time_ms: int
    value: float
    attributes: bytes
    corrects: int = 0
    """Hash of the id of the outcome that it corrects; 0: none."""
    corrects_id: str = ""
    rewards: bytes = b""
    """JSON object of the rewards by objective."""
    adds: bool = False
    """Whether it carries a reward that its offer learns from."""


def outcome_of(request: feedback_pb2.ReportRequest, catalogue: Catalogue, now_ms: int) -> CheckedOutcome:
    """A checked Report request."""
    outcome_id = text_id(request.outcome_id, "outcome_id")
    decision_id = text_id(request.decision_id, "decision_id")
    offer_id = text_id(request.offer_id, "offer_id")
    try:
        stage = Stage(request.stage)
    except ValueError:
        came = request.stage or "missing"
        raise InvalidArgument(f"stage: {came}, expected one of {in_words(REPORTABLE)}") from None
    if stage not in REPORTABLE:
        own = f"STAGE_{stage.name} is the engine's own"
        raise InvalidArgument(f"stage: {own}, expected one of {in_words(REPORTABLE)}")
    value = math.nan
    if request.HasField("value"):
        if not math.isfinite(request.value) or abs(request.value) > 1e12:
            raise InvalidArgument(f"value: {request.value}, expected a finite number up to 1e12")
        value = request.value
    if request.channel:
        placed(catalogue, request.channel, "")
    if len(request.attributes) > limits.CONTEXT_ENTRIES_MAX:
        raise InvalidArgument(
            f"attributes: {len(request.attributes)} entries, at most {limits.CONTEXT_ENTRIES_MAX} are allowed"
        )
    attributes: dict[str, Any] = {
        text_id(name, "attributes"): plain(fact, f"attributes[{shown(name)}]")
        for name, fact in request.attributes.items()
    }
    if request.channel:
        attributes["channel"] = request.channel
    packed = orjson.dumps(attributes) if attributes else b""
    if len(packed) > limits.CONTEXT_BYTES_MAX:
        raise InvalidArgument(f"attributes: {len(packed)} bytes in all, at most {limits.CONTEXT_BYTES_MAX} are allowed")
    corrects = text_id(request.corrects, "corrects", empty_ok=True)
    if corrects == outcome_id:
        raise InvalidArgument("corrects: the outcome itself, expected the id of an earlier one")
    rewards = dict(sorted(request.rewards.items()))
    adds = _checked_rewards(rewards, value, offer_id, stage, catalogue)
    return CheckedOutcome(
        outcome_id,
        hash_of(outcome_id),
        decision_id,
        key_of(offer_id),
        offer_id,
        stage,
        time_of(request.time_ms, "time_ms", catalogue, now_ms),
        value,
        packed,
        hash_of(corrects),
        corrects,
        orjson.dumps(rewards) if rewards else b"",
        adds,
    )


def _checked_rewards(
    rewards: Mapping[str, float], value: float, offer_id: str, stage: Stage, catalogue: Catalogue
) -> bool:
    """Whether an outcome carries a reward that its offer learns from. Raises InvalidArgument if it cannot be one."""
    terms = catalogue.terms.get(key_of(offer_id))
    for name, reward in rewards.items():
        if name not in catalogue.config.objectives:
            there = ", ".join(catalogue.config.objectives) or "none"
            raise InvalidArgument(f"rewards[{shown(name)}]: no such objective is declared; there are {there}")
        if not math.isfinite(reward) or abs(reward) > 1e12:
            raise InvalidArgument(f"rewards[{name}]: {reward}, expected a finite number up to 1e12")
    if terms is None or terms.weights is None:
        if rewards:
            raise InvalidArgument(
                f"rewards: offer {shown(offer_id)} does not learn from rewards, expected none, or an offer with "
                "rewards: [low, high] in the configuration"
            )
        return False
    part = terms.part(value, rewards)
    if part is None:
        return False
    if stage in NEUTRAL:
        raise InvalidArgument(f"rewards: what is {stage.name} teaches nothing, expected neither value nor rewards")
    span = terms.high - terms.low
    if abs(part) > span:
        low, high, most = (number / MILLIONTHS for number in (terms.low, terms.high, span))
        raise InvalidArgument(
            f"rewards: {part / MILLIONTHS:g} by the weights of the objectives, the value included; offer "
            f"{shown(offer_id)} has rewards from {low:g} to {high:g}, expected {-most:g} to {most:g}"
        )
    return True
