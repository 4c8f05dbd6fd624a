"""How functions of this package are compiled: numba, for given types, when their module is loaded.

A lone decision reads one record, and that is small: a numpy call costs its microsecond before it has done anything, and
reading took thirty of them. Compiled, it is one call a batch, and the loops read as they are meant.

**When.** The types are given, so a function is compiled when its module is imported and never in the middle of a
read; arguments of other types are refused. The machine code is kept beside the sources (where those are read-only,
in the user's cache directory, or wherever NUMBA_CACHE_DIR says) and later processes load it. Where nothing can be
written at all, every process compiles for itself.

**One file.** What is kept is looked up by the age of the file of the outermost function. So all that it calls, and all
constants that it reads, stand in that same file: an edit elsewhere, of the options below too, would go unnoticed.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
from numba import types

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS: Final[dict[str, Any]] = {"nogil": True, "error_model": "numpy"}

INT: Final = types.int64


def _read(of: Any, dimensions: int) -> Any:
    """The type of a contiguous array that is only read; arrays that may be written pass too."""
    return types.Array(of, dimensions, "C", readonly=True)


BYTES: Final = _read(types.uint8, 1)
INTS: Final = _read(types.int64, 1)
INTS_2D: Final = _read(types.int64, 2)
UINTS: Final = _read(types.uint64, 1)
FLOATS: Final = _read(types.float64, 1)
FLOATS_2D: Final = _read(types.float64, 2)


def written(of: Any, dimensions: int) -> Any:
    """The type of a contiguous array that is written to."""
    return types.Array(of, dimensions, "C")


BYTES_WRITTEN: Final = written(types.uint8, 1)
INTS_2D_WRITTEN: Final = written(types.int64, 2)


def compiled(*arguments: Any) -> Callable[[F], F]:
    """Compile for arguments of these types and keep the machine code."""

    def decorate(function: F) -> F:
        try:
            made: F = numba.njit([arguments], cache=True, **_OPTIONS)(function)
        except RuntimeError:  # there is nowhere to keep it
            made = numba.njit([arguments], **_OPTIONS)(function)
        return made

    return decorate


def inlined() -> Callable[[F], F]:
    """Compile as a part of the compiled functions of the same file.

    For good: a call hands over every array as seven numbers, which costs more than most of these functions do.
    """

    def decorate(function: F) -> F:
        made: F = numba.njit(forceinline=True, **_OPTIONS)(function)
        return made

    return decorate
