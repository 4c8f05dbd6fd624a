"""Features: what is known about a customer, kept as one small packed value and brought up to date event by event.

The story runs left to right:

    Event ──► fold ──► record (bytes) ──► read ──► x, one row of numbers a customer
                ▲                           ▲
                └── Layout ◄── FeatureSpec ─┘

A `FeatureSpec` declares one feature: which events it takes, what it keeps of them and what it reads as.
`Layout.compile` gives every feature its bytes. `Layout.fold` turns a record and new events into the next record;
`Layout.read` turns many records and a time into a matrix. That is all: no clock, no network, no other package of ours.

Promises, each with a property test against a slow reference:

1. An event delivered twice counts once: by its offset (the log repeats itself) or by its id (the producer does).
2. Where a stream is cut into batches changes no byte.
3. Within the span of a window the order of events changes no value. Sums are kept as integers, so this is exact.
4. What comes too late for a window is counted as late and never damages the window.
5. A damaged record raises `RecordError`; it is never read as something else by `fold`.

Non-goals: joining customers, reaching back to correct a window that has passed, choosing features.

>>> spec = FeatureSpec("calls_1d", "count", "call", window_ms=parse_duration_ms("1d"))
>>> layout = Layout.compile([spec])
>>> result = layout.fold(None, [Event(0, "call", 1_000, {}, Offset(1, 0)), Event(0, "call", 2_000, {}, Offset(2, 0))])
>>> layout.values(result.record, now_ms=3_000)
{'calls_1d': 2.0}
"""

from features.event import EVENT_TIME_MS_MAX, Event, Offset
from features.expression import CLOCK_NAMES, WORDLESS, ExpressionError, cel_problem, compile_cel, first_line
from features.hashing import shown_hash, text_hash
from features.layout import CellRow, FoldResult, Layout, LayoutRow, Rows
from features.record import (
    EVENT_IDS_REMEMBERED_MAX,
    HEADER_BYTES,
    HEADER_CAS_BYTES,
    HEADER_STATE_BYTES,
    NEVER_MS,
    RecordError,
    RecordHeader,
    VersionError,
    news,
)
from features.refill import Part
from features.spec import (
    FEATURES_MAX,
    FUNCTIONS,
    NEVER_MISSING,
    TILES_DEFAULT,
    TILES_MAX,
    WINDOW_MS_MAX,
    FeatureSpec,
    Function,
    duration_text,
    parse_duration_ms,
    validate,
    value_max,
)
from features.tables import clock_of

__all__ = [
    "CLOCK_NAMES",
    "EVENT_IDS_REMEMBERED_MAX",
    "EVENT_TIME_MS_MAX",
    "FEATURES_MAX",
    "FUNCTIONS",
    "HEADER_BYTES",
    "HEADER_CAS_BYTES",
    "HEADER_STATE_BYTES",
    "NEVER_MISSING",
    "NEVER_MS",
    "TILES_DEFAULT",
    "TILES_MAX",
    "WINDOW_MS_MAX",
    "WORDLESS",
    "CellRow",
    "Event",
    "ExpressionError",
    "FeatureSpec",
    "FoldResult",
    "Function",
    "Layout",
    "LayoutRow",
    "Offset",
    "Part",
    "RecordError",
    "RecordHeader",
    "Rows",
    "VersionError",
    "cel_problem",
    "clock_of",
    "compile_cel",
    "duration_text",
    "first_line",
    "news",
    "parse_duration_ms",
    "shown_hash",
    "text_hash",
    "validate",
    "value_max",
]
