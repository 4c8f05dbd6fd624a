"""All rules of a catalogue over the rows of a batch, each rule where it is cheapest."""

from collections.abc import Callable, Mapping, Sequence
from math import copysign, inf, nan
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.geo import distance_km
from engine.rulecode import Described, RuleCode, compile_code
from engine.rulecolumns import ROWS_MIN, Bools, over_columns, packed
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
        self._codes: dict[int, RuleCode] = dict(compiled)
        self._over: dict[str, tuple[Any, Bits | None]] = {}
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

    def evaluate_many(self, values: NDArray[np.float64]) -> list[Verdict]:
        """The same, for batches of hundreds: column by column. What is equal in two rows is one object."""
        rows = len(values)
        if rows < ROWS_MIN:
            return self.evaluate(values)
        columns = np.ascontiguousarray(values.T)
        look_twice = self._calculates or bool(np.isnan(columns[self._numbers]).any())
        nowhere = np.zeros(rows, np.bool_)
        held: list[Bools] = [nowhere] * (8 * self._bytes)
        failed: list[Bools] = [nowhere] * (8 * self._bytes)
        with np.errstate(all="ignore"):
            for at, code in self._codes.items():
                held[at] = self._true(code.holds, values, columns)
                if look_twice:
                    failed[at] = ~(held[at] | self._true(code.fails, values, columns))
        if self._rest_at:
            for at, yes, no in zip(self._rest_at, *self._by_library(values), strict=True):
                held[at], failed[at] = yes, no
        if not self._bytes:
            return [Verdict(b"", b"")] * rows
        known: dict[tuple[bytes, bytes], Verdict] = {}
        held_bytes, failed_bytes, size = packed(held), packed(failed), self._bytes
        found = []
        for start in range(0, rows * size, size):
            bits = held_bytes[start : start + size], failed_bytes[start : start + size]
            verdict = known.get(bits)
            if verdict is None:
                verdict = known[bits] = Verdict(bits[0], bits[1] if any(bits[1]) else b"")
            found.append(verdict)
        return found

    def _true(self, code: str, values: NDArray[np.float64], columns: NDArray[np.float64]) -> Bools:
        """(rows,) where an expression is true."""
        if code not in self._over:
            over = over_columns(code)
            self._over[code] = over, _function([(0, code)]) if over is None else None
        over, by_row = self._over[code]
        if by_row is not None:
            return np.array([by_row(row) for row in values.tolist()], np.bool_)
        return np.broadcast_to(np.asarray(over(columns), np.bool_), len(values))

    def _by_library(self, values: NDArray[np.float64]) -> tuple[list[Bools], list[Bools]]:
        """Which of the rules that need the library held and which failed, each (rows,) by rule."""
        verdicts = [
            self._rest.evaluate({name: column.variable(row[at]) for name, at, column in self._rest_used})
            for row in values.tolist()
        ]

        def bits(parts: Sequence[bytes]) -> list[Bools]:
            numbers = [int.from_bytes(part, "little") for part in parts]
            return [np.array([number >> at & 1 for number in numbers], np.bool_) for at in range(len(self._rest_at))]

        return bits([verdict.held for verdict in verdicts]), bits([verdict.failed for verdict in verdicts])

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
