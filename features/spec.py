"""The declaration of a feature: what it takes from which events, and what it reads as.

| function | keeps | reads as | missing when |
|---|---|---|---|
| count | number of events | that number | never: 0 |
| sum | Σ value, in units of `resolution` | the sum | never: 0 |
| mean | the sum and the number | their ratio | no event |
| min, max | the smallest, the largest value | it | no event |
| last, first | the value at the newest, the oldest time | it, or the index of its category | none, or no known one |
| recency | newest event time | seconds since, at least 0 | no event |
| distinct | a sketch of the values seen, DISTINCT_BITS bits | how many there were, about | never: 0 |
| decayed | Σ value · 2^(−age / half-life); without a value, of 1 | the sum | never: 0 |
| hour_share | events by hour of the day | the share of the present hour in them | no event |
| weekday_share | events by day of the week | the share of the present weekday in them | no event |
| ratio | nothing of its own | one feature over another | either is missing, or the divisor is 0 |

All but recency, decayed and ratio may look at a window instead of the whole lifetime.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from features.expression import ExpressionError, compile_cel

Function = Literal[
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "last",
    "first",
    "recency",
    "distinct",
    "decayed",
    "hour_share",
    "weekday_share",
    "ratio",
]

FUNCTIONS: Final[tuple[str, ...]] = get_args(Function)
TILES_DEFAULT: Final = 12
"""Tiles of a window that names no tile: the window then steps by a twelfth of its length."""
TILES_MAX: Final = 256
WINDOW_MS_MAX: Final = 3_660 * 86_400_000
"""Ten years; longer is a lifetime."""
FEATURES_MAX: Final = 1_024
RESOLUTION_MIN: Final = 1e-12
RESOLUTION_MAX: Final = 1e12
DISTINCT_BITS: Final = 1_024
"""Bits of a sketch of distinct values: a standard deviation of 2.2 % up to 500, of 8 % at 5,000, useless beyond."""
DECAY_TILE_HALF_LIVES: Final = 8
"""A decayed sum is kept in tiles of so many half-lives, four of them: what drops out weighed less than 2^-24."""
DECAY_TILES: Final = 4
VALUE_UNITS_MAX: Final = 2**53
"""Multiples of the resolution that one value of a sum or mean may be. What is larger is cut; a thousand have room."""

_WITHOUT_WINDOW: Final = ("recency", "decayed", "ratio")
_NEEDS_VALUE: Final = ("sum", "mean", "min", "max", "last", "first", "distinct")
_MAY_HAVE_VALUE: Final = (*_NEEDS_VALUE, "decayed")
NEVER_MISSING: Final = ("count", "sum", "distinct", "decayed")
"""Functions that are 0 without events."""
_IN_UNITS: Final = ("sum", "mean", "decayed")
_UNIT_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_UNITS_DOWN: Final = tuple((unit, size) for unit, size in reversed(_UNIT_MS.items()) if unit != "w")
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


def duration_text(ms: int) -> str:
    """A duration as it may be written, in its largest whole unit up to days.

    >>> duration_text(30 * 86_400_000), duration_text(5_400_000), duration_text(1)
    ('30d', '90m', '1ms')
    """
    return next(f"{ms // size}{unit}" for unit, size in _UNITS_DOWN if ms % size == 0)


@dataclass(frozen=True)
class FeatureSpec:
    """One feature. `validate` says whether it makes sense; nothing is checked here.

    >>> week = FeatureSpec("spent_7d", "sum", "purchase", attribute="amount", window_ms=parse_duration_ms("7d"))
    >>> week.tiles, week.tile_width_ms
    (12, 50400000)
    """

    name: str
    function: Function
    event: str = ""
    """Type of the events it takes; a ratio takes none."""
    attribute: str | None = None
    """The value it takes from an event: an attribute …"""
    value: str | None = None
    """… or a CEL expression over the attributes (features.expression)."""
    window_ms: int | None = None
    """None: over the customer's lifetime."""
    tile_ms: int | None = None
    """Step of the window; None: a twelfth of it, rounded up to a whole ms. The window is kept in steps of this."""
    half_life_ms: int | None = None
    """Of a decayed sum: the age at which a value weighs half."""
    where: tuple[tuple[str, str | float | bool], ...] = ()
    """(attribute, value) pairs that must all hold; a boolean equals only a boolean."""
    condition: str | None = None
    """A CEL expression that must be true, too."""
    categories: tuple[str, ...] = ()
    """For `last` and `first` of a text: the feature is the index of the text in here."""
    hashed: bool = False
    """For `last` and `first` of any text: the feature is its hash (features.hashing)."""
    numerator: str | None = None
    """Of a ratio: the name of a feature declared before it …"""
    denominator: str | None = None
    """… and what to divide it by."""
    default: float = math.nan
    """What it reads as when missing; NaN: missing. Not used by what is 0 then."""
    resolution: float = 1e-6
    """sum, mean and decayed count in whole multiples of this: exact, so no order or batch changes a bit."""
    meaning: str = ""
    unit: str = ""
    owner: str = ""

    @property
    def tile_width_ms(self) -> int:
        """Length of a tile in ms, the default resolved; 0 for a lifetime feature."""
        if self.function == "decayed":
            return DECAY_TILE_HALF_LIVES * (self.half_life_ms or 0)
        if self.window_ms is None:
            return 0
        return self.tile_ms if self.tile_ms is not None else -(-self.window_ms // TILES_DEFAULT)

    @property
    def tiles(self) -> int:
        """Number of tiles, ceil(window / tile); 0 for a lifetime feature."""
        if self.function == "decayed":
            return DECAY_TILES
        return 0 if self.window_ms is None else -(-self.window_ms // self.tile_width_ms)

    @property
    def missing(self) -> float:
        """What it reads as for a customer without events."""
        return 0.0 if self.function in NEVER_MISSING else self.default


def value_max(function: str, resolution: float) -> float:
    """The largest value that `sum`, `mean` or `decayed` takes at a resolution; infinite for other functions.

    A decayed sum weighs a value up to 2^DECAY_TILE_HALF_LIVES times within its tile, and of so many it holds fewer.

    >>> value_max("sum", 1e-6), value_max("decayed", 1e-6)
    (9007199254.740992, 35184372.088832)
    """
    if function not in _IN_UNITS:
        return math.inf
    weight = 2**DECAY_TILE_HALF_LIVES if function == "decayed" else 1
    return VALUE_UNITS_MAX // weight * resolution


def validate(specs: Sequence[FeatureSpec]) -> None:
    """Check every spec and that names are unique. Raises ValueError naming the feature and what was expected.

    >>> validate([FeatureSpec("spent", "sum", "purchase")])
    Traceback (most recent call last):
    ValueError: feature 'spent': sum needs an attribute, or a value
    """
    if len(specs) > FEATURES_MAX:
        raise ValueError(f"{len(specs)} features: expected at most {FEATURES_MAX}")
    names: set[str] = set()
    for spec in specs:
        problem = "the name is used twice" if spec.name in names else _problem(spec, names)
        if problem:
            raise ValueError(f"feature {spec.name!r}: {problem}")
        names.add(spec.name)


def _problem(spec: FeatureSpec, before: set[str]) -> str | None:
    """The first thing wrong with one spec, or None."""
    if not spec.name:
        return "expected a name"
    if spec.function not in FUNCTIONS:
        return f"function {spec.function!r}: expected one of {', '.join(FUNCTIONS)}"
    if spec.function == "ratio":
        return _ratio_problem(spec, before)
    if spec.numerator or spec.denominator:
        return f"{spec.function} has no numerator and denominator: they belong to ratio"
    if not spec.event:
        return "expected an event type"
    return (
        _value_problem(spec)
        or _window_problem(spec)
        or _where_problem(spec)
        or _category_problem(spec)
        or _number_problem(spec)
    )


def _ratio_problem(spec: FeatureSpec, before: set[str]) -> str | None:
    for part in (spec.numerator, spec.denominator):
        if part is None:
            return "ratio needs a numerator and a denominator"
        if part not in before:
            return f"ratio of {part!r}: expected a feature that is declared before it"
    given = (spec.event, spec.attribute, spec.value, spec.window_ms, spec.tile_ms, spec.half_life_ms, spec.condition)
    if any(given) or spec.where or spec.categories or spec.hashed:
        return "ratio takes no events: it divides two features"
    return _number_problem(spec)


def _value_problem(spec: FeatureSpec) -> str | None:
    if spec.attribute is not None and spec.value is not None:
        return "an attribute and a value: expected one of them"
    has_value = bool(spec.attribute or spec.value)
    if spec.function in _NEEDS_VALUE and not has_value:
        return f"{spec.function} needs an attribute, or a value"
    if spec.function not in _MAY_HAVE_VALUE and (spec.attribute is not None or spec.value is not None):
        return f"{spec.function} takes no attribute; to select events use where"
    for what, expression in (("value", spec.value), ("where", spec.condition)):
        if expression is not None:
            try:
                compile_cel(expression)
            except ExpressionError as error:
                return f"{what}: {error}"
    return None


def _window_problem(spec: FeatureSpec) -> str | None:
    if spec.function == "decayed":
        if spec.half_life_ms is None:
            return "decayed needs a half_life"
        if not 0 < spec.half_life_ms <= WINDOW_MS_MAX:
            return f"half-life of {duration_text(spec.half_life_ms)}: expected 1ms to {duration_text(WINDOW_MS_MAX)}"
    elif spec.half_life_ms is not None:
        return f"{spec.function} takes no half_life: it belongs to decayed"
    if spec.window_ms is None:
        return None if spec.tile_ms is None else "a tile without a window: expected both or neither"
    if spec.function in _WITHOUT_WINDOW:
        return f"{spec.function} takes no window: it looks at the whole lifetime"
    if not 0 < spec.window_ms <= WINDOW_MS_MAX:
        return f"window of {duration_text(spec.window_ms)}: expected 1ms to {duration_text(WINDOW_MS_MAX)}"
    if spec.tile_ms is not None and not 0 < spec.tile_ms <= spec.window_ms:
        return f"tile of {duration_text(spec.tile_ms)}: expected 1ms to the window, {duration_text(spec.window_ms)}"
    if spec.tiles > TILES_MAX:
        tile_ms_min = -(-spec.window_ms // TILES_MAX)
        return f"{spec.tiles} tiles: expected at most {TILES_MAX}, so a tile of {duration_text(tile_ms_min)} or more"
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
    if spec.categories and spec.function not in ("last", "first"):
        return f"{spec.function} takes no categories: they belong to last and first"
    if spec.hashed and spec.function not in ("last", "first"):
        return f"{spec.function} takes no hash of a text: it belongs to last and first"
    if spec.hashed and spec.categories:
        return "categories beside a hash of any text: expected one of them"
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
