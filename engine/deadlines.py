"""Deadlines of callers: a look shortly before each, without a timer for every call.

Deadlines are gathered in steps of DEADLINE_TICK_MS; a step has one timer. Who was answered by then stays in its step
until its time comes, which costs nothing but a reference.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from engine.limits import DEADLINE_MARGIN_MS, DEADLINE_TICK_MS, DEADLINE_WATCHED_MS_MAX

_MARGIN_S: Final = DEADLINE_MARGIN_MS / 1e3
_TICK_S: Final = DEADLINE_TICK_MS / 1e3
_WATCHED_S_MAX: Final = DEADLINE_WATCHED_MS_MAX / 1e3


class Deadlines:
    """Calls `when_due` with whatever was added, DEADLINE_MARGIN_MS before its deadline or halfway to a nearer one."""

    def __init__(self, when_due: Callable[[Sequence[Any]], None]) -> None:
        self._when_due = when_due
        self._steps: dict[int, list[Any]] = {}

    def add(self, within_s: float, item: Any) -> None:
        """Watch a deadline that is so far away; one beyond DEADLINE_WATCHED_MS_MAX is left alone."""
        if within_s > _WATCHED_S_MAX:
            return
        loop = asyncio.get_running_loop()
        step = int((loop.time() + max(within_s - _MARGIN_S, within_s / 2)) / _TICK_S)
        there = self._steps.get(step)
        if there is not None:
            there.append(item)
            return
        self._steps[step] = [item]
        loop.call_at(step * _TICK_S, self._due, step)

    def _due(self, step: int) -> None:
        self._when_due(self._steps.pop(step))
