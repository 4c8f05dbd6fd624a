"""A real broker and a real store for the tests of the Kafka adapter. Both are shared; each test has its own topics."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bench.kafka_broker import Broker, NoKafka
from engine.store import RedisStore
from tests.engine_process import OwnRedis
from tests.kafka.cluster import STORE_PARTITIONS, Cluster


@pytest.fixture(scope="session")
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker | None]:
    """The broker that was started here; None where OPPORTUNE_TEST_KAFKA names one."""
    if os.environ.get("OPPORTUNE_TEST_KAFKA"):
        yield None
        return
    try:
        broker = Broker(tmp_path_factory.mktemp("kafka")).start()
    except NoKafka as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"these tests must run here, and there is no Kafka: {error}")
        pytest.skip(f"no Kafka: {error}")
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def kafka(own_broker: Broker | None) -> str:
    """HOST:PORT of a broker."""
    return own_broker.address if own_broker is not None else os.environ["OPPORTUNE_TEST_KAFKA"]


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    with OwnRedis(tmp_path_factory.mktemp("r")) as server:
        yield server


@pytest.fixture
def cluster(kafka: str, redis: OwnRedis, tmp_path: Path) -> Iterator[Cluster]:
    """Topics of its own, a store, and worker processes that are ended with the test."""
    with Cluster(kafka, redis.url, tmp_path, prefix=f"t{uuid.uuid4().hex[:8]}") as made:
        yield made


@pytest.fixture
async def store(redis: OwnRedis) -> AsyncIterator[RedisStore]:
    opened = await RedisStore.open(redis.url, STORE_PARTITIONS)
    yield opened
    await opened.close()
