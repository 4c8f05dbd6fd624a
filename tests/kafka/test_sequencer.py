"""Order and completeness, whatever the group delivers: no broker is needed to show it."""

from collections.abc import Sequence

import pytest

from engine.kafka.sequence import Place, Record, Sequencer

T = ("t", 0)


def record(offset: int, place: Place = T) -> Record:
    return Record(*place, offset, 0.0, None, b"%d" % offset)


class Log:
    """Partitions as they are, of which the group has folded a part."""

    def __init__(self, offsets: Sequence[int], committed: int = 0) -> None:
        self.offsets = offsets
        self.committed = committed
        self.reads: list[tuple[int, int]] = []

    async def start_of(self, _: Place) -> int:
        return self.committed

    async def between(self, place: Place, start: int, end: int, count: int) -> Sequence[Record]:
        self.reads.append((start, end))
        return [record(at, place) for at in self.offsets if start <= at < end][:count]


async def taken(sequencer: Sequencer, offsets: Sequence[int]) -> list[list[int]]:
    return [[r.offset for r in batch] async for batch in sequencer.in_order([record(at) for at in offsets])]


async def test_what_comes_in_order_goes_through() -> None:
    log = Log(range(10), committed=3)
    sequencer = Sequencer(log, 100)
    assert await taken(sequencer, [3, 4, 5]) == [[3, 4, 5]]
    assert await taken(sequencer, [6]) == [[6]]
    assert sequencer.committable() == {T: 7}
    assert log.reads == []


async def test_what_was_there_before_is_dropped() -> None:
    sequencer = Sequencer(Log(range(10), committed=3), 100)
    assert await taken(sequencer, [1, 2, 3, 2, 3, 4]) == [[3, 4]]
    assert await taken(sequencer, [0, 4]) == []


async def test_what_was_skipped_is_read() -> None:
    """Also behind the last commit, when the first to come is not the first to fold."""
    log = Log(range(100), committed=2)
    sequencer = Sequencer(log, 1000)
    assert await taken(sequencer, [7, 8, 12]) == [[*range(2, 13)]]
    assert log.reads == [(2, 7), (9, 12)]
    assert await taken(sequencer, [3, 4, 13]) == [[13]], "and what comes late is a repetition"


async def test_a_large_gap_is_read_in_batches() -> None:
    sequencer = Sequencer(Log(range(1000)), 100)
    found = await taken(sequencer, [950])
    assert [at for batch in found for at in batch] == [*range(951)]
    assert max(map(len, found)) <= 101


async def test_gaps_of_the_log_itself_are_none() -> None:
    """Markers of transactions and what retention deleted: a look, and on."""
    log = Log([5, 6, 9], committed=0)
    sequencer = Sequencer(log, 100)
    assert await taken(sequencer, [5, 6, 9]) == [[5, 6, 9]]
    assert log.reads == [(0, 5), (7, 9)]


async def test_only_what_was_dealt_with_may_be_committed() -> None:
    sequencer = Sequencer(Log(range(10)), 100)
    batches = sequencer.in_order([record(at) for at in range(3)])
    await anext(batches)
    assert sequencer.committable() == {}
    with pytest.raises(StopAsyncIteration):
        await anext(batches)
    assert sequencer.committable() == {T: 3}
    sequencer.forget([T])
    assert sequencer.committable() == {}
    assert sequencer.expected(T) is None
