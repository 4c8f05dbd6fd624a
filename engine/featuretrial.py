"""Expressions and conditions of features, tried on values of the declared types when a configuration is read.

CEL finds a wrong type only when it comes by, and a feature then does not take the event: it would stay as it is for
ever, and nobody would hear of it.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import product
from typing import Final

import cel

from engine.config_schema import Attribute, Feature
from engine.divisions import refusing_zero
from engine.groups import Location
from engine.rulecode import mismatched
from engine.rules_check import nearest
from features import WORDLESS, ExpressionError, first_line

_NUMBERS: Final = ((1.0, 0.0), (0.0, 0.0), (-1.0, 0.0), (2.5, 0.618))
"""(value of the first number, by how much each further one is larger): of equal ones a difference is zero."""
_SHARES: Final = ((0.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.31, 0.618))
"""The same of those with a range, in shares of it from its low end; what is beyond 1 goes on from 0."""
_TEXTS_TRIED: Final = 8
_TIMES: Final = ((9, 0), (23, 6))
"""(hour, weekday)"""
_TYPES: Final = {"number": float, "text": str, "flag": bool}
_INTEGER: Final = re.compile(r"(?<![\w.])\d+(?![\w.])")


def misgiven(expression: str, program: cel.Program, attributes: Mapping[str, Attribute], kinds: tuple[str, ...]) -> str:
    """Why an expression cannot be evaluated to one of `kinds` (number, text, flag); "" if it can.

    All of its names are attributes, `hour` or `weekday`.
    """
    used = program.variables()
    asked = {name: attributes[name] for name in used if name in attributes}
    if mismatched(expression, {name: str(attribute.type) for name, attribute in asked.items()}):
        return _different(expression, used)
    try:
        tried = refusing_zero(expression, program)
    except ExpressionError as error:
        return str(error)
    longest = max((len(attribute.values) for attribute in asked.values()), default=0)
    failed: list[Exception] = []
    answers = 0
    for at, flag in product(range(max(1, min(longest, _TEXTS_TRIED))), (False, True)):
        hour, weekday = _TIMES[flag]
        errors: list[Exception] = []
        for trial in range(len(_NUMBERS)):
            values = {name: _tried(one, place, trial, at, flag) for place, (name, one) in enumerate(asked.items())}
            try:
                answer = tried.execute({"hour": hour, "weekday": weekday, **values})
            except Exception as error:
                # CEL's evaluation errors share no base class. For some events it may fail: they are not taken.
                errors.append(error)
                continue
            answers += 1
            kind = "flag" if isinstance(answer, bool) else "text" if isinstance(answer, str) else "number"
            if kind not in kinds or not isinstance(answer, bool | str | float | int):
                return f"expected an expression that gives a {kinds[0]}, this one gives {answer!r}"
        # What overflows for some numbers is no number, and CEL compares that as little as a text.
        if all(isinstance(error, TypeError) for error in errors) and len(errors) == len(_NUMBERS):
            return _different(expression, used)
        failed += errors
    if answers or not failed:
        return ""
    if any(isinstance(error, ZeroDivisionError) for error in failed):
        return "divides by zero, whatever the event"
    return f"cannot be evaluated: {first_line(failed[0])}"


def misasked(feature: Feature, attributes: Mapping[str, Attribute]) -> Iterable[tuple[Location, str]]:
    """Values that a feature asks for and that its event cannot have, as (place, what was expected)."""
    pairs = feature.where if isinstance(feature.where, dict) else {}
    asked: list[tuple[Location, str, float | str | bool]] = [(("where", name), name, pairs[name]) for name in pairs]
    if feature.by is not None:
        name = feature.by.attribute
        asked += [(("by", "values", at), name, value) for at, value in enumerate(feature.by.values)]
    for place, name, value in asked:
        attribute = attributes.get(name)
        if attribute is None:
            continue
        if not isinstance(value, _TYPES[attribute.type]):
            yield place, f"{name!r} is a {attribute.type}, which never equals {value!r}"
        elif attribute.values and value not in attribute.values:
            there = f"{', '.join(attribute.values)}{nearest(str(value), attribute.values)}"
            yield place, f"expected one of the declared values of {name!r}, got {value!r}; there are {there}"


def _tried(attribute: Attribute, place: int, trial: int, text: int, flag: bool) -> float | str | bool:
    """A value that an attribute may have; `place` is its own among those that are asked for."""
    if attribute.type == "flag":
        return flag
    if attribute.type == "text":
        texts = attribute.values or ("a",)
        return texts[text % len(texts)]
    if attribute.range is None:
        first, apart = _NUMBERS[trial]
        return first + place * apart
    low, high = attribute.range
    first, apart = _SHARES[trial]
    share = first + place * apart
    share = share if share <= 1.0 else share % 1.0
    return low * (1.0 - share) + high * share


def _different(expression: str, used: Iterable[str]) -> str:
    wordless = WORDLESS.sub(" ", expression)
    advice = ["2.0 for 2"] if _INTEGER.search(wordless) else []
    advice += [f"double({name}) for {name}" for name in sorted({"hour", "weekday"}.intersection(used))]
    advice += ["int(x) % 2 for x % 2.0"] if "%" in wordless else []
    written = f"; a number is a double: write {', '.join(advice)}" if advice else ""
    return f"compares or combines values of different types{written}"
