"""Eligibility in CEL: each distinct expression is compiled once and evaluated once a decision.

Rules see features and facts by their names: numbers as double, texts as string, flags as bool. A missing number is NaN:
a comparison with it cannot be evaluated. Nor can what divides by zero: CEL's infinity would be more than anything. A
missing text is "". A rule that cannot be evaluated does not hold, and the record keeps that it failed. Offers are bit
masks over the rules: one is eligible when all its bits are set, and the missing ones are the answer to "why not".

Goals: nothing that a file says can hang or crash a server. Bytes, words and nesting of a rule are bounded, there are no
lists to iterate over, patterns are written out and tried, and what takes long to evaluate is refused when it is read.
"""

import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Final, NamedTuple

import cel
import numpy as np
from numpy.typing import NDArray

from engine.divisions import refusing_zero
from engine.geo import distance_km
from engine.limits import RULE_BYTES_MAX, RULE_WORD_ENTRIES_MAX, RULES_MAX
from engine.rulecode import mismatched
from engine.rules_check import nearest
from engine.ruletrial import refuse_slow, try_patterns
from features import WORDLESS, ExpressionError, compile_cel, first_line

Variable = float | str | bool
_NUMBERS_TRIED: Final = ((float("nan"), 0.0), (0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (2.0, 0.625))
"""(value of the first number, by how much each further one is larger): of equal ones a difference is zero."""
_WORDS: Final = re.compile(r"\w+|''|[<>=!&|]{1,2}|\S")
_TYPES: Final = "compares or combines values of different types; a number is a double: write 1.0 for 1 in arithmetic"


class Compiled(NamedTuple):
    """A rule, ready to be evaluated."""

    program: cel.Program
    names: tuple[str, ...]
    """Features, facts and values of the engine's own that it asks for."""


Programs = MutableMapping[str, Compiled]


class RuleError(ValueError):
    """An expression cannot be a rule; the message says what was expected."""


class Verdict(NamedTuple):
    """Which rules held and which could not be evaluated, bit i of byte i // 8 for rule i."""

    held: bytes
    failed: bytes
    """Empty if none failed."""


class Rules:
    """The distinct rules of a configuration, in the order in which they first appear."""

    def __init__(
        self,
        expressions: Sequence[str],
        samples: Mapping[str, Variable],
        *,
        written: Mapping[str, str] | None = None,
        programs: Programs | None = None,
    ) -> None:
        """Compile. `samples` has a value of the right type for every name. Raises RuleError naming the expression.

        `written` leads from rules as they stand in the file to `expressions`, where they differ; `programs` are
        expressions compiled before, and are added to.
        """
        self.expressions: Final = tuple(dict.fromkeys(expressions))
        if len(self.expressions) > RULES_MAX:
            raise RuleError(f"{len(self.expressions)} distinct rules, at most {RULES_MAX} are allowed")
        compiled = {} if programs is None else programs
        for expression in self.expressions:
            if expression not in compiled:
                compiled[expression] = _compile(expression, samples)
        self._programs = [compiled[expression].program for expression in self.expressions]
        self._compiled = compiled
        self._written = written or {}
        used = {name for expression in self.expressions for name in compiled[expression].names}
        self.variables: Final = tuple(sorted(used))
        """Names that any rule refers to: only these need to be filled in."""
        self._samples = samples
        self._index = {expression: at for at, expression in enumerate(self.expressions)}
        self._context = _context()
        self._bytes = (len(self.expressions) + 7) // 8

    def only(self, expressions: Sequence[str]) -> "Rules":
        """These of the rules, compiled apart."""
        return Rules(expressions, self._samples, programs=self._compiled)

    def __len__(self) -> int:
        return len(self.expressions)

    def at(self, expression: str) -> int:
        """Place of a rule, as it is written or as it was compiled."""
        return self._index[self._written.get(expression, expression)]

    def mask(self, expressions: Sequence[str]) -> int:
        """Bits of these expressions."""
        return sum(1 << at for at in {self.at(expression) for expression in expressions})

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


def _context() -> cel.Context:
    context = cel.Context()
    context.add_function("distance_km", distance_km)
    return context


def _compile(expression: str, samples: Mapping[str, Variable]) -> Compiled:
    try:
        program = compile_cel(expression, RULE_BYTES_MAX, "a rule")
    except ExpressionError as error:
        raise RuleError(str(error)) from error
    wordless = WORDLESS.sub(" '' ", expression)
    words = len(_WORDS.findall(wordless))
    if words > RULE_WORD_ENTRIES_MAX:
        raise RuleError(f"a rule of {words} words and signs, at most {RULE_WORD_ENTRIES_MAX} are allowed")
    used = program.variables()
    unknown = [name for name in used if name not in samples]
    if unknown:
        there = sorted(name for name in samples if name[0].islower())
        meant = nearest(unknown[0], there)
        raise RuleError(f"no feature or fact is called {unknown[0]!r}{meant}; there are {', '.join(there) or 'none'}")
    try:
        try_patterns(expression, wordless)
    except ExpressionError as error:
        raise RuleError(str(error)) from error
    except Exception as error:
        raise RuleError(_explained(error)) from error
    if mismatched(expression, {name: _kind(samples[name]) for name in used}):
        raise RuleError(_TYPES)
    try:
        program = refusing_zero(expression, program)
    except ExpressionError as error:
        raise RuleError(str(error)) from error
    context = _context()
    errors: list[Exception] = []
    answers = 0
    for number, apart in _NUMBERS_TRIED:
        for flag in (False, True):
            context.update({name: _tried(samples[name], number + at * apart, flag) for at, name in enumerate(used)})
            try:
                answer = program.execute(context)
            except Exception as error:
                if isinstance(error, TypeError) and number == number:
                    # Nothing is missing, so it is the rule that is wrong, wherever it looks only now and then.
                    raise RuleError(_explained(error)) from error
                errors.append(error)
                continue
            answers += 1
            if not isinstance(answer, bool):
                raise RuleError(f"expected a rule that is true or false, this one gives {answer!r}")
    # A rule that fails for some customers is allowed: it does not hold for them. One that fails always is a mistake.
    if not answers:
        by_zero = [error for error in errors if isinstance(error, ZeroDivisionError)]
        raise RuleError(_explained((by_zero or errors)[0]))
    try:
        refuse_slow("a rule", program, context)
    except ExpressionError as error:
        raise RuleError(str(error)) from error
    return Compiled(program, tuple(used))


def _kind(sample: Variable) -> str:
    return "flag" if isinstance(sample, bool) else "number" if isinstance(sample, float) else "text"


def _tried(sample: Variable, number: float, flag: bool) -> Variable:
    if isinstance(sample, bool):
        return flag
    return number if isinstance(sample, float) else sample


def _explained(error: Exception) -> str:
    if isinstance(error, ZeroDivisionError):
        return "divides by zero, whatever the customer"
    if isinstance(error, TypeError):
        return _TYPES
    return f"cannot be evaluated: {first_line(error)}"
