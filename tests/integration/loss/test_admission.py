"""What a gateway asks before it takes a Redis for what it was: how far the stream goes, and whose data it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from api_gateway.engine.loss.guard import Guard
from api_gateway.engine.loss.witnesses import Witnesses
from api_gateway.reads.archive import Archive
from shared import names
from shared.clients.nats import NatsLink
from shared.clients.redis import open_redis
from shared.domain.errors import Unavailable
from shared.redis_layout.outbox import EntryId
from tests.integration.archive.archive_world import World

pytestmark = pytest.mark.integration

LOT, OTHER = "lot-1", "lot-2"


class NoArchive:
    """It is away."""

    async def shard_places(self) -> Any:
        raise Unavailable("away")


@pytest_asyncio.fixture
async def past(world: World) -> AsyncIterator[Witnesses]:
    link = NatsLink(world.stack.urls.nats_url, name="test")
    yield Witnesses(cast(Archive, NoArchive()), link)
    await link.close()


async def publish(world: World, n: int, *, item: str = LOT, epoch: int = 1, again: int = 0) -> None:
    message_id = names.message_id(names.shard_of(item), epoch, n, b"%d" % again)
    await world.publish_raw(item, b"{}", message_id)


@pytest.mark.parametrize(("late_epoch", "late"), [(2, 5), (1, 50)])
async def test_the_last_message_of_a_shard_need_not_be_its_highest(
    world: World, past: Witnesses, late_epoch: int, late: int
) -> None:
    """A relay that slept past its lease publishes once more what it had read; JetStream knows ids for two minutes."""
    for n in range(1, 11):
        await publish(world, n, epoch=2)
        await publish(world, n, item=OTHER)
    await publish(world, late, epoch=late_epoch, again=1)
    known = await past.shards(look_back=True)
    assert (known.stream_asked, known.archive_asked) == (True, False)
    assert known.places == {names.shard_of(LOT): EntryId(2, 10), names.shard_of(OTHER): EntryId(1, 10)}
    assert (await past.shards()).places[names.shard_of(LOT)] == EntryId(late_epoch, late), "what costs less, tells less"


async def test_looking_back_is_bounded_and_needs_no_messages(
    world: World, past: Witnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await past.shards(look_back=True)).places == {}
    monkeypatch.setattr("api_gateway.engine.loss.witnesses.LOOK_BACK_MESSAGES", 3)
    for n in (7, 8, 9, 1, 2, 3):
        await publish(world, n)
    assert (await past.shards(look_back=True)).places == {names.shard_of(LOT): EntryId(1, 3)}
    monkeypatch.setattr("api_gateway.engine.loss.witnesses.LOOK_BACK_MESSAGES", 4)
    assert (await past.shards(look_back=True)).places == {names.shard_of(LOT): EntryId(1, 9)}
    await world.jetstream.purge_stream(names.STREAM)
    assert (await past.shards(look_back=True)).places == {}


async def test_a_primary_that_was_demoted_and_promoted_again_is_compared_again(world: World) -> None:
    """It keeps its run, and the mark in its data is its own where the other primary had a copy of that."""
    compared: list[str] = []

    async def compare(run: str) -> None:
        compared.append(run)

    guard = Guard(compare)
    url = world.stack.urls.redis_url

    async def connect() -> None:
        async with open_redis(url, on_connect=guard.on_connect) as redis:
            await redis.ping()

    await connect()
    await connect()
    assert len(compared) == 1
    operator = cast(Any, world.redis)
    await operator.execute_command("REPLICAOF", "127.0.0.1", "1")
    await operator.execute_command("REPLICAOF", "NO", "ONE")
    await connect()
    await connect()
    assert compared == [guard.run] * 2
