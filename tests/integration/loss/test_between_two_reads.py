"""Redis loses data between two reads that make up one answer: what was read is not told as if it were all there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from api_gateway.context import Context
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import BidScripts, Decided
from api_gateway.engine.closed.closed_items import ClosedItems
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.items import Items
from api_gateway.engine.loss.known_items import QUESTIONS_AT_ONCE, TooManyQuestions
from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.witnesses import Witnesses
from api_gateway.identity.access import Permit, Reach
from api_gateway.reads.archive import Archive
from api_gateway.reads.history import History
from api_gateway.routes.bids import get_verdict
from api_gateway.routes.items import get_history
from archival_worker.store.archive import Archive as WholeArchive
from broadcast_service.sources.bidders import BidderReader
from broadcast_service.sources.left_items import LeftItems
from shared.archive_reads.asking import Asking
from shared.archive_reads.feed_reads import FeedReads
from shared.archive_reads.origin import ArchiveOrigin, encode_state
from shared.clients.nats import NatsLink
from shared.clients.redis import open_redis
from shared.domain.errors import ItemNotFound, ShardLost, Unavailable
from shared.messages import AnyEvent, BidVoided, encode_event
from shared.names import shard_of
from shared.redis_layout.item_hash import ItemState, decode_item
from shared.redis_layout.keys import cursors_key, item_key, keys_of_item, lost_key, opened_key, outbox_key, recent_key
from tests.faults.rig.proxy import FaultyProxy
from tests.integration.archive.archive_world import World
from tests.integration.feed.feed_world import AuctionHouse
from tests.unit.archival_worker.events import bid, created, delivery, voided
from tests.waiting import eventually

pytestmark = pytest.mark.integration

ITEM = "lot-1"


class Ground:
    """An item with a bid; a client of Redis behind a proxy, and what may happen behind its back."""

    def __init__(self, world: World, proxy: FaultyProxy, redis: AsyncRedis, pool: asyncpg.Pool) -> None:
        self.world, self.redis, self.pool = world, redis, pool
        self._proxy = proxy
        self._direct = Redis.from_url(world.stack.urls.redis_url, protocol=2)

    def close(self) -> None:
        """What a gateway does to a shard that went back."""
        self._direct.hset(cursors_key(shard_of(ITEM)), "stale", "1")
        self._direct.hdel(cursors_key(shard_of(ITEM)), "epoch")

    def evict(self) -> None:
        self._direct.delete(*keys_of_item(ITEM))

    def wipe(self) -> None:
        self._direct.flushall()

    def rebuild(self) -> None:
        """What a whole recovery leaves of it: the shard is open again, in a new epoch."""
        self._direct.hset(cursors_key(shard_of(ITEM)), "epoch", "2")

    async def after_the_next_answer(self, happens: Callable[[], None]) -> None:
        """It happens when the next answer of Redis is on its way to the client."""
        await self.redis.ping()

        def once() -> None:
            self._proxy.on_answer = None
            happens()

        self._proxy.on_answer = once


@pytest_asyncio.fixture
async def ground(world: World) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        house = await stack.enter_async_context(AuctionHouse.at(world.stack.urls.redis_url, world.stack.urls.nats_url))
        await house.open(ITEM)
        await house.decide(ITEM, 500)
        proxy = await stack.enter_async_context(FaultyProxy(world.stack.ports.redis))
        redis = open_redis(f"redis://127.0.0.1:{proxy.port}/0", connections_max=1)
        stack.push_async_callback(redis.aclose)
        pool = await stack.enter_async_context(asyncpg.create_pool(world.postgres_url, min_size=1, max_size=10))
        yield Ground(world, proxy, redis, pool)


def items_of(ground: Ground, past: Witnesses | None = None) -> Items:
    scripts = ItemScripts(ground.redis, ScriptLimits())
    return Items(
        ground.redis,
        scripts,
        past or cast(Any, None),
        LostItems(ground.redis),
        ClosedItems(ground.redis, ArchiveOrigin(Asking(ground.pool)), Asking(ground.pool)),
        open_catalogue=False,
        on_outbox=lambda shard: None,
    )


def left_items(ground: Ground) -> LeftItems:
    asking = Asking(ground.pool)
    return LeftItems(ArchiveOrigin(asking), FeedReads(asking))


def request_to(ground: Ground) -> Any:
    """A request to a gateway that has no more than these two routes need."""
    parts = dict.fromkeys(Context.__dataclass_fields__)
    history = History(ground.redis, Archive(ground.pool))
    context = Context(**cast(Any, {**parts, "redis": ground.redis, "items": items_of(ground), "history": history}))
    return SimpleNamespace(state=SimpleNamespace(context=context, permit=Permit(None, Reach.ANY)))


LOSSES = pytest.mark.parametrize("loss", [Ground.close, Ground.wipe], ids=["closed", "wiped"])


@pytest.mark.parametrize(
    "loss", [Ground.close, Ground.wipe, Ground.rebuild], ids=["closed", "wiped", "rebuilt already"]
)
async def test_a_history_does_not_leave_out_what_redis_has_lost_meanwhile(
    ground: Ground, loss: Callable[[Ground], None]
) -> None:
    request = request_to(ground)
    whole = json.loads(bytes((await get_history(request, ITEM)).body))
    assert ([each["seq"] for each in whole["bids"]], whole["partial"]) == ([1], False)
    await ground.after_the_next_answer(lambda: loss(ground))
    with pytest.raises(ShardLost):
        await get_history(request, ITEM)


@pytest.mark.parametrize("loss", [Ground.close, Ground.rebuild], ids=["closed", "rebuilt already"])
@pytest.mark.parametrize("key", ["low", "lost"])
async def test_a_refusal_that_an_older_copy_has_is_not_told(
    ground: Ground, key: str, loss: Callable[[Ground], None]
) -> None:
    """What has become of the bid since may be published, and comes back. So may a bid that is not found."""
    scripts = BidScripts(ground.redis, ScriptLimits(), timeout_s=5)
    low = PendingBid(ITEM, "bob", "low", 1, None, "low", True, PendingVerdict())
    [decided] = await scripts.place([[low]])
    await scripts.close()
    assert isinstance(decided, Decided)
    assert decided.verdicts[0].startswith(b"R|")
    request = request_to(ground)
    assert json.loads(bytes((await get_verdict(request, "low", ITEM)).body))["code"] == "TOO_LOW"
    await ground.after_the_next_answer(lambda: loss(ground))
    with pytest.raises(ShardLost):
        await get_verdict(request, key, ITEM)


# ---------------------------------------------------------------------- how a bidder stands


@LOSSES
async def test_how_a_bidder_stands_is_not_read_from_what_is_left(
    ground: Ground, loss: Callable[[Ground], None]
) -> None:
    reader = BidderReader(ground.redis, left_items(ground))
    assert (await reader.read(ITEM, ["ann"]))["ann"].has_bid
    loss(ground)
    with pytest.raises(OSError, match=shard_of(ITEM)):
        await reader.read(ITEM, ["ann"])


async def test_what_was_struck_is_not_forgotten_by_a_read_during_a_loss(ground: Ground) -> None:
    """1. The item says that a bid was struck. 2. Redis is wiped, and rebuilt. 3. The events are read in between."""
    redis: Any = ground.world.redis
    await redis.hset(item_key(ITEM), "voids", "1")
    event = msgspec.structs.replace(cast(BidVoided, voided(ITEM, 2, voids=1)), bidder_id="bob")
    await redis.lpush(recent_key(ITEM), encode_event(event))
    kept = {key: await redis.dump(key) async for key in redis.scan_iter("*")}
    reader = BidderReader(ground.redis, left_items(ground))
    await ground.after_the_next_answer(ground.wipe)
    with pytest.raises(OSError, match=shard_of(ITEM)):
        await reader.read(ITEM, ["bob"])
    for key, value in kept.items():
        await redis.restore(key, 0, value, replace=True)
    assert [each.bid_id for each in (await reader.read(ITEM, ["bob"]))["bob"].struck] == [event.bid_id]


class ArchivedVoid:
    """An archive that has the item as a closed one, and a struck bid on it."""

    def __init__(self, item: ItemState, void: BidVoided) -> None:
        self._item, self._void = item, void

    async def get(self, key: str) -> bytes:
        return encode_state(self._item)

    async def newest_events(self, item_id: str, count: int) -> list[AnyEvent]:
        return []

    async def bidders(self, item_id: str, users: Collection[str]) -> set[str]:
        return {"ann"}

    async def voids(self, item_id: str) -> list[BidVoided]:
        return [self._void]


async def test_what_was_struck_is_told_where_the_item_leaves_meanwhile(ground: Ground) -> None:
    """1. The item says that a bid was struck. 2. It leaves Redis. 3. The events are read."""
    redis: Any = ground.world.redis
    await redis.hset(item_key(ITEM), "voids", "1")
    event = msgspec.structs.replace(cast(BidVoided, voided(ITEM, 2, voids=1)), bidder_id="bob")
    await redis.lpush(recent_key(ITEM), encode_event(event))
    archive = ArchivedVoid(decode_item(await redis.hgetall(item_key(ITEM))), event)
    kept = {key: await redis.dump(key) for key in keys_of_item(ITEM) if await redis.exists(key)}
    reader = BidderReader(ground.redis, LeftItems(archive, archive))
    await ground.after_the_next_answer(ground.evict)
    facts = await reader.read(ITEM, ["ann", "bob"])
    assert [each.bid_id for each in facts["bob"].struck] == [event.bid_id]
    assert (facts["ann"].has_bid, facts["bob"].has_bid) == (True, False)
    for key, value in kept.items():
        await redis.restore(key, 0, value, replace=True)
    assert [each.bid_id for each in (await reader.read(ITEM, ["bob"]))["bob"].struck] == [event.bid_id]


async def test_how_a_bidder_stands_on_a_lost_item_is_not_made_up(ground: Ground) -> None:
    await archived_and_lost(ground, "lost")
    reader = BidderReader(ground.redis, left_items(ground))
    assert not (await reader.read("never", ["ann"]))["ann"].has_bid
    await cast(Any, ground.redis).sadd(lost_key(shard_of("lost")), "lost")
    with pytest.raises(OSError, match="rebuilt"):
        await reader.read("lost", ["ann"])


# ---------------------------------------------------------------------- lost, or never there


class Slow(Witnesses):
    """Witnesses that take their time; ``asked`` counts the questions."""

    def __init__(self, archive: Archive, nats: NatsLink) -> None:
        super().__init__(archive, nats, timeout_s=10)
        self.may_answer = asyncio.Event()
        self.asked = 0

    async def published_epochs(self, item_ids: Sequence[str]) -> dict[str, int]:
        self.asked += 1
        await self.may_answer.wait()
        return await super().published_epochs(item_ids)


async def past_of(ground: Ground, stack: AsyncExitStack) -> Slow:
    link = NatsLink(ground.world.stack.urls.nats_url, name="test", timeout_s=5)
    stack.push_async_callback(link.close)
    return Slow(Archive(ground.pool, timeout_s=10), link)


async def archived_and_lost(ground: Ground, item_id: str) -> None:
    """An item that PostgreSQL alone knows."""
    stored = await WholeArchive(ground.pool).store([delivery(1, created(item_id)), delivery(2, bid(item_id, 1))])
    assert stored.dead_letters == []


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_lost_item_is_no_stranger_while_many_are_asked_for(
    ground: Ground, in_time: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_time:
        monkeypatch.setattr("api_gateway.engine.loss.known_items.TURN_S", 30.0)
    await archived_and_lost(ground, "lost")
    async with AsyncExitStack() as stack:
        past = await past_of(ground, stack)
        items = items_of(ground, past)
        strangers = [asyncio.create_task(items.absent(f"stranger-{number}")) for number in range(QUESTIONS_AT_ONCE)]

        async def all_ask() -> bool:
            return past.asked == QUESTIONS_AT_ONCE

        await eventually(all_ask, seconds=60)
        lost = asyncio.create_task(items.absent("lost"))
        if in_time:
            await asyncio.sleep(0.2)
            past.may_answer.set()
        with pytest.raises(ShardLost if in_time else TooManyQuestions):
            await lost
        past.may_answer.set()
        results = await asyncio.gather(*strangers, return_exceptions=True)
        assert {type(result) for result in results} == {ItemNotFound}


async def test_what_this_gateway_has_served_is_no_stranger_when_nobody_can_be_asked(ground: Ground) -> None:
    async with AsyncExitStack() as stack:
        past = await past_of(ground, stack)
        past.may_answer.set()
        items = items_of(ground, past)
        assert await items.find_exponent(ITEM) == 2
        await ground.redis.delete(item_key(ITEM), outbox_key(shard_of(ITEM)), opened_key(shard_of(ITEM)))
        await ground.world.stack.stop_process("nats")
        await ground.world.stack.stop_process("postgres")
        with pytest.raises(ShardLost, match="cannot be told now"):
            await items.absent(ITEM)
        # It may be a closed item, which the archive alone has.
        with pytest.raises(Unavailable, match="archive"):
            await items.absent("stranger")
