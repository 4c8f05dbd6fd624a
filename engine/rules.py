"""Eligibility in CEL: each distinct expression is compiled once and evaluated once a decision.

Rules see features and facts by their names: numbers as double, texts as string, flags as bool. A missing number is NaN:
a comparison with it cannot be evaluated. A missing text is "". A rule that cannot be evaluated does not hold, and the
record keeps that it failed. Offers are bit masks over the rules: one is eligible when all its bits are set, and the
missing ones are the answer to "why not".

Goals: nothing that a file says can hang or crash a server: sizes are bounded and there are no lists to iterate over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cel
import numpy as np
from numpy.typing import NDArray

from engine.limits import RULE_BYTES_MAX, RULES_MAX
from features import ExpressionError, compile_cel, first_line

Variable = float | str | bool
_NUMBERS_TRIED: Final = (float("nan"), 0.0, 1.0, -1.0)


class RuleError(ValueError):
    """An expression cannot be a rule; the message says what was expected."""


@dataclass(frozen=True)
class Verdict:
    """Which rules held and which could not be evaluated, bit i of byte i // 8 for rule i."""

    held: bytes
    failed: bytes
    """Empty if none failed."""


class Rules:
    """The distinct rules of a configuration, in the order in which they first appear."""

    def __init__(self, expressions: Sequence[str], samples: Mapping[str, Variable]) -> None:
        """Compile. `samples` has a value of the right type for every name. Raises RuleError naming the expression."""
        self.expressions: Final = tuple(dict.fromkeys(expressions))
        if len(self.expressions) > RULES_MAX:
            raise RuleError(f"{len(self.expressions)} distinct rules, at most {RULES_MAX} are allowed")
        self._programs = [_compile(expression, samples) for expression in self.expressions]
        used = {name for program in self._programs for name in program.variables()}
        self.variables: Final = tuple(sorted(used))
        """Names that any rule refers to: only these need to be filled in."""
        self._samples = samples
        self._index = {expression: at for at, expression in enumerate(self.expressions)}
        self._context = cel.Context()
        self._bytes = (len(self.expressions) + 7) // 8

    def only(self, expressions: Sequence[str]) -> "Rules":
        """These of the rules, compiled apart."""
        return Rules(expressions, self._samples)

    def __len__(self) -> int:
        return len(self.expressions)

    def mask(self, expressions: Sequence[str]) -> int:
        """Bits of these expressions."""
        return sum(1 << self._index[expression] for expression in set(expressions))

    def evaluate(self, variables: Mapping[str, Variable]) -> Verdict:
        """Evaluate every rule once. `variables` has each name of `self.variables`."""
        # One prepared context and 40 programs cost 16 µs; a dict converted for each program would cost 400.
        context = self._context
        context.update(dict(variables))
        held = failed = 0
        bit = 1
        for program in self._programs:
            try:
                if program.execute(context) is True:
                    held |= bit
            except Exception:
                # CEL's evaluation errors share no base class. Whatever it was, the rule did not hold, and it is kept.
                failed |= bit
            bit <<= 1
        size = self._bytes
        return Verdict(held.to_bytes(size, "little"), failed.to_bytes(size, "little") if failed else b"")

    def unmet(self, held: bytes, mask: int) -> list[int]:
        """Indices of the rules of `mask` that did not hold."""
        missing = mask & ~int.from_bytes(held, "little")
        unmet = []
        while missing:
            lowest = missing & -missing
            unmet.append(lowest.bit_length() - 1)
            missing ^= lowest
        return unmet


def words_of(masks: Sequence[int], rules: int) -> NDArray[np.uint64]:
    """(offers, words) the rules of each offer as 64-bit words, for engine.arbitration."""
    size = 8 * max(1, (rules + 63) // 64)
    joined = b"".join(mask.to_bytes(size, "little") for mask in masks)
    return np.frombuffer(joined, dtype=np.uint64).reshape(len(masks), -1)


def _compile(expression: str, samples: Mapping[str, Variable]) -> cel.Program:
    try:
        program = compile_cel(expression, RULE_BYTES_MAX, "a rule")
    except ExpressionError as error:
        raise RuleError(str(error)) from error
    unknown = [name for name in program.variables() if name not in samples]
    if unknown:
        raise RuleError(
            f"no feature or fact is called {unknown[0]!r}; there are {', '.join(sorted(samples)) or 'none'}"
        )
    errors: list[Exception] = []
    answers = 0
    for number in _NUMBERS_TRIED:
        variables = {
            name: number if isinstance(value, float) else value
            for name, value in samples.items()
            if name in program.variables()
        }
        try:
            answer = program.execute(variables)
        except Exception as error:
            errors.append(error)
            continue
        answers += 1
        if not isinstance(answer, bool):
            raise RuleError(f"expected a rule that is true or false, this one gives {answer!r}")
    # A rule that fails for some customers is allowed: it does not hold for them. One that fails always is a mistake.
    if not answers:
        raise RuleError(_explained(errors[0]))
    return program


def _explained(error: Exception) -> str:
    if isinstance(error, ZeroDivisionError):
        return "divides by zero, whatever the customer"
    if isinstance(error, TypeError):
        return "compares or combines values of different types; a number is a double: write 1.0 for 1 in arithmetic"
    return f"cannot be evaluated: {first_line(error)}"
