"""How values of tokens are written in a language: numbers, amounts of money, dates. Pure, by Unicode's CLDR (babel)."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime
from babel.numbers import format_currency, format_decimal, format_percent, list_currencies

FORMATS: Final = ("number", "whole", "money", "percent", "date", "time")
"""Beside these, the code of a currency, such as EUR."""
_CURRENCIES: Final = frozenset(list_currencies())
_VALUES_KEPT_MAX: Final = 4_096


def is_currency(code: str) -> bool:
    """Whether this is the code of a currency, as in ISO 4217.

    >>> is_currency("EUR"), is_currency("euro")
    (True, False)
    """
    return code in _CURRENCIES


@lru_cache(maxsize=256)
def locale_of(language: str) -> Locale | None:
    """The locale of a BCP 47 language; None if nothing is known of it.

    >>> locale_of("sr-Latn"), locale_of("klingon")
    (Locale('sr', script='Latn'), None)
    """
    try:
        return Locale.parse(language, sep="-")
    except (UnknownLocaleError, ValueError):
        return None


@lru_cache(maxsize=_VALUES_KEPT_MAX)
def written(value: float, form: str, language: str, timezone: str) -> str | None:
    """A number in words of a language; None if it cannot be written so, such as a date in the year 99999.

    `form` is one of FORMATS but "money", or the code of a currency.

    >>> [written(value, form, "en", "UTC") for value, form in ((1234.5, "number"), (5000.0, "EUR"), (0.045, "percent"))]
    ['1,234.5', '€5,000.00', '4.5%']
    """
    locale = locale_of(language)
    assert locale is not None, "checked when the configuration is read"
    try:
        return _WRITERS.get(form, _currency)(value, form, locale, timezone)
    except (ValueError, OverflowError, ArithmeticError, OSError):
        return None


def _currency(value: float, form: str, locale: Locale, _: str) -> str:
    return format_currency(value, form, locale=locale)


def moment(value: float, timezone: str) -> datetime:
    """Milliseconds as the clocks of a time zone have them. Raises ValueError, OverflowError or OSError beyond them."""
    return datetime.fromtimestamp(value / 1e3, UTC).astimezone(ZoneInfo(timezone))


_WRITERS: Final[dict[str, Callable[[float, str, Locale, str], str]]] = {
    "number": lambda value, _, locale, __: format_decimal(value, locale=locale),
    "whole": lambda value, _, locale, __: format_decimal(round(value), locale=locale),
    "percent": lambda value, _, locale, __: format_percent(value, locale=locale, decimal_quantization=False),
    "date": lambda value, _, locale, zone: format_date(moment(value, zone), "long", locale=locale),
    "time": lambda value, _, locale, zone: format_datetime(moment(value, zone), "short", locale=locale),
}
