"""All rules of a catalogue over the rows of a batch, each rule where it is cheapest."""

from collections.abc import Callable, Mapping, Sequence
from math import copysign, inf, nan
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.geo import distance_km
from engine.rulecode import Described, compile_code
from engine.rules import Rules, Variable, Verdict


class Column(Described, Protocol):
    """A column of the value matrix."""

    @property
    def name(self) -> str:
        """Its name in rules."""
        ...

    def variable(self, value: float) -> Variable:
        """What a rule sees of a value."""
        ...


Bits = Callable[[Sequence[float]], int]
"""From a row to the bits of the rules, rule i at bit i."""


class RuleBatch:
    """The rules on the rows of a value matrix."""

    def __init__(self, rules: Rules, columns: Sequence[Column]) -> None:
        placed: Mapping[str, tuple[int, Column]] = {column.name: (at, column) for at, column in enumerate(columns)}
        codes = [compile_code(expression, placed) for expression in rules.expressions]
        compiled = [(at, code) for at, code in enumerate(codes) if code is not None]
        self._holds = _function([(at, code.holds) for at, code in compiled])
        self._fails = _function([(at, code.fails) for at, code in compiled])
        self._compiled = sum(1 << at for at, _ in compiled)
        self._calculates = any(code.calculates for _, code in compiled)
        self._rest_at = [at for at, code in enumerate(codes) if code is None]
        self._rest = rules.only([rules.expressions[at] for at in self._rest_at])
        self._rest_used = [(name, *placed[name]) for name in self._rest.variables]
        self._numbers = [at for at, column in (placed[name] for name in rules.variables) if column.kind == "number"]
        self._bytes = (len(rules) + 7) // 8

    def evaluate(self, values: NDArray[np.float64]) -> list[Verdict]:
        """The verdict of each row of the value matrix (B, columns)."""
        doubtful: NDArray[np.bool_] = np.isnan(values[:, self._numbers])
        look_twice = self._calculates or bool(doubtful.any())
        return [self._verdict(row, look_twice) for row in values.tolist()]

    def _verdict(self, row: list[float], look_twice: bool) -> Verdict:
        held, failed = self._holds(row), 0
        if look_twice:
            failed = self._compiled & ~(held | self._fails(row))
        if self._rest_at:
            verdict = self._rest.evaluate({name: column.variable(row[at]) for name, at, column in self._rest_used})
            held |= _spread(verdict.held, self._rest_at)
            failed |= _spread(verdict.failed, self._rest_at)
        size = self._bytes
        return Verdict(held.to_bytes(size, "little"), failed.to_bytes(size, "little") if failed else b"")


def _spread(bits: bytes, places: Sequence[int]) -> int:
    """Bit k of `bits` at bit places[k]."""
    number = int.from_bytes(bits, "little")
    return sum(1 << place for k, place in enumerate(places) if number >> k & 1)


def _divide(a: float, b: float) -> float:
    """Division of doubles as CEL has it: by zero it gives an infinity, or NaN."""
    if b:
        return a / b
    return nan if a == 0.0 or a != a else copysign(inf, a) * copysign(1.0, b)


def _function(parts: Sequence[tuple[int, str]]) -> Bits:
    """One function over all expressions."""
    lines = ["def bits(v):", "    b = 0"]
    for at, code in parts:
        lines += [f"    if {code}:", f"        b |= {1 << at}"]
    lines.append("    return b")
    space: dict[str, Any] = {"divide": _divide, "distance_km": distance_km}
    exec("\n".join(lines), space)  # noqa: S102  # numbers and operators of engine.rulecode, no text of a rule
    function: Bits = space["bits"]
    return function
