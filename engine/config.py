"""The configuration: what an operator writes, checked whole before anything starts.

A problem is told as "file:line: place: what was expected", all problems at once. Nothing here computes: the compiled
forms are in features.Layout, models.Transform, engine.rules and engine.catalogue.
"""

import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal
from zlib import crc32

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from engine import limits
from engine.errors import ConfigError
from features import FeatureSpec, parse_duration_ms
from features import validate as validate_features

_NAME = r"^[a-z][a-z0-9_]{0,63}$"
# Words that CEL keeps for itself: as names they could not be used in a rule.
_CEL_WORDS = frozenset(
    (  # noqa: SIM905  # a list of 40 quoted words would be read by nobody
        "true false null in as break const continue else for function if import let loop package namespace return var "
        "void while size has all exists exists_one map filter int uint double string bool bytes timestamp duration type"
    ).split(" ")
)


def _duration(value: object) -> object:
    return parse_duration_ms(value) if isinstance(value, str) else value


Name = Annotated[str, Field(pattern=_NAME)]
"""Lower-case name of a feature or a fact: it is a variable in rules."""
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]*$", max_length=limits.ID_BYTES_MAX)]
"""Id of a channel, placement, offer, category or event type."""
DurationMs = Annotated[int, BeforeValidator(_duration), Field(gt=0, le=limits.TIME_MS_MAX)]
"""Written as 30s, 5m, 2h or 7d."""
TimeMs = Annotated[int, Field(ge=0, le=limits.TIME_MS_MAX)]
Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
ValueKind = Literal["number", "text", "flag"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Clock(_Model):
    """How far a time that a caller gives may lie from the server's clock."""

    future: DurationMs = 300_000
    past: DurationMs = 30 * 86_400_000


class Channel(_Model):
    """A channel and the places in it where offers are shown."""

    id: Id
    placements: tuple[Id, ...] = ()


class Input(_Model):
    """How a value enters the model: numbers scaled from `range` to −1..1, texts as one column a value."""

    kind: Literal["linear", "log", "one_hot"] = "linear"
    range: tuple[Finite, Finite] = (0.0, 1.0)

    @model_validator(mode="after")
    def _ordered(self) -> "Input":
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range {list(self.range)}: expected [low, high] with low < high")
        return self


class Attribute(_Model):
    """A declared value: of an event, or of a conversation."""

    type: ValueKind
    required: bool = False
    range: tuple[Finite, Finite] | None = None
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Attribute":
        if self.values and self.type != "text":
            raise ValueError("values: only a text has them")
        if self.range and self.type != "number":
            raise ValueError("range: only a number has one")
        if len(set(self.values)) != len(self.values):
            raise ValueError("values: expected each one once")
        return self


class Fact(Attribute):
    """A fact of the conversation that a caller may pass as context."""

    name: Name
    default: Finite | bool | str | None = None
    input: Input | None = None


class EventType(_Model):
    """A type of event and its attributes."""

    type: Id
    attributes: dict[Name, Attribute] = Field(default_factory=dict, max_length=limits.CONTEXT_ENTRIES_MAX)


class Feature(_Model):
    """A feature: what it counts, sums or remembers of one type of event, and how it enters the model."""

    name: Name
    event: Id
    function: Literal["count", "sum", "mean", "last", "recency"]
    attribute: Name | None = None
    where: dict[Name, Finite | bool | str] = Field(default_factory=dict)
    window: DurationMs | None = None
    tile: DurationMs | None = None
    default: Finite | None = None
    resolution: Annotated[float, Field(gt=0, le=1e6)] = 1e-6
    meaning: str = ""
    unit: str = ""
    owner: str = ""
    input: Input | None = None


class Treatment(_Model):
    """What to say or show, in one channel and language or in any."""

    text: Annotated[str, Field(min_length=1, max_length=2_000)]
    channel: Id | None = None
    language: str | None = None


class Offer(_Model):
    """One action that can be offered."""

    id: Id
    kind: Literal["sale", "service", "retention", "question"] = "sale"
    category: Id = "general"
    value: Finite
    contact_cost: Annotated[Finite, Field(ge=0)] = 0.0
    lever: Annotated[Finite, Field(ge=0)] = 1.0
    context_weight: dict[Id, Annotated[Finite, Field(ge=0)]] = Field(default_factory=dict)
    channels: tuple[Id, ...] = ()
    eligibility: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    treatments: tuple[Treatment, ...] = Field(min_length=1)
    window: DurationMs = 7 * 86_400_000
    starts_ms: TimeMs = 0
    ends_ms: TimeMs = limits.TIME_MS_MAX


class Exploration(_Model):
    """How the engine tries what it does not know yet."""

    method: Literal["thompson", "greedy"] = "thompson"
    strength: Annotated[float, Field(ge=0, le=100)] = 1.0
    floor: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    candidates: Annotated[int, Field(ge=2, le=64)] = 16


class Learning(_Model):
    """How outcomes become a policy."""

    prior_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    prior_strength: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    half_life: DurationMs | None = None
    period: DurationMs = 86_400_000


class Config(_Model):
    """A whole configuration."""

    opportune: Literal[1]
    name: Id
    language: str = "en"
    clock: Clock = Clock()
    limit: Annotated[int, Field(ge=1, le=limits.SLATE_MAX)] = 3
    silence: bool = True
    channels: tuple[Channel, ...] = Field(min_length=1, max_length=256)
    context: tuple[Fact, ...] = Field(default=(), max_length=limits.CONTEXT_FACTS_MAX)
    events: tuple[EventType, ...] = ()
    features: tuple[Feature, ...] = Field(default=(), max_length=limits.FEATURES_MAX)
    offers: tuple[Offer, ...] = Field(min_length=1, max_length=limits.OFFERS_MAX)
    fallback: tuple[Id, ...] = Field(default=(), max_length=limits.SLATE_MAX)
    exploration: Exploration = Exploration()
    learning: Learning = Learning()

    def feature_specs(self) -> tuple[FeatureSpec, ...]:
        """The features in the form that features.Layout compiles."""
        return tuple(self._spec(feature) for feature in self.features)

    def _spec(self, feature: Feature) -> FeatureSpec:
        declared = next((event.attributes for event in self.events if event.type == feature.event), {})
        attribute = declared.get(feature.attribute) if feature.attribute else None
        categories = attribute.values if attribute is not None and feature.function == "last" else ()
        return FeatureSpec(
            name=feature.name,
            function=feature.function,
            event=feature.event,
            attribute=feature.attribute,
            window_ms=feature.window,
            tile_ms=feature.tile,
            where=tuple(sorted(feature.where.items())),
            categories=categories,
            default=float("nan") if feature.default is None else feature.default,
            resolution=feature.resolution,
            meaning=feature.meaning,
            unit=feature.unit,
        )


def key_of(offer_id: str) -> int:
    """The 32-bit key by which records and ledgers name an offer. Distinct within a configuration (checked)."""
    return crc32(offer_id.encode())


def load(path: Path) -> tuple[Config, str, bytes]:
    """(configuration, version, text) of a file. Raises ConfigError that names file, line and what was expected."""
    try:
        with path.open("rb") as file:
            text = file.read(limits.CONFIG_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return parse(text, str(path)), version_of(text), text


def version_of(text: bytes) -> str:
    """Version of a configuration: 16 hexadecimal digits of the hash of its text."""
    return blake2b(text, digest_size=8).hexdigest()


def parse(text: bytes, name: str = "configuration") -> Config:
    """Read and check a configuration. Raises ConfigError with one line a problem."""
    if len(text) > limits.CONFIG_BYTES_MAX:
        raise ConfigError(f"{name}: more than {limits.CONFIG_BYTES_MAX} bytes")
    try:
        tree = YAML(typ="rt").load(text.decode())
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: byte {error.start} is not UTF-8") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        raise ConfigError(f"{name}:{mark.line + 1 if mark else 1}: {error.problem}") from error
    except YAMLError as error:
        raise ConfigError(f"{name}:1: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}:1: expected a mapping that begins with 'opportune: 1'")
    try:
        config = Config.model_validate(_plain(tree))
    except ValidationError as error:
        raise ConfigError(
            "\n".join(
                f"{name}:{_line(tree, problem['loc'])}: {_place(problem['loc'])}: {_words(problem)}"
                for problem in _told(error.errors(include_url=False))
            )
        ) from error
    problems = list(_cross_check(config))
    if problems:
        raise ConfigError("\n".join(f"{name}:{_line(tree, loc)}: {_place(loc)}: {what}" for loc, what in problems))
    return config


Location = tuple[int | str, ...]


def line_of(text: bytes, place: Location) -> int:
    """Line of a place in a configuration that was read before, for errors found when it is compiled."""
    return _line(YAML(typ="rt").load(text.decode()), place)


def _plain(node: Any) -> Any:
    """The tree without the YAML library's own types, which pydantic would refuse in strict places."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _line(tree: Any, loc: Location) -> int:
    """The line of the deepest part of `loc` that is in the file."""
    line, node = 0, tree
    for step in loc:
        try:
            if isinstance(node, dict) and step in node:
                line = node.lc.key(step)[0]  # type: ignore[attr-defined]  # ruamel's mappings carry their lines
                node = node[step]
            elif isinstance(node, list) and isinstance(step, int) and step < len(node):
                line = node.lc.item(step)[0]  # type: ignore[attr-defined]
                node = node[step]
            else:
                break
        except (AttributeError, KeyError):
            break
    return line + 1


def _place(loc: Location) -> str:
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text or "file"


def _told(problems: Sequence[Any]) -> list[Any]:
    """Without "too few" of a list whose entries are wrong: there are enough, once they are mended."""
    places = [problem["loc"] for problem in problems]
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or all(len(place) <= len(problem["loc"]) or place[: len(problem["loc"])] != problem["loc"] for place in places)
    ]


def _words(problem: Any) -> str:
    given = problem.get("input")
    shown = "" if isinstance(given, (dict, list, tuple)) or problem["type"] == "missing" else f", got {given!r}"
    if problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"] == _NAME:
        return f"expected a name of a-z, 0-9 and _ that begins with a letter{shown}"
    if problem["type"] == "extra_forbidden":
        return "not a setting that exists here"
    return (
        re.sub(r"^(Value error, |Input should be )", lambda m: "expected " if "Input" in m[0] else "", problem["msg"])
        + shown
    )


def _cross_check(config: Config) -> list[tuple[Location, str]]:
    """Everything that needs more than one field, as (place, what was expected)."""
    found: list[tuple[Location, str]] = []
    found += _repeated(config.channels, "channels", "id", "channel")
    found += _repeated(config.events, "events", "type", "event type")
    found += _repeated(config.offers, "offers", "id", "offer")
    channels = {channel.id for channel in config.channels}
    for at, channel in enumerate(config.channels):
        if len(set(channel.placements)) != len(channel.placements):
            found.append((("channels", at, "placements"), "expected each placement once"))
    found += _check_names(config)
    found += _check_features(config)
    found += _check_facts(config)
    keys: dict[int, str] = {}
    for at, offer in enumerate(config.offers):
        other = keys.setdefault(key_of(offer.id), offer.id)
        if other != offer.id:
            found.append((("offers", at, "id"), f"{offer.id!r} and {other!r} have the same 32-bit key; rename one"))
        if offer.starts_ms >= offer.ends_ms:
            found.append((("offers", at, "ends_ms"), "expected a time after starts_ms"))
        named: list[tuple[Location, str]] = [(("offers", at, "channels", i), c) for i, c in enumerate(offer.channels)]
        named += [(("offers", at, "context_weight", c), c) for c in offer.context_weight]
        named += [
            (("offers", at, "treatments", i, "channel"), t.channel) for i, t in enumerate(offer.treatments) if t.channel
        ]
        found += [
            (loc, f"no channel {c!r}; there are {', '.join(sorted(channels))}") for loc, c in named if c not in channels
        ]
    offers = {offer.id for offer in config.offers}
    for at, fallback in enumerate(config.fallback):
        if fallback not in offers:
            found.append((("fallback", at), f"no offer {fallback!r}"))
    return found


def _repeated(entries: tuple[Any, ...], place: str, attribute: str, what: str) -> list[tuple[Location, str]]:
    first: dict[str, int] = {}
    found: list[tuple[Location, str]] = []
    for at, entry in enumerate(entries):
        name = getattr(entry, attribute)
        if first.setdefault(name, at) != at:
            found.append(((place, at, attribute), f"{what} {name!r} is already there as {place}[{first[name]}]"))
    return found


def _check_names(config: Config) -> list[tuple[Location, str]]:
    """Features and facts share one space of names: both are variables in rules."""
    found: list[tuple[Location, str]] = []
    seen: dict[str, str] = {}
    named: list[tuple[str, int, str]] = [("features", at, f.name) for at, f in enumerate(config.features)]
    named += [("context", at, f.name) for at, f in enumerate(config.context)]
    for place, at, name in named:
        if name in _CEL_WORDS:
            found.append(((place, at, "name"), f"{name!r} is a word of the rule language; choose another name"))
        here = f"{place}[{at}]"
        if seen.setdefault(name, here) != here:
            found.append(((place, at, "name"), f"the name {name!r} is already taken by {seen[name]}"))
    return found


def _check_features(config: Config) -> list[tuple[Location, str]]:
    found: list[tuple[Location, str]] = []
    events = {event.type: event for event in config.events}
    for at, feature in enumerate(config.features):
        event = events.get(feature.event)
        if event is None:
            found.append((("features", at, "event"), f"no event type {feature.event!r}"))
            continue
        for place, name in [("attribute", feature.attribute), *(("where", name) for name in feature.where)]:
            if name and name not in event.attributes:
                found.append((("features", at, place), f"event {event.type!r} has no attribute {name!r}"))
        attribute = event.attributes.get(feature.attribute or "")
        text = attribute is not None and attribute.type == "text"
        if text and feature.function != "last":
            found.append((("features", at, "function"), "a text can only be remembered: expected last"))
        if text and attribute is not None and not attribute.values:
            found.append((("features", at, "attribute"), "a text attribute needs its values declared to be a feature"))
        one_hot = feature.input is not None and feature.input.kind == "one_hot"
        if feature.input is not None and one_hot != (text and feature.function == "last"):
            found.append((("features", at, "input"), "expected kind one_hot for a text, linear or log for a number"))
        try:
            validate_features([config._spec(feature)])
        except ValueError as error:
            found.append((("features", at), str(error)))
    return found


def _check_facts(config: Config) -> list[tuple[Location, str]]:
    found: list[tuple[Location, str]] = []
    kinds: dict[str, tuple[type, ...]] = {"number": (int, float), "text": (str,), "flag": (bool,)}
    for at, fact in enumerate(config.context):
        if fact.input is not None and (fact.input.kind == "one_hot") != (fact.type == "text"):
            found.append((("context", at, "input"), "expected kind one_hot for a text, linear or log for the others"))
        if fact.type == "text" and not fact.values:
            found.append((("context", at), "a text fact needs its values declared; any other value counts as missing"))
        default = fact.default
        fits = isinstance(default, kinds[fact.type]) and (fact.type == "flag" or not isinstance(default, bool))
        if default is not None and not fits:
            found.append((("context", at, "default"), f"expected a {fact.type}, got {default!r}"))
        elif fact.values and default is not None and default not in fact.values:
            found.append((("context", at, "default"), f"expected one of {', '.join(fact.values)}"))
    return found
