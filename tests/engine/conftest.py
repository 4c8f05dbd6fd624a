"""Fixtures: the doors of doors.py, and the real store of tests/store."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from doors import Door, doors

from tests.store.conftest import shared_server

__all__ = ["shared_server"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["direct", "native", "grpcio"])
async def door(request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    async for found in doors(request.param):
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["native", "grpcio"])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    """Real gRPC only."""
    async for found in doors(request.param):
        yield found
