"""How functions of this package are compiled: numba, for given types, when their module is loaded.

A lone decision is one row, and a row is small: a numpy call costs its microsecond before it has done anything, and
choosing a slate took a hundred of them. Compiled, it is one call a batch, and the loops read as they are meant.

**When.** The types are given, so a function is compiled when its module is imported and never in the middle of a
decision; arguments of other types are refused. The machine code is kept beside the sources (where those are read-only,
in the user's cache directory, or wherever NUMBA_CACHE_DIR says) and later processes load it. Where nothing can be
written at all, every process compiles for itself.

**One file.** What is kept is looked up by the age of the file of the outermost function. So all that it calls, and all
constants that it reads, stand in that same file: an edit elsewhere, of the options below too, would go unnoticed.

**Arithmetic.** Nothing is assumed about NaN and infinity, and only what `reorders` may add in another order than
written, which lets long sums run in vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
from numba import types

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy"}
_REORDERS: Final = {"reassoc", "contract"}

INT: Final = types.int64
FLOAT: Final = types.float64


def read_only(of: Any, dimensions: int) -> Any:
    """Type of a contiguous array that is only read; arrays that may be written pass too."""
    return types.Array(of, dimensions, "C", readonly=True)


FLOATS_1D: Final = read_only(types.float64, 1)
FLOATS_2D: Final = read_only(types.float64, 2)
FLOATS32_2D: Final = read_only(types.float32, 2)
BOOLS_2D: Final = read_only(types.boolean, 2)
INTS: Final = read_only(types.int64, 1)
INTS_2D: Final = read_only(types.int64, 2)
INTS32: Final = read_only(types.int32, 1)
INTS32_2D: Final = read_only(types.int32, 2)
BYTES: Final = read_only(types.int8, 1)
BYTES_2D: Final = read_only(types.int8, 2)
SEEDS: Final = read_only(types.uint64, 1)


def compiled(*arguments: Any, reorders: bool = False) -> Callable[[F], F]:
    """Compile for arguments of these types and keep the machine code."""

    def decorate(function: F) -> F:
        options = {**_OPTIONS, "fastmath": _REORDERS if reorders else False}
        try:
            made: F = numba.njit([arguments], cache=True, **options)(function)
        except RuntimeError:  # there is nowhere to keep it
            made = numba.njit([arguments], **options)(function)
        return made

    return decorate


def inlined(*, reorders: bool = False) -> Callable[[F], F]:
    """Compile as a part of the compiled functions of the same file."""

    def decorate(function: F) -> F:
        made: F = numba.njit(**_OPTIONS, fastmath=_REORDERS if reorders else False)(function)
        return made

    return decorate
