"""The ways to read the stream, used by a consumer that is neither archiver nor broadcaster, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio

from infrastructure.local.stack import Stack
from shared import names
from shared.clients.nats import NatsLink, StreamUnavailable
from shared.streams.follower import Follower
from shared.streams.puller import Pulled, Puller, PullOptions, ensure_consumer
from shared.streams.reader import read_from
from tests.integration.archive.archive_world import PATIENCE_S, World, new_world
from tests.stack import running_stack
from tests.unit.archival_worker.events import bid, message
from tests.waiting import eventually

pytestmark = pytest.mark.integration

OPTIONS = PullOptions("counter", ack_wait_s=60.0)


@pytest.fixture(scope="module")
def servers() -> Iterator[Stack]:
    with running_stack(services=()) as stack:
        yield stack


@pytest_asyncio.fixture
async def world(servers: Stack) -> AsyncIterator[World]:
    async with new_world(servers) as world:
        yield world


async def test_a_durable_of_its_own_has_every_message_until_it_is_acknowledged(world: World) -> None:
    await world.publish_all((n, [bid("lot-1", n)]) for n in (1, 2, 3))
    pulled: list[Pulled] = []
    await ensure_consumer(world.jetstream, OPTIONS)
    puller = Puller(world.client, OPTIONS, on_message=pulled.append, on_ended=lambda: None)
    await puller.open()
    await puller.pull(10)
    await eventually(_has(pulled, 3), "three messages", seconds=PATIENCE_S)
    assert [each.data for each in pulled] == [message(n, bid("lot-1", n)) for n in (1, 2, 3)]
    await puller.acknowledge(each.reply for each in pulled[:2])
    await puller.give_back([pulled[2].reply])
    await puller.pull(10)
    await eventually(_has(pulled, 4), "the one that was given back", seconds=PATIENCE_S)
    assert pulled[3].data == pulled[2].data
    await puller.acknowledge([pulled[3].reply])
    await world.jetstream.delete_consumer(names.STREAM, "counter")
    await puller.pull(10)

    async def is_noticed() -> bool:
        with contextlib.suppress(StreamUnavailable):
            puller.check(pulling=True)
            return False
        return True

    await eventually(is_noticed, "that the consumer is gone", seconds=PATIENCE_S)
    await puller.close()


async def test_a_message_comes_again_however_often_it_was_given_back(world: World) -> None:
    """PostgreSQL may be away for days, and until it is back nobody can store what was accepted."""
    await ensure_consumer(world.jetstream, OPTIONS)
    await world.publish(1, bid("lot-1", 1))
    source = await world.jetstream.pull_subscribe_bind("counter", names.STREAM)
    for times in range(1, 101):
        (delivered,) = await source.fetch(1, timeout=10)
        assert delivered.metadata.num_delivered == times
        await delivered.nak()


async def test_what_there_is_can_be_read_by_a_consumer_that_goes_by_itself(world: World) -> None:
    await world.publish_all((n, [bid("lot-1", n)]) for n in range(1, 4))
    pages = [page async for page in read_from(world.jetstream, 2)]
    assert [each.data for page in pages for each in page] == [message(n, bid("lot-1", n)) for n in (2, 3)]
    [left] = await world.jetstream.consumers_info(names.STREAM)
    assert left.config.inactive_threshold == 60


class Heard:
    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.up = asyncio.Event()

    def on_message(self, subject: str, data: bytes) -> None:
        self.messages.append(data)

    def on_stream_up(self) -> None:
        self.up.set()

    def on_stream_down(self) -> None: ...


async def test_a_follower_of_its_own_hears_what_comes_from_now_on(world: World) -> None:
    await world.publish(1, bid("lot-1", 1))
    heard = Heard()
    follower = Follower(world.stack.urls.nats_url, name="counter", heartbeat_s=10.0)
    following = asyncio.create_task(follower.run(heard))
    try:
        async with asyncio.timeout(30):
            await heard.up.wait()
        await world.publish(2, bid("lot-1", 2))
        await eventually(_has(heard.messages, 1), "the message that came after it", seconds=PATIENCE_S)
        assert heard.messages == [message(2, bid("lot-1", 2))]
        assert await follower.has_message(names.subject_of("lot-1"), 1)
        assert follower.consumers_made == 1
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_link_to_nowhere_fails_as_the_stream_does() -> None:
    link = NatsLink("nats://127.0.0.1:1", name="counter", timeout_s=0.2)
    with pytest.raises(StreamUnavailable, match="not reachable"):
        await link.connected()
    await link.close()


def _has(found: list[Pulled] | list[bytes], count: int) -> Callable[[], Awaitable[bool]]:
    async def has() -> bool:
        return len(found) >= count

    return has
