"""What a consumer of our own reads of a real partition: what the group skipped, and what is not there any more."""

import asyncio
from collections.abc import Sequence

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from engine.kafka.reader import PartitionReader
from engine.kafka.sequence import Place, Record, Sequencer
from tests.kafka.cluster import Cluster, Session


async def offsets(sequencer: Sequencer, arrived: Sequence[Record]) -> list[int]:
    return [record.offset async for batch in sequencer.in_order(arrived) for record in batch]


def test_what_the_group_skipped_is_read_as_far_as_it_is_there(cluster: Cluster) -> None:
    async def work(session: Session) -> None:
        await session.publish([("anna", n, 1.0) for n in range(100)])
        place: Place = (cluster.topics.events, session.known.partition_of("anna"))
        reader = PartitionReader(session.brokers, cluster.topics.group)
        try:
            assert await reader.start_of(place) == 0
            assert await reader.ends([place]) == {place: 100}
            values = [record.value for record in await session.read(cluster.topics.events)]
            found = await reader.between(place, 10, 40, 1_000)
            assert [(record.offset, record.value) for record in found] == [*enumerate(values[10:40], 10)]
            assert [record.offset for record in await reader.between(place, 10, 40, 7)] == [*range(10, 17)]

            sequencer = Sequencer(reader, 50)
            skipped = [Record(*place, at, 0.0, b"anna", values[at]) for at in (80, 81, 82, 90)]
            assert await offsets(sequencer, skipped) == [*range(91)]

            deleted = {TopicPartition(*place): RecordsToDelete(before_offset=30)}
            await session.brokers._admin.delete_records(deleted)
            assert await offsets(Sequencer(reader, 50), skipped[:1]) == [*range(30, 81)]
            assert await reader.between(place, 0, 30, 1_000) == []
            assert await reader.start_of(place) == 30, "nothing was committed: the first there is"
        finally:
            await reader.close()

    cluster.run(work)


def test_a_look_at_nothing_spoils_none_after_it(cluster: Cluster) -> None:
    async def work(session: Session) -> None:
        await session.publish([("anna", n, 1.0) for n in range(20)])
        place: Place = (cluster.topics.events, session.known.partition_of("anna"))
        reader = PartitionReader(session.brokers, cluster.topics.group)
        try:
            for start in (0, 20, 5, 20, 7):
                async with asyncio.timeout(5):
                    found = await reader.between(place, start, 20, 1)
                assert [record.offset for record in found] == [start][: start < 20]
                await asyncio.sleep(0.05)  # the client library's own tasks come to rest
        finally:
            await reader.close()

    cluster.run(work)
