"""Three nodes of Valkey, for all tests of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from shared.clients.cluster.client import ClusterClient
from shared.clients.redis import open_redis
from tests.faults.redis_cluster.moving import Nodes
from tests.stack import running_stack


@pytest.fixture(scope="module")
def cluster(clean_machine: None) -> Iterator[Stack]:
    with running_stack(services=(), valkey_nodes=3) as stack:
        yield stack


@pytest_asyncio.fixture
async def redis(cluster: Stack) -> AsyncIterator[ClusterClient]:
    client = open_redis(cluster.urls.redis_url, timeout_s=3.0)
    assert isinstance(client, ClusterClient)
    yield client
    await client.aclose()


@pytest_asyncio.fixture
async def nodes(cluster: Stack) -> AsyncIterator[Nodes]:
    first = cluster.ports.redis
    found = Nodes(range(first, first + 3))
    yield found
    await found.aclose()


@pytest.fixture
def free_port() -> int:
    (port,) = free_ports(1)
    return port
