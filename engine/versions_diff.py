"""What two configurations have differently, field by field, in words."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal

from engine import limits
from engine.config_base import Part

_KEYS: Final = ("id", "name", "type", "kind")
"""Fields that tell the entries of a list apart; the first that an entry has."""
_DURATIONS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"))
_NOT_SET: Final = "not set"
_TEXT_SHOWN_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is otherwise."""

    place: tuple[str, ...]
    """From the outside in, such as ("offer loan", "window")."""
    what: Literal["added", "removed", "changed"]
    words: str
    """The value, or "before → after"."""


def differences(old: Part, new: Part) -> list[Difference]:
    """All that two configurations have differently, in the order of the settings."""
    return list(_parts(old, new, ()))


def _parts(old: Part, new: Part, place: tuple[str, ...]) -> Iterator[Difference]:
    for name in type(new).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield from _values(before, after, name, place, _is_duration(type(new), name))


def _values(before: Any, after: Any, name: str, place: tuple[str, ...], duration: bool) -> Iterator[Difference]:
    if isinstance(before, Part) and type(before) is type(after):
        yield from _parts(before, after, (*place, name))
    elif _entries(before) and _entries(after) and (before or after):
        yield from _lists(before, after, name, place)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            if before.get(key) != after.get(key):
                yield from _one(before.get(key), after.get(key), (*place, name, f"{key}"), duration)
    elif _list(before) and _list(after) and not _numbers(before, after):
        gone, come = [v for v in before if v not in after], [v for v in after if v not in before]
        yield from (Difference((*place, name), "removed", _words(value)) for value in gone)
        yield from (Difference((*place, name), "added", _words(value)) for value in come)
        if not gone and not come:
            yield Difference((*place, name), "changed", f"another order: {', '.join(map(_words, after))}")
    else:
        yield from _one(before, after, (*place, name), duration)


def _one(before: Any, after: Any, place: tuple[str, ...], duration: bool) -> Iterator[Difference]:
    name = place[-1]
    if isinstance(before, Part) and isinstance(after, Part):
        yield from _parts(before, after, place)
    elif before is None or after is None:
        what: Literal["added", "removed"] = "added" if before is None else "removed"
        yield Difference(place, what, _words(after if before is None else before, name, duration))
    else:
        said = f"{_words(before, name, duration)} → {_words(after, name, duration)}"
        yield Difference(place, "changed", said)


def _lists(before: Sequence[Part], after: Sequence[Part], name: str, place: tuple[str, ...]) -> Iterator[Difference]:
    """Entries of a list matched by their names; without names, by being the same."""
    olds, news = _named(before), _named(after)
    one = _singular(name)
    if olds is None or news is None:
        for value in before:
            if value not in after:
                yield Difference((*place, one), "removed", _words(value))
        for value in after:
            if value not in before:
                yield Difference((*place, one), "added", _words(value))
        return
    for key, value in olds.items():
        if key not in news:
            yield Difference((*place, f"{one} {key}"), "removed", _summary(value))
    for key, value in news.items():
        if key not in olds:
            yield Difference((*place, f"{one} {key}"), "added", _summary(value))
        elif olds[key] != value:
            yield from _parts(olds[key], value, (*place, f"{one} {key}"))
    kept = [key for key in olds if key in news]
    if kept != [key for key in news if key in olds]:
        yield Difference((*place, name), "changed", "another order")


def _named(parts: Sequence[Part]) -> dict[str, Part] | None:
    """Entries by what tells them apart; None if nothing does."""
    if not parts:
        return {}
    key = next((key for key in _KEYS if key in type(parts[0]).model_fields), None)
    if key is not None:
        names = [str(getattr(part, key)) for part in parts]
    elif {"channel", "language"} <= set(type(parts[0]).model_fields):
        names = [_audience(part) for part in parts]
    else:
        return None
    return dict(zip(names, parts, strict=True)) if len(set(names)) == len(names) else None


def _audience(part: Any) -> str:
    return f"({part.channel or 'any channel'}, {part.language or 'any language'})"


def _summary(part: Part) -> str:
    """What an entry that came or went says of itself, in a line: the settings that it gives, but for its name."""
    given = [name for name in type(part).model_fields if name in part.model_fields_set and name not in _KEYS[:2]]
    said = [f"{name} {_words(getattr(part, name), name, _is_duration(type(part), name))}" for name in given]
    return _cut(", ".join(said))


def _words(value: Any, name: str = "", duration: bool = False) -> str:
    """A value for people.

    >>> [_words(5_400_000, duration=True), _words(0.25), _words(True), _words(None), _words((1.0, 5.0)), _words("a b")]
    ['90m', '0.25', 'yes', 'not set', '[1, 5]', "'a b'"]
    """
    if value is None:
        return _NOT_SET
    if isinstance(value, bool):
        return "yes" if value else "no"
    if duration and isinstance(value, int):
        return next((f"{value // size}{unit}" for size, unit in _DURATIONS if value % size == 0), f"{value} ms")
    if name.endswith("_ms") and value == limits.TIME_MS_MAX:
        return "no end"
    if name.endswith("_ms") and isinstance(value, int) and value > 0:
        return f"{datetime.fromtimestamp(value / 1e3, UTC):%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, str):
        return _cut(repr(value)) if " " in value or not value else _cut(value)
    if isinstance(value, Part):
        return f"({_summary(value)})"
    if isinstance(value, Mapping):
        return "{" + _cut(", ".join(f"{key}: {_words(one)}" for key, one in value.items())) + "}"
    if isinstance(value, Sequence):
        return "[" + _cut(", ".join(map(_words, value))) + "]"
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_SHOWN_MAX else f"{text[: _TEXT_SHOWN_MAX - 1]}…"


def _list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _entries(value: Any) -> bool:
    return _list(value) and all(isinstance(one, Part) for one in value)


def _numbers(before: Any, after: Any) -> bool:
    """Whether a list is one value, such as a range, rather than several."""
    return bool(before) and bool(after) and all(isinstance(one, (int, float)) for one in (*before, *after))


def _singular(name: str) -> str:
    """
    >>> [_singular(name) for name in ("offers", "entities", "context", "eligibility")]
    ['offer', 'entity', 'fact', 'eligibility']
    """
    if name == "context":
        return "fact"
    return f"{name[:-3]}y" if name.endswith("ies") else name.removesuffix("s")


@cache
def _is_duration(part: type[Part], name: str) -> bool:
    field = part.model_fields[name]
    return "_duration" in f"{field.annotation!r}{field.metadata!r}"
