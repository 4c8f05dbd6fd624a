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
from engine.groups import Location
from engine.rulecode import mismatched
from engine.rules_check import nearest
from features import WORDLESS, first_line

_NUMBERS: Final = (1.0, 0.0, -1.0, 2.5)
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
    longest = max((len(attribute.values) for attribute in asked.values()), default=0)
    failed: Exception | None = None
    answers = 0
    for number, at, flag in product(_NUMBERS, range(max(1, min(longest, _TEXTS_TRIED))), (False, True)):
        given: dict[str, float | str | bool] = dict(zip(("hour", "weekday"), _TIMES[flag], strict=True))
        for name, attribute in asked.items():
            texts = attribute.values or ("a",)
            tried: dict[str, float | str | bool] = {"number": number, "text": texts[at % len(texts)], "flag": flag}
            given[name] = tried[attribute.type]
        try:
            answer = program.execute(given)
        except TypeError:
            return _different(expression, used)
        except Exception as error:
            # CEL's evaluation errors share no base class. For some events it may fail: they are not taken.
            failed = failed or error
            continue
        answers += 1
        kind = "flag" if isinstance(answer, bool) else "text" if isinstance(answer, str) else "number"
        if kind not in kinds or not isinstance(answer, bool | str | float | int):
            return f"expected an expression that gives a {kinds[0]}, this one gives {answer!r}"
    return "" if answers or failed is None else f"cannot be evaluated: {first_line(failed)}"


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


def _different(expression: str, used: Iterable[str]) -> str:
    wordless = WORDLESS.sub(" ", expression)
    advice = ["2.0 for 2"] if _INTEGER.search(wordless) else []
    advice += [f"double({name}) for {name}" for name in sorted({"hour", "weekday"}.intersection(used))]
    advice += ["int(x) % 2 for x % 2.0"] if "%" in wordless else []
    written = f"; a number is a double: write {', '.join(advice)}" if advice else ""
    return f"compares or combines values of different types{written}"
