"""CEL expressions over an event's attributes: what a feature adds up, and which events it takes.

An expression sees the attributes of the event by name (numbers as double, texts as string, flags as bool) and, of the
time of the event, `hour` (0 to 23) and `weekday` (0 is Monday). An attribute that the event does not have cannot be
evaluated: the feature then does not take the event.

Nothing that a file says can hang or crash a process: sizes are bounded and there is nothing to iterate over.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Final

import cel

Scalar = float | str | bool
Attributes = Mapping[str, Scalar]

EXPRESSION_BYTES_MAX: Final = 2_000
_NESTING_MAX: Final = 32
WORDLESS: Final = re.compile(
    r"//[^\n]*"
    r"|\b[bB]?[rR](?:'''.*?'''|\"\"\".*?\"\"\"|'[^'\n]*'|\"[^\"\n]*\")"
    r"|'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"",
    re.DOTALL,
)
"""Comments, raw strings, other strings: what stands in there is no word of the language."""
_ITERATES: Final = re.compile(r"\b(?:all|exists|exists_one|map|filter)\b")
"""CEL's loops. They are macros: a compiled program no longer names them. Nothing of ours can be called so."""
CLOCK_NAMES: Final = ("hour", "weekday")
"""What an expression sees of the time of the event; an attribute that is called so it does not see."""
_CLOCK: Final = re.compile(rf"\b(?:{'|'.join(CLOCK_NAMES)})\b")
_PARSED: Final = re.compile(r"Syntax error: ([^\n]*?)(?: expecting [^\n]*)?$", re.MULTILINE)
"""What CEL's parser stumbled over, and the list of all that could stand there."""


class ExpressionError(ValueError):
    """A text is no expression that may be used; the message says what was expected."""


def compile_cel(expression: str, bytes_max: int = EXPRESSION_BYTES_MAX, what: str = "an expression") -> cel.Program:
    """The compiled expression. Raises ExpressionError if it is none, too large, nested too deep, or iterates."""
    size = len(expression.encode())
    if size > bytes_max:
        raise ExpressionError(f"{what} of {size} bytes, at most {bytes_max} are allowed")
    wordless = WORDLESS.sub(" '' ", expression)
    if _nesting(wordless) > _NESTING_MAX:
        raise ExpressionError(f"{what} nested deeper than {_NESTING_MAX}")
    # Before anything is evaluated: five of these inside each other would keep a process busy for hours.
    if iterated := _ITERATES.search(wordless):
        raise ExpressionError(f"{iterated[0]} is not allowed: there is nothing to iterate over")
    try:
        return cel.compile(expression)
    except Exception as error:
        raise ExpressionError(f"not an expression of CEL: {cel_problem(error)}") from error


def cel_problem(error: Exception) -> str:
    """Why CEL takes a text for no expression: the first thing that its parser stumbled over.

    >>> try:
    ...     cel.compile("amount +")
    ... except ValueError as error:
    ...     print(cel_problem(error))
    it ends too early
    """
    found = _PARSED.search(str(error))
    if found is None:
        return first_line(error)
    return "it ends too early" if found[1] == "mismatched input '<EOF>'" else found[1].replace("'<EOF>'", "its end")


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error) or type(error).__name__).splitlines()[0]


def reads_clock(expression: str) -> bool:
    """Whether an expression may look at `hour` or `weekday`, so that what it gives depends on the time zone.

    >>> reads_clock("amount > 5.0 && hour < 6"), reads_clock("kind == 'hour'")
    (True, False)
    """
    return _CLOCK.search(WORDLESS.sub(" '' ", expression)) is not None


def evaluator(expression: str) -> Callable[[Attributes, int, int], Scalar | None]:
    """(attributes, hour, weekday) → the value; None where it cannot be evaluated. Raises ExpressionError."""
    program = compile_cel(expression)

    def evaluate(attributes: Attributes, hour: int, weekday: int) -> Scalar | None:
        try:
            value = program.execute({**attributes, "hour": hour, "weekday": weekday})
        except Exception:
            # CEL's evaluation errors share no base class. Whatever it was: the event is not taken.
            return None
        return value if isinstance(value, float | int | str | bool) else None

    return evaluate


def number(given: object) -> float:
    """A finite number, a boolean as 0 or 1; NaN for everything else.

    >>> number(2), number(True), number("2"), number(float("inf"))
    (2.0, 1.0, nan, nan)
    """
    if not isinstance(given, float | int):
        return math.nan
    try:
        value = float(given)
    except OverflowError:  # an integer beyond all floats
        return math.nan
    return value + 0.0 if math.isfinite(value) else math.nan  # -0.0 + 0.0 is 0.0: one zero only


def _nesting(expression: str) -> int:
    """How deep the parser may have to go: brackets, runs of unary signs, and conditionals, which nest rightwards."""
    depth = deepest = run = 0
    for character in expression:
        if character.isspace():
            continue
        run = run + 1 if character in "!-" else 0
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(0, depth - 1)
        deepest = max(deepest, depth + run)
    return deepest + expression.count("?")
