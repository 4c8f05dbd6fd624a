"""Rules over whole columns of a batch: what engine.rulecode makes of them for a row, as array operations.

A row of forty rules takes 2 µs as one compiled function. Over a thousand rows at once a rule is a handful of array
operations, and the same forty take a quarter of that a row. Below some 150 rows the function is faster.

The expressions are those of engine.rulecode, so what a comparison with NaN gives, and what a division by zero, is the
same: both are as IEEE 754 has them.
"""

import ast
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Columns = Callable[[Sequence[NDArray[np.float64]]], Any]
"""From the columns of a value matrix to which rows an expression is true for; a constant for one that sees none."""

ROWS_MIN: Final = 150
"""From so many rows on it is worth while."""


def over_columns(code: str) -> Columns | None:
    """An expression of engine.rulecode over columns; None if it calls what only takes numbers.

    >>> import numpy as np
    >>> over_columns("((v[0]>=18.0) and (v[1]!=1.0))")(np.array([[20.0, 20.0, np.nan], [1.0, np.nan, 2.0]])).tolist()
    [False, True, False]
    """
    tree = ast.parse(code, mode="eval")
    if any(isinstance(node, ast.Call) and getattr(node.func, "id", "") != "divide" for node in ast.walk(tree)):
        return None
    function = ast.fix_missing_locations(ast.Expression(ast.Lambda(_ARGUMENTS, _Bitwise().visit(tree).body)))
    # Numbers and operators of engine.rulecode, no text of a rule.
    made: Columns = eval(compile(function, "<rule>", "eval"), {"divide": np.divide})  # noqa: S307
    return made


def packed(found: Sequence[Bools]) -> bytes:
    """The bits of rules row by row: rule i is bit i % 8 of byte i // 8 of its row."""
    return np.ascontiguousarray(np.packbits(np.array(found), axis=0, bitorder="little").T).tobytes()


_ARGUMENTS: Final = ast.arguments(posonlyargs=[], args=[ast.arg("v")], kwonlyargs=[], kw_defaults=[], defaults=[])


class _Bitwise(ast.NodeTransformer):
    """`and` and `or` become & and |: every operand of them is a comparison, or made of comparisons."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        self.generic_visit(node)
        operator: ast.operator = ast.BitAnd() if isinstance(node.op, ast.And) else ast.BitOr()
        whole, *others = node.values
        for other in others:
            whole = ast.BinOp(whole, operator, other)
        return whole
