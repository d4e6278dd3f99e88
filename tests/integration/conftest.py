"""Fixtures of the files that test one service in many ways: one stack per file, not one per test.

`archive_servers`: servers of one file, for the tests of the archive; `world`: the same with everything empty.
`gateway_stack`, `http`, `redis`: a gateway and an archiver of one file, for tests that run in the file's event loop
(`pytest.mark.asyncio(loop_scope="module")`). Use item ids of your own.
`feed_stack`: Redis, NATS and a broadcaster of one file; `house`: who opens items there and bids, without a gateway.
`endpoint`: the address of an emulator of AWS, of one file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx2 as httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from tests.integration.archive.archive_world import World, new_world
from tests.integration.aws.aws_world import emulator
from tests.integration.feed.feed_world import AuctionHouse, running_feed
from tests.stack import StackFactory, running_stack


@pytest.fixture(scope="module")
def archive_servers() -> Iterator[Stack]:
    with running_stack(services=()) as stack:
        yield stack


@pytest_asyncio.fixture
async def world(archive_servers: Stack) -> AsyncIterator[World]:
    async with new_world(archive_servers) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway_stack() -> AsyncIterator[Stack]:
    factory = StackFactory()
    try:
        yield await factory(services=(API_GATEWAY, ARCHIVAL_WORKER))
    finally:
        await factory.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(gateway_stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    # Thousands of requests at once wait for one of these connections, beside tests of other files.
    timeout = httpx.Timeout(30, pool=200)
    async with httpx.AsyncClient(base_url=gateway_stack.urls.gateway_url, timeout=timeout, limits=limits) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis(gateway_stack: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(gateway_stack.urls.redis_url, protocol=2) as client:
        yield client


@pytest.fixture(scope="module")
def feed_stack(postgres_url: str) -> Iterator[Stack]:
    with running_feed(postgres_url) as stack:
        yield stack


@pytest_asyncio.fixture
async def house(feed_stack: Stack) -> AsyncIterator[AuctionHouse]:
    async with AuctionHouse.at(feed_stack.urls.redis_url, feed_stack.urls.nats_url) as opened:
        yield opened


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with emulator() as address:
        yield address
