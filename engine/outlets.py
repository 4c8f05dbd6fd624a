"""Where a server writes what is no customer's state: events on their way in, decisions and outcomes on their way out.

Without a broker of its own the store is the inlet, and there is no outlet: who reads along reads the store's logs. With
Kafka (engine.kafka.producer) both are topics.
"""

from collections.abc import Sequence
from typing import Protocol

from features import Offset


class Inlet(Protocol):
    """Where published events go."""

    @property
    def partitions(self) -> int:
        """Partitions of the event log."""
        ...

    async def append_events(self, events: Sequence[tuple[str, bytes]]) -> list[Offset]:
        """Append (customer, event bytes); all durable when it returns. Raises StoreError."""
        ...

    async def backlog(self) -> dict[int, int]:
        """Events of each partition that are not folded yet and that the log might drop; {} if it drops none."""
        ...

    async def dead_letters(self, letters: Sequence[tuple[bytes, str]]) -> None:
        """Keep (payload, reason) of refused input. Raises StoreError."""
        ...


class Outlet(Protocol):
    """Where decisions and outcomes are told to others, after the store has them and before the caller is answered."""

    @property
    def away(self) -> str:
        """Why nothing could be published a moment ago; "" if nothing is known to be in the way."""
        ...

    async def decisions(self, answers: Sequence[tuple[str, bytes]], wait_ms: int) -> None:
        """Publish (customer, DecideResponse bytes). Raises StoreUnavailable."""
        ...

    async def outcome(self, customer: str, report: bytes) -> None:
        """Publish a ReportRequest, as bytes. Raises StoreUnavailable."""
        ...
