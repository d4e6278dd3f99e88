"""A node that does not reach PostgreSQL any more, while it reaches everybody else: its place in the ring stays.

With the settings that nodes have, before a PostgreSQL that everybody else reaches.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests import tcp
from tests.integration.cache_node.cache_world import CacheWorld, cache_world, tell
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio]

NAMES = ["n0", "n1", "n2"]
CUT = "n1"


@asynccontextmanager
async def one_behind_a_line() -> AsyncIterator[tuple[CacheWorld, asyncio.Event]]:
    """Three nodes and a front end. Between one of them and PostgreSQL nothing passes while the event is not set."""
    passes = asyncio.Event()
    passes.set()

    async def treat(way: tcp.Way, data: bytes) -> bytes:
        await passes.wait()
        return data

    factory = StackFactory()
    try:
        async with cache_world(await factory(services=())) as world:
            url = urlsplit(world.stack.urls.postgres_url)
            assert url.port is not None
            to_port = url.port
            async with tcp.serving(lambda reader, writer: tcp.relay(reader, writer, to_port, treat)) as port:
                user = f"{url.username}@" if url.username else ""
                cut_url = urlunsplit(url._replace(netloc=f"{user}127.0.0.1:{port}"))
                usual = {"CACHE_POSTGRES_TIMEOUT_S": "2"}
                others = [name for name in NAMES if name != CUT]
                await world.start(*others, module_env=usual)
                await world.start(CUT, module_env=usual | {"POSTGRES_URL": cut_url})
                await world.start("front", role="front_end", module_env=usual)
                await world.agreed(*NAMES)
                await world.in_step(*NAMES)
                try:
                    yield world, passes
                finally:
                    passes.set()
    finally:
        await factory.close()


async def test_a_node_that_is_cut_off_from_postgresql_costs_no_reader_an_error() -> None:
    """Under load: what waits at that node for the others is more than it can ask in time."""
    async with one_behind_a_line() as (world, passes):
        items = [f"cold-{number}" for number in range(3_000)]
        later = [f"later-{number}" for number in range(600)]
        await world.add_closed(*items, *later)
        coming = iter(items)
        statuses: Counter[int] = Counter()
        slowest_s = 0.0
        ends_s = time.monotonic() + 10

        async def read() -> None:
            nonlocal slowest_s
            for item in coming:
                began_s = time.monotonic()
                statuses[(await world.value("front", f"items/{item}")).status] += 1
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                if time.monotonic() > ends_s:
                    return

        passes.clear()
        # A third of them is the cut node's; it asks eight at a time.
        await asyncio.gather(*(read() for _ in range(100)))
        count = statuses.total()
        tell(f"a node cut off from PostgreSQL: {count} cold gets, {dict(statuses)}, the slowest {slowest_s:.1f} s")
        assert set(statuses) == {200}
        assert count > 300
        passes.set()
        coming = iter(later)

        async def asks_again() -> bool:
            before = await world.total("loads", [CUT])
            for item in itertools.islice(coming, 6):
                await world.value("front", f"items/{item}")
            return await world.total("loads", [CUT]) > before

        await eventually(asks_again, seconds=60)
