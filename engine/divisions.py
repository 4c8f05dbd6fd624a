"""Divisions of doubles by zero: CEL's infinity would be more than anything, and what it is taken from not a number."""

import re
from collections.abc import Sequence
from typing import Final

import cel

from features import WORDLESS, ExpressionError, cel_problem

_DIVISOR: Final = "DIVISOR"
"""No name in a rule: none of ours but those of the engine begins with a capital."""
_SIGNS: Final = re.compile(
    rf"\s*(?:{WORDLESS.pattern}|0[xX]\w+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[uU]?|\w+|\S)", re.DOTALL
)
_NOT_ZERO: Final = re.compile(r"\s*[0.]*[1-9]")
"""A number that is written out."""
_OPEN: Final = "([{"
_CLOSE: Final = ")]}"


def refusing_zero(expression: str, program: cel.Program) -> cel.Program:
    """The program of an expression, or one that cannot be evaluated where it divides by zero.

    Raises ExpressionError if there is none.
    """
    if "/" not in WORDLESS.sub(" '' ", expression):
        return program
    try:
        return cel.compile(_rewritten(expression))
    except Exception as error:
        raise ExpressionError(f"not an expression of CEL: {cel_problem(error)}") from error


def _rewritten(expression: str) -> str:
    """An expression whose divisions of doubles by zero fail, as those of whole numbers do anyway.

    >>> _rewritten("spent / visits > 2.0")
    'spent / [ visits].map(DIVISOR, DIVISOR == 0.0 ? 1 / 0 : DIVISOR)[0] > 2.0'
    """
    signs = [sign for sign in _SIGNS.findall(expression) if not sign.lstrip().startswith("//")]
    text, _ = _with_divisors(signs, 0)
    return text


def _with_divisors(signs: Sequence[str], at: int) -> tuple[str, int]:
    """(what stands up to the bracket that closes, or the end, rewritten; place behind)."""
    text = ""
    while at < len(signs) and signs[at].strip() not in _CLOSE:
        if signs[at].strip() != "/":
            part, at = _group(signs, at)
            text += part
            continue
        divisor, behind = _divisor(signs, at + 1)
        checked = f" [{divisor}].map({_DIVISOR}, {_DIVISOR} == 0.0 ? 1 / 0 : {_DIVISOR})[0]"
        checked = divisor if _NOT_ZERO.match(divisor) else checked
        text, at = f"{text}{signs[at]}{checked}", behind
    return text, at


def _divisor(signs: Sequence[str], at: int) -> tuple[str, int]:
    """(what a division divides by, place behind): signs, a value or brackets, and what is asked of it."""
    text = ""
    while signs[at].strip() in "-!":
        text, at = text + signs[at], at + 1
    part, at = _group(signs, at)
    text += part
    while at < len(signs) and (sign := signs[at].strip()) in ".([{":
        part, at = (sign + signs[at + 1], at + 2) if sign == "." else _group(signs, at)
        text += part
    return text, at


def _group(signs: Sequence[str], at: int) -> tuple[str, int]:
    """(one sign or what stands in brackets, place behind)."""
    if signs[at].strip() not in _OPEN:
        return signs[at], at + 1
    inner, end = _with_divisors(signs, at + 1)
    return signs[at] + inner + signs[end], end + 1
