"""Waiting for something to become true, instead of sleeping for long enough."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout_s: float, description: str) -> T:
    """Return the first true value of `predicate`, asked every 10 ms. Fails with `description` after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s} s in vain for: {description}")
        time.sleep(0.01)
    return value
