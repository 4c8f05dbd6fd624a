"""What goes wrong in the store, in the words of the API."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import Overloaded, Unavailable
from engine.store.base import StoreError, StoreFull, StoreUnavailable

log = logging.getLogger(__name__)


@contextmanager
def store_errors() -> Iterator[None]:
    """Errors of the store in the words of the API."""
    try:
        yield
    except StoreFull as error:
        raise Overloaded(f"the store is out of memory or disk, nothing was recorded: {error}") from error
    except StoreUnavailable as error:
        raise Unavailable(f"the store did not answer; send it again with the same id: {error}") from error
    except StoreError as error:
        log.exception("the store refused a command")
        raise Unavailable(f"the store refused: {error}") from error
