"""Random specs and streams for the property tests. Times are small, so that tiles, wraps and late events abound."""

import math

from hypothesis import strategies as st

from features import FUNCTIONS, Event, FeatureSpec, Offset

TYPES = ("visit", "purchase", "call")
TIME_MS_MAX = 400

# By hand: every function, windows of three classes, one shared by two event types, one of a single tile, and tiles that
# do not divide the window.
SPECS = (
    FeatureSpec("visits_50", "count", "visit", window_ms=50),
    FeatureSpec("spent_50", "sum", "purchase", attribute="amount", window_ms=50, resolution=0.01),
    FeatureSpec("basket_50", "mean", "purchase", attribute="amount", window_ms=50, resolution=0.01, default=-1.0),
    FeatureSpec("calls_100", "count", "call", window_ms=100, tile_ms=7),
    FeatureSpec("angry_100", "count", "call", window_ms=100, tile_ms=7, where=(("angry", True),)),
    FeatureSpec("visits_20", "count", "visit", window_ms=20, tile_ms=20),
    FeatureSpec("visits", "count", "visit"),
    FeatureSpec("spent_web", "sum", "purchase", attribute="amount", where=(("channel", "web"),), resolution=0.01),
    FeatureSpec("basket", "mean", "purchase", attribute="amount", resolution=0.01),
    FeatureSpec("channel", "last", "visit", attribute="channel", categories=("web", "app"), default=-1.0),
    FeatureSpec("amount", "last", "purchase", attribute="amount"),
    FeatureSpec("since_call", "recency", "call", default=9.0),
    FeatureSpec("least_50", "min", "purchase", attribute="amount", window_ms=50),
    FeatureSpec("most_100", "max", "purchase", attribute="amount", window_ms=100, tile_ms=5, default=0.0),
    FeatureSpec("first_amount", "first", "purchase", attribute="amount"),
    FeatureSpec("last_80", "last", "purchase", attribute="amount", window_ms=80, tile_ms=5),
    FeatureSpec("channels_100", "distinct", "visit", attribute="channel", window_ms=100),
    FeatureSpec("amounts", "distinct", "purchase", attribute="amount"),
    FeatureSpec("warm", "decayed", "visit", half_life_ms=9),
    FeatureSpec("warm_spent", "decayed", "purchase", attribute="amount", half_life_ms=30),
    FeatureSpec("this_hour", "hour_share", "visit"),
    FeatureSpec("basket_share", "ratio", numerator="spent_50", denominator="spent_web", default=0.5),
)


def offsets(count: int, after: int = 0) -> list[Offset]:
    """Offsets of consecutive events."""
    return [Offset(1_000 + number // 3, number % 3) for number in range(after, after + count)]


def attributes() -> st.SearchStrategy[dict[str, float | str | bool]]:
    """Attributes, some of them missing or of no use."""
    amounts = st.integers(-500_000, 500_000).map(lambda cents: cents / 100)
    odd = st.sampled_from([math.nan, math.inf, -math.inf, "12", True, False])
    return st.fixed_dictionaries(
        {},
        optional={
            "amount": amounts | odd,
            "channel": st.sampled_from(["web", "app", "fax", 1.0]),
            "angry": st.sampled_from([True, False, 1.0, "True"]),
        },
    )


@st.composite
def streams(draw: st.DrawFn, *, ids: bool = False, time_ms_max: int = TIME_MS_MAX, max_size: int = 40) -> list[Event]:
    """Events in order of offset and in no order of time; with ids if asked, and then few, so that they repeat."""
    drawn = draw(
        st.lists(
            st.tuples(
                st.integers(0, 12) if ids else st.just(0),
                st.sampled_from(TYPES),
                st.integers(0, time_ms_max),
                attributes(),
            ),
            max_size=max_size,
        )
    )
    return [Event(*parts, offset) for parts, offset in zip(drawn, offsets(len(drawn)), strict=True)]


@st.composite
def spec_lists(draw: st.DrawFn) -> list[FeatureSpec]:
    """Any valid features over the same events."""
    return [draw(specs(f"f{index}")) for index in range(draw(st.integers(0, 8)))]


@st.composite
def specs(draw: st.DrawFn, name: str) -> FeatureSpec:
    """One valid feature."""
    function = draw(st.sampled_from([function for function in FUNCTIONS if function != "ratio"]))
    event = draw(st.sampled_from(TYPES))
    windowed = function not in ("recency", "decayed")
    window_ms = draw(st.none() | st.sampled_from([1, 13, 50, 120])) if windowed else None
    tile_ms = draw(st.none() | st.integers(1, window_ms)) if window_ms else None
    texts = function in ("last", "first") and draw(st.booleans())
    valued = function in ("sum", "mean", "min", "max", "last", "first", "distinct")
    valued = valued or (function == "decayed" and draw(st.booleans()))
    return FeatureSpec(
        name,
        function,
        event,
        attribute=("channel" if texts else "amount") if valued else None,
        half_life_ms=draw(st.sampled_from([1, 10, 40])) if function == "decayed" else None,
        window_ms=window_ms,
        tile_ms=tile_ms,
        where=draw(
            st.sampled_from([(), (("angry", True),), (("channel", "web"), ("angry", False)), (("channel", 1.0),)])
        ),
        categories=draw(st.sampled_from([("web", "app"), ("fax", "app", "web"), ("web",)])) if texts else (),
        default=draw(st.sampled_from([math.nan, 0.0, -1.0])),
        resolution=draw(st.sampled_from([1e-6, 0.01])),
    )
