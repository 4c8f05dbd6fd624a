"""What may happen thousands of times a second, told at most once a second: the first at once, then how many since."""

import asyncio
from collections.abc import Callable
from typing import Final

SELDOM_S: Final = 1.0


class Seldom:
    """Counts by reason and tells of them. `later` calls back after so many seconds; by default the running loop's."""

    def __init__(
        self, tell: Callable[[int, str], None], later: Callable[[float, Callable[[], None]], object] | None = None
    ) -> None:
        """`tell` gets how many there were since it was last called for this reason, and what was said of the newest."""
        self._tell = tell
        self._later = later or (lambda after_s, call: asyncio.get_running_loop().call_later(after_s, call))
        self._since: dict[int, tuple[int, str]] = {}
        """Those that were not told yet, of each reason that was told less than SELDOM_S ago."""

    def add(self, reason: int, count: int, what: str) -> None:
        """Take note of `count` more."""
        if reason in self._since:
            self._since[reason] = self._since[reason][0] + count, what
        else:
            self._now(reason, count, what)

    def _now(self, reason: int, count: int, what: str) -> None:
        self._tell(count, what)
        self._since[reason] = 0, ""
        self._later(SELDOM_S, lambda: self._again(reason))

    def _again(self, reason: int) -> None:
        count, what = self._since.pop(reason)
        if count:
            self._now(reason, count, what)
