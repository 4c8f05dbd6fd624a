"""Dates as numbers, and how far away they are. Pure."""

import calendar
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from engine.limits import TIME_MS_MAX

EPOCH: Final = date(1970, 1, 1).toordinal()
_FIRST_MS: Final = -62_135_510_400_000
"""The second day of the year 1: nothing earlier is a date, wherever it is read."""
_QUARTER_MS: Final = 15 * 60_000
"""No time zone differs from another by less."""


class Moment(NamedTuple):
    """A time as a calendar on the wall has it."""

    hour: int
    weekday: int
    """0 is Monday."""
    month: int
    day: int
    today: int
    """Days since 1970-01-01."""


def moments(timezone: str) -> Callable[[int], Moment]:
    """From milliseconds to the local moment. The time zone must be known.

    >>> moments("Europe/Prague")(1_750_000_000_000)
    Moment(hour=17, weekday=6, month=6, day=15, today=20254)
    """
    zone = ZoneInfo(timezone)

    @lru_cache(maxsize=4_096)
    def of_quarter(quarter: int) -> Moment:
        try:
            local = datetime.fromtimestamp(quarter * (_QUARTER_MS // 1_000), UTC).astimezone(zone)
        except (OverflowError, ValueError, OSError):  # the last hours of the calendar, in the east
            local = datetime(9999, 12, 31, 23, tzinfo=UTC)
        return Moment(local.hour, local.weekday(), local.month, local.day, local.toordinal() - EPOCH)

    return lambda time_ms: of_quarter(time_ms // _QUARTER_MS)


def day_of(value: float, written: str, moment: Callable[[int], Moment]) -> int | None:
    """Days since 1970-01-01 of a date that is written as yyyymmdd, days or ms; None if it is no date.

    >>> day_of(19700131.0, "yyyymmdd", moments("UTC")), day_of(19701301.0, "yyyymmdd", moments("UTC"))
    (30, None)
    """
    if not _FIRST_MS <= value <= TIME_MS_MAX:
        return None
    number = int(value)
    try:
        if written == "yyyymmdd":
            return date(number // 10_000, number // 100 % 100, number % 100).toordinal() - EPOCH
        if written == "ms":
            return moment(number).today
        return date.fromordinal(number + EPOCH).toordinal() - EPOCH
    except (ValueError, OverflowError):
        return None


def is_due(day: int, today: int, every: str, before: int, after: int) -> bool:
    """Whether today is from `before` days before to `after` days after a day, or its return every year or month.

    A day that a month does not have is its last one: 29 February is the 28th in other years.

    >>> birthday, today = (date(*day).toordinal() - EPOCH for day in ((1980, 2, 29), (2026, 2, 20)))
    >>> [is_due(birthday, today, every, before, 0) for every, before in (("year", 8), ("year", 7), ("once", 8))]
    [True, False, False]
    """
    if every == "once":
        return -after <= day - today <= before
    try:
        ends = {date.fromordinal(today + EPOCH + ahead) for ahead in (-after, 0, before)}
    except (ValueError, OverflowError):  # the last days of the calendar
        return False
    first = date.fromordinal(day + EPOCH)
    # The return that counts is within [today − after, today + before], which is shorter than a period.
    for at in ends:
        month = first.month if every == "year" else at.month
        last = calendar.monthrange(at.year, month)[1]
        again = date(at.year, month, min(first.day, last))
        if -timedelta(after) <= again - date.fromordinal(today + EPOCH) <= timedelta(before):
            return True
    return False
