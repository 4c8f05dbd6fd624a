"""The declaration of a feature: what it takes from which events, and what it reads as.

| function | keeps | reads as | missing when |
|---|---|---|---|
| count | number of events | that number | never: 0 |
| sum | Σ attribute, in units of `resolution` | the sum | never: 0 |
| mean | the sum and the number | their ratio | no event in the window |
| last | newest value by event time | the value, or the index of its category | never seen, or not a known category |
| recency | newest event time | seconds since, at least 0 | never seen |
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

Function = Literal["count", "sum", "mean", "last", "recency"]

FUNCTIONS: Final[tuple[str, ...]] = get_args(Function)
TILES_DEFAULT: Final = 12
"""Tiles of a window that names no tile: the window then steps by a twelfth of its length."""
TILES_MAX: Final = 256
WINDOW_MS_MAX: Final = 3_660 * 86_400_000
"""Ten years; longer is a lifetime."""
FEATURES_MAX: Final = 1_024
RESOLUTION_MIN: Final = 1e-12
RESOLUTION_MAX: Final = 1e12

_WINDOWED: Final = ("count", "sum", "mean")
_NEEDS_ATTRIBUTE: Final = ("sum", "mean", "last")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION_TEXT: Final = re.compile(r"([0-9]{1,15})(ms|s|m|h|d|w)")


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as "500ms", "30s", "15m", "1h", "7d" or "2w". Raises ValueError.

    >>> parse_duration_ms("1h"), parse_duration_ms("90d")
    (3600000, 7776000000)
    >>> parse_duration_ms("1.5h")
    Traceback (most recent call last):
    ValueError: duration '1.5h': expected a whole number and one of ms, s, m, h, d, w, such as "7d"
    """
    match = _DURATION_TEXT.fullmatch(text)
    if match is None:
        raise ValueError(f'duration {text!r}: expected a whole number and one of {", ".join(_UNIT_MS)}, such as "7d"')
    duration_ms = int(match[1]) * _UNIT_MS[match[2]]
    if duration_ms == 0:
        raise ValueError(f"duration {text!r}: expected more than nothing")
    return duration_ms


@dataclass(frozen=True)
class FeatureSpec:
    """One feature. `validate` says whether it makes sense; nothing is checked here.

    >>> week = FeatureSpec("spent_7d", "sum", "purchase", attribute="amount", window_ms=parse_duration_ms("7d"))
    >>> week.tiles, week.tile_width_ms
    (12, 50400000)
    """

    name: str
    function: Function
    event: str
    """Type of the events it takes."""
    attribute: str | None = None
    window_ms: int | None = None
    """None: over the customer's lifetime."""
    tile_ms: int | None = None
    """Step of the window; None: a twelfth of it, rounded up to a whole ms. The window is kept in steps of this."""
    where: tuple[tuple[str, str | float | bool], ...] = ()
    """(attribute, value) pairs that must all hold; a boolean equals only a boolean."""
    categories: tuple[str, ...] = ()
    """For `last` of a text: the feature is the index of the text in here."""
    default: float = math.nan
    """What it reads as when missing; NaN: missing. Not used by count and sum, which are 0 then."""
    resolution: float = 1e-6
    """sum and mean count in whole multiples of this, which makes them exact: no order or batch changes a bit."""
    meaning: str = ""
    unit: str = ""

    @property
    def tile_width_ms(self) -> int:
        """Length of a tile in ms, the default resolved; 0 for a lifetime feature."""
        if self.window_ms is None:
            return 0
        return self.tile_ms if self.tile_ms is not None else -(-self.window_ms // TILES_DEFAULT)

    @property
    def tiles(self) -> int:
        """Number of tiles, ceil(window / tile); 0 for a lifetime feature."""
        return 0 if self.window_ms is None else -(-self.window_ms // self.tile_width_ms)

    @property
    def missing(self) -> float:
        """What it reads as for a customer without events."""
        return 0.0 if self.function in ("count", "sum") else self.default


def validate(specs: Sequence[FeatureSpec]) -> None:
    """Check every spec and that names are unique. Raises ValueError naming the feature and what was expected.

    >>> validate([FeatureSpec("spent", "sum", "purchase")])
    Traceback (most recent call last):
    ValueError: feature 'spent': sum needs an attribute
    """
    if len(specs) > FEATURES_MAX:
        raise ValueError(f"{len(specs)} features: expected at most {FEATURES_MAX}")
    names: set[str] = set()
    for spec in specs:
        problem = "the name is used twice" if spec.name in names else _problem(spec)
        if problem:
            raise ValueError(f"feature {spec.name!r}: {problem}")
        names.add(spec.name)


def _problem(spec: FeatureSpec) -> str | None:
    """The first thing wrong with one spec, or None."""
    if not spec.name:
        return "expected a name"
    if spec.function not in FUNCTIONS:
        return f"function {spec.function!r}: expected one of {', '.join(FUNCTIONS)}"
    if not spec.event:
        return "expected an event type"
    if spec.function in _NEEDS_ATTRIBUTE and not spec.attribute:
        return f"{spec.function} needs an attribute"
    if spec.function not in _NEEDS_ATTRIBUTE and spec.attribute is not None:
        return f"{spec.function} takes no attribute; to select events use where"
    return _window_problem(spec) or _where_problem(spec) or _category_problem(spec) or _number_problem(spec)


def _window_problem(spec: FeatureSpec) -> str | None:
    if spec.window_ms is None:
        return None if spec.tile_ms is None else "a tile without a window: expected both or neither"
    if spec.function not in _WINDOWED:
        return f"{spec.function} takes no window: it looks at the whole lifetime"
    if not 0 < spec.window_ms <= WINDOW_MS_MAX:
        return f"window of {spec.window_ms} ms: expected 1 to {WINDOW_MS_MAX} ms"
    if spec.tile_ms is not None and not 0 < spec.tile_ms <= spec.window_ms:
        return f"tile of {spec.tile_ms} ms: expected 1 ms to the window, {spec.window_ms} ms"
    if spec.tiles > TILES_MAX:
        tile_ms_min = -(-spec.window_ms // TILES_MAX)
        return f"{spec.tiles} tiles: expected at most {TILES_MAX}, so a tile of {tile_ms_min} ms or more"
    return None


def _where_problem(spec: FeatureSpec) -> str | None:
    for name, value in spec.where:
        if not name:
            return "where: expected the name of an attribute"
        if isinstance(value, float) and not math.isfinite(value):
            return f"where {name}: expected a finite number"
    names = [name for name, _ in spec.where]
    if len(set(names)) < len(names):
        return "where: an attribute is named twice"
    return None


def _category_problem(spec: FeatureSpec) -> str | None:
    if spec.categories and spec.function != "last":
        return f"{spec.function} takes no categories: they belong to last"
    if "" in spec.categories:
        return "categories: expected texts that are not empty"
    if len(set(spec.categories)) < len(spec.categories):
        return "categories: a text is listed twice"
    return None


def _number_problem(spec: FeatureSpec) -> str | None:
    if math.isinf(spec.default):
        return "default: expected a finite number, or NaN for missing"
    if not RESOLUTION_MIN <= spec.resolution <= RESOLUTION_MAX:
        return f"resolution {spec.resolution}: expected {RESOLUTION_MIN} to {RESOLUTION_MAX}"
    return None
