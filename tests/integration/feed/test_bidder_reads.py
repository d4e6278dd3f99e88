"""How single bidders stand, read from a real Redis without anything around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from broadcast_service.sources import bidders as module
from broadcast_service.sources.bidders import STRUCK_MAX, BidderReader, ShardClosed
from broadcast_service.sources.left_items import LeftItems
from shared import names
from shared.messages import BidVoided, encode_event
from shared.redis_layout.keys import bidders_key, cursors_key, item_key, proxies_key, recent_key
from tests.unit.archival_worker.events import bid, voided

pytestmark = pytest.mark.integration

LOT = "lot-1"


class LeftNothing:
    """The archive has no closed item."""

    async def standings(self, item_id: str, users: list[str]) -> None:
        return None


class Ground:
    """An item with its recent events, as the gateway's scripts write them."""

    def __init__(self, redis: Redis) -> None:
        self.redis: Any = redis
        self.reader = BidderReader(redis, cast(LeftItems, LeftNothing()))

    async def item(self, item_id: str = LOT, /, *, epoch: int = 1, **fields: int) -> None:
        await self.redis.hset(cursors_key(names.shard_of(item_id)), "epoch", epoch)
        await self.redis.hset(item_key(item_id), mapping={"epoch": epoch, "bid_count": 0} | fields)

    async def events(self, *oldest_first: Any, item_id: str = LOT) -> None:
        await self.redis.lpush(recent_key(item_id), *map(encode_event, oldest_first))

    async def struck(self, user: str, item_id: str = LOT) -> list[int]:
        return [struck.version[1] for struck in (await self.reader.read(item_id, [user]))[user].struck]


@pytest_asyncio.fixture
async def ground(redis_url: str) -> AsyncIterator[Ground]:
    """An item in a database of its own, in the shared server."""
    async with Redis.from_url(redis_url.rpartition("/")[0] + "/9", protocol=2) as redis:
        await redis.flushdb()
        yield Ground(redis)
        await redis.flushdb()


def struck_bid(seq: int, user: str | None, *, item_id: str = LOT) -> BidVoided:
    return msgspec.structs.replace(cast(BidVoided, voided(item_id, seq, voids=1)), bidder_id=user)


async def test_the_newest_struck_bids_of_a_bidder_are_told_oldest_first(ground: Ground) -> None:
    seqs = range(10, 10 + STRUCK_MAX + 4)
    await ground.item(voids=40, accepted=50, bids_counted=10)
    await ground.events(*(struck_bid(seq, "ann") for seq in seqs), struck_bid(90, "bob"), struck_bid(91, None))
    assert await ground.struck("ann") == list(seqs)[-STRUCK_MAX:]
    assert await ground.struck("bob") == [90]
    assert await ground.struck("cyd") == []


async def test_struck_bids_are_looked_for_again_after_each_void_and_each_rebuilding(ground: Ground) -> None:
    await ground.item(voids=1, accepted=5, bids_counted=4)
    await ground.events(struck_bid(7, "ann"))
    assert await ground.struck("ann") == [7]
    await ground.events(struck_bid(8, "ann"))
    assert await ground.struck("ann") == [7], "the events are not searched for each read"
    await ground.item(voids=2)
    assert await ground.struck("ann") == [7, 8]
    await ground.redis.ltrim(recent_key(LOT), 0, 0)
    await ground.item(epoch=2)
    assert await ground.struck("ann") == [8]
    await ground.item(voids=0)
    assert await ground.struck("ann") == []


async def test_what_is_remembered_of_struck_bids_is_bounded(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest makes room, and nothing else does."""
    monkeypatch.setattr(module, "ITEMS_MAX", 2)
    for item_id in ("a", "b", "c"):
        await ground.item(item_id, voids=1, accepted=1, bids_counted=0)
        await ground.events(struck_bid(7, "ann", item_id=item_id), item_id=item_id)
        assert await ground.struck("ann", item_id) == [7]
    assert list(ground.reader._struck) == ["b", "c"]


async def test_who_bid_before_bids_were_counted_is_found_among_the_events(ground: Ground) -> None:
    """And nobody is looked for there where the count has everybody: a struck bid is no bid that stands."""
    await ground.redis.hset(bidders_key(LOT), "bob", 2)
    await ground.redis.hset(proxies_key(LOT), "bob", 700)
    await ground.events(bid(LOT, 1, user_id="ann"), bid(LOT, 2, user_id="bob"))
    for fields, has_bid in (
        ({"accepted": 4, "voids": 1, "bids_counted": 2}, True),
        ({"accepted": 4, "voids": 1, "bids_counted": 3}, False),
        ({"accepted": 4, "voids": 0, "bids_counted": 4}, False),
    ):
        await ground.item(**fields)
        found = await ground.reader.read(LOT, ["ann", "bob", "cyd"])
        assert [found[user].has_bid for user in ("ann", "bob", "cyd")] == [has_bid, True, False]
        assert [found[user].maximum for user in ("ann", "bob", "cyd")] == [None, 700, None]
    await ground.redis.hdel(item_key(LOT), "accepted", "voids")
    await ground.item(bid_count=5)
    assert (await ground.reader.read(LOT, ["ann"]))["ann"].has_bid, "an item from before that"


async def test_a_maximum_without_a_count_is_a_bid_too(ground: Ground) -> None:
    await ground.item(accepted=1, bids_counted=1)
    await ground.redis.hset(proxies_key(LOT), "ann", 50)
    facts = (await ground.reader.read(LOT, ["ann"]))["ann"]
    assert (facts.has_bid, facts.maximum) == (True, 50)


async def test_of_a_closed_shard_nothing_is_told_and_of_an_item_that_never_was_that_nobody_has_bid(
    ground: Ground,
) -> None:
    await ground.item(accepted=0)
    await ground.redis.hset(cursors_key(names.shard_of("never")), "epoch", 1)
    assert not (await ground.reader.read("never", ["ann"]))["ann"].has_bid
    await ground.redis.hdel(cursors_key(names.shard_of(LOT)), "epoch")
    with pytest.raises(ShardClosed):
        await ground.reader.read(LOT, ["ann"])
