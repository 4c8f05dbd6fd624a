"""All rules of a catalogue over the rows of a batch, each rule where it is cheapest."""

from collections.abc import Callable, Mapping, Sequence
from operator import truediv
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.geo import distance_km
from engine.rulecode import Described, RuleCode, compile_code
from engine.ruleprogram import Program, runs
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


OnRow = Callable[[Sequence[float]], bool]
"""From a row to whether an expression is true."""


class RuleBatch:
    """The rules on the rows of a value matrix: most as a program, some as Python functions, the rest by the library."""

    def __init__(self, rules: Rules, columns: Sequence[Column]) -> None:
        placed: Mapping[str, tuple[int, Column]] = {column.name: (at, column) for at, column in enumerate(columns)}
        codes = [compile_code(expression, placed) for expression in rules.expressions]
        run: list[tuple[int, RuleCode]] = []
        called: list[tuple[int, RuleCode]] = []
        for at, code in enumerate(codes):
            if code is not None:
                (run if runs(code) else called).append((at, code))
        numbers = [at for at, column in (placed[name] for name in rules.variables) if column.kind == "number"]
        self._program = Program.of(run, len(codes), numbers)
        self._called = [(at, *_on_row(code)) for at, code in called]
        self._rest_at = [at for at, code in enumerate(codes) if code is None]
        self._rest = rules.only([rules.expressions[at] for at in self._rest_at])
        self._rest_used = [(name, *placed[name]) for name in self._rest.variables]

    def evaluate(self, values: NDArray[np.float64]) -> list[Verdict]:
        """The verdict of each row of the value matrix (B, columns). What is equal in two rows is one object."""
        held, failed = self._program.run(values)
        if self._called or self._rest_at:
            failed = failed if len(failed) else np.zeros_like(held)
            for at, row in enumerate(values.tolist()):
                self._add(row, held[at], failed[at])
        size = held.shape[1]
        held_bytes, failed_bytes = held.tobytes(), failed.tobytes()
        known: dict[tuple[bytes, bytes], Verdict] = {}
        verdicts = []
        for row in range(len(values)):
            start, end = row * size, row * size + size
            bits = held_bytes[start:end], failed_bytes[start:end]
            verdict = known.get(bits)
            if verdict is None:
                verdict = known[bits] = Verdict(bits[0], bits[1] if any(bits[1]) else b"")
            verdicts.append(verdict)
        return verdicts

    def _add(self, row: list[float], held: NDArray[np.uint8], failed: NDArray[np.uint8]) -> None:
        """What is no part of the program, for one row."""
        for at, holds, fails in self._called:
            yes = holds(row)
            held[at // 8] |= yes << at % 8
            failed[at // 8] |= (not (yes or fails(row))) << at % 8
        if self._rest_at:
            verdict = self._rest.evaluate({name: column.variable(row[at]) for name, at, column in self._rest_used})
            size = len(held)
            held |= np.frombuffer(_spread(verdict.held, self._rest_at).to_bytes(size, "little"), np.uint8)
            failed |= np.frombuffer(_spread(verdict.failed, self._rest_at).to_bytes(size, "little"), np.uint8)


def _spread(bits: bytes, places: Sequence[int]) -> int:
    """Bit k of `bits` at bit places[k]."""
    number = int.from_bytes(bits, "little")
    return sum(1 << place for k, place in enumerate(places) if number >> k & 1)


def _on_row(code: RuleCode) -> tuple[OnRow, OnRow]:
    """Where a rule holds and where it does not, as functions of a row."""
    # A condition before it keeps `divide` from zero.
    space: dict[str, Any] = {"divide": truediv, "distance_km": distance_km}
    # Numbers and operators of engine.rulecode, no text of a rule.
    holds, fails = (eval(f"lambda v: {each}", space) for each in (code.holds, code.fails))  # noqa: S307
    return holds, fails
