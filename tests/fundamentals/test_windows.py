"""How time works in the features. An hour's window here moves in steps of five minutes, its tiles."""

from features import Event, FeatureSpec, Layout, Offset, parse_duration_ms

MINUTE_MS = parse_duration_ms("1m")
LAYOUT = Layout.compile([FeatureSpec("calls_1h", "count", "call", window_ms=parse_duration_ms("1h"))])


def calls(*minutes: int) -> list[Event]:
    """Calls at these minutes, in this order of arrival."""
    return [Event(0, "call", minute * MINUTE_MS, {}, Offset(1, n)) for n, minute in enumerate(minutes)]


def calls_1h(record: bytes, minute: int) -> float | str | None:
    return LAYOUT.values(record, minute * MINUTE_MS)["calls_1h"]


def test_what_is_older_than_the_window_no_longer_counts() -> None:
    """A window is read at a time, so it empties without any event coming in."""
    record = LAYOUT.fold(None, calls(0, 30)).record
    assert [calls_1h(record, minute) for minute in (30, 60, 90)] == [2.0, 1.0, 0.0]


def test_events_move_time_and_not_their_arrival() -> None:
    """Two calls that arrive in the wrong order leave the same features as in the right one."""
    right, wrong = LAYOUT.fold(None, calls(0, 30)).record, LAYOUT.fold(None, calls(30, 0)).record
    assert LAYOUT.values(right, 30 * MINUTE_MS) == LAYOUT.values(wrong, 30 * MINUTE_MS)


def test_an_event_that_comes_too_late_is_counted_and_harms_nothing() -> None:
    """A call older than the whole window cannot be in it; the record tells how many there were."""
    result = LAYOUT.fold(None, calls(120, 0))
    assert calls_1h(result.record, 120) == 1.0
    assert LAYOUT.header(result.record).late == 1


def test_an_event_counts_once_however_often_it_is_delivered() -> None:
    """The record knows the last offset folded and ignores what is not beyond it, to the last byte."""
    record = LAYOUT.fold(None, calls(0, 30)).record
    assert record == LAYOUT.fold(record, calls(0, 30)).record


def test_the_window_moves_in_steps_of_a_tile() -> None:
    """A call leaves the hour with its whole tile: between 55 and 60 minutes after it came."""
    record = LAYOUT.fold(None, calls(4)).record
    assert [calls_1h(record, minute) for minute in (59, 60)] == [1.0, 0.0]
