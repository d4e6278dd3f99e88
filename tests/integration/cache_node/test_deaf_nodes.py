"""A follower whose consumer tells it nothing any more, while JetStream goes on to send its heartbeats."""

from __future__ import annotations

import asyncio

import pytest
from typing_extensions import override

from shared import names
from shared.archive_cache import changes as module
from shared.archive_cache.changes import Changes
from shared.archive_cache.progress import ArchiveProgress, Progress
from shared.archive_cache.reads import groups, name_of_group
from shared.clients.nats import NatsLink
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings
from shared.streams.follower import Follower
from tests.stack import StackFactory
from tests.unit.shared.archive_cache.changes_world import Archive, void
from tests.waiting import eventually

pytestmark = pytest.mark.integration


class Archived(ArchiveProgress):
    """The archive has all that the stream has."""

    @override
    async def ask(self) -> Progress:
        head = await self.head()
        return Progress(head.last, head.last, head.stream)


async def test_a_consumer_that_is_deaf_is_noticed_and_replaced(
    start_stack: StackFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_S", 0.5)
    stack = await start_stack(services=())
    url, archive = stack.urls.nats_url, Archive()
    link = NatsLink(url, name="test")
    changes = Changes(Archived(link))
    follower = Follower(url, name="test, changes", heartbeat_s=0.5)
    async with open_read_cache(ReadCacheSettings(read_cache="local"), groups(archive, changes.is_unsettled)) as cache:
        changes.attach(cache)
        running = asyncio.create_task(changes.run(follower))
        try:
            await eventually(lambda: changes.is_keeping, seconds=60)
            jetstream = (await link.connected()).jetstream()
            (consumer,) = await jetstream.consumers_info(names.STREAM)
            await jetstream.pause_consumer(names.STREAM, consumer.name, "2999-01-01T00:00:00Z")
            key = "items/lot"
            await cache[name_of_group("items")].get(key)
            assert cache[name_of_group("items")].cached(key) == b"before"
            archive.value = b"after"
            await jetstream.publish(names.subject_of("lot"), void())

            async def tells_what_is_true() -> bool:
                return await cache[name_of_group("items")].get(key) == b"after"

            await eventually(tells_what_is_true, seconds=30)
            await eventually(lambda: follower.consumers_made == 2 and changes.is_keeping, seconds=30)
            archive.value = b"later"
            await jetstream.publish(names.subject_of("lot"), void())

            async def hears_again() -> bool:
                return await cache[name_of_group("items")].get(key) == b"later"

            await eventually(hears_again, seconds=30)
            assert follower.consumers_made == 2
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await link.close()
