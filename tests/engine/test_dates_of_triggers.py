"""Dates as numbers and their return: every day against a calendar, and numbers that are no dates."""

import math
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.dates import EPOCH, day_of, is_due, moments

UTC = moments("UTC")


def anniversary(day: date, year: int) -> date:
    try:
        return day.replace(year=year)
    except ValueError:
        return date(year, 2, 28)


@settings(max_examples=150, deadline=None)
@given(st.dates(date(1930, 1, 1), date(2020, 12, 31)), st.dates(date(2021, 1, 1), date(2030, 1, 1)),
       st.integers(0, 180), st.integers(0, 180))  # fmt: skip
def test_a_birthday_is_due_as_a_calendar_says(day: date, today: date, before: int, after: int) -> None:
    window = [today + timedelta(days) for days in range(-after, before + 1)]
    expected = any(at == anniversary(day, at.year) for at in window)
    numbers = day.toordinal() - EPOCH, today.toordinal() - EPOCH
    assert is_due(*numbers, "year", before, after) == expected


@settings(max_examples=150, deadline=None)
@given(st.dates(date(2020, 1, 1), date(2020, 12, 31)), st.dates(date(2021, 1, 1), date(2030, 1, 1)),
       st.integers(0, 13), st.integers(0, 13))  # fmt: skip
def test_a_day_of_the_month_is_due_as_a_calendar_says(day: date, today: date, before: int, after: int) -> None:
    window = [today + timedelta(days) for days in range(-after, before + 1)]
    last = [(at + timedelta(1)).day == 1 for at in window]
    expected = any(at.day == day.day or (ends and at.day < day.day) for at, ends in zip(window, last, strict=True))
    assert is_due(day.toordinal() - EPOCH, today.toordinal() - EPOCH, "month", before, after) == expected


@pytest.mark.parametrize("written", ["yyyymmdd", "days", "ms"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300, -1e300, 1e15, -1e14, 19801301.5e9])
def test_what_is_no_date_is_none(written: str, value: float) -> None:
    assert day_of(value, written, UTC) is None


@pytest.mark.parametrize("value", [-62_135_510_400_000.0, 253_402_300_799_999.0, 0.0])
def test_the_ends_of_the_calendar_are_dates_in_every_time_zone(value: float) -> None:
    for zone in ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"):
        moment = moments(zone)
        day = day_of(value, "ms", moment)
        assert day is not None
        for every in ("once", "year", "month"):
            assert isinstance(is_due(day, moment(253_402_300_799_999).today, every, 10, 10), bool)


def test_the_day_of_a_time_is_that_of_the_time_zone() -> None:
    evening = 1_767_222_000_000  # 2025-12-31 23:00 UTC
    assert moments("Europe/Prague")(evening).today == moments("UTC")(evening).today + 1
    assert day_of(evening, "ms", moments("Europe/Prague")) == date(2026, 1, 1).toordinal() - EPOCH
