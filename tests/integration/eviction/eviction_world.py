"""A running stack whose closed items leave Redis when a test says so, step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import asyncpg
from redis.asyncio import Redis

from api_gateway.engine.bids.voids import Voids
from api_gateway.engine.closed.closed_items import ClosedItems
from api_gateway.engine.closed.returns import Returns
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.items import Items
from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.witnesses import Witnesses
from api_gateway.reads.archive import Archive
from archival_worker.eviction.evictor import EvictionOptions, Evictor
from archival_worker.metrics import Metrics
from infrastructure.local.stack import Stack
from shared import names
from shared.archive_reads.origin import ArchiveOrigin
from shared.clients.nats import NatsLink
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.messages import decode_event
from shared.redis_layout.cursors import ask_fence, decode_fence
from shared.redis_layout.keys import closed_key, deadlines_key, item_key, lost_key, opened_key
from tests.integration.loss.recover_world import House, Json, house_of
from tests.waiting import eventually

AT_ONCE = EvictionOptions(keep_s=0, exports_every_s=0)


@dataclass
class Auction:
    """A stack of which nothing leaves by itself for an hour, an evictor, and the parts of another gateway."""

    house: House
    redis: Redis
    pool: asyncpg.Pool
    evictor: Evictor
    metrics: Metrics
    archive: Archive
    scripts: ItemScripts
    witnesses: Witnesses
    noticed: list[str] = field(default_factory=list)

    @property
    def stack(self) -> Stack:
        return self.house.stack

    def items(self, witnesses: Witnesses | None = None, *, open_catalogue: bool = True) -> Items:
        """The items as another gateway knows them."""
        return Items(
            self.redis,
            self.scripts,
            witnesses or self.witnesses,
            LostItems(self.redis),
            ClosedItems(self.redis, ArchiveOrigin(self.archive.asking), self.archive.asking),
            open_catalogue=open_catalogue,
            on_outbox=self.noticed.append,
        )

    def returns(self) -> Returns:
        return Returns(self.redis, self.archive.asking)

    def voids(self) -> Voids:
        return Voids(self.redis, self.scripts, self.archive)

    async def evicted(self, *item_ids: str) -> None:
        """Return once these items, closed ones, are archived and exported and have left Redis."""

        async def have_left() -> bool:
            await self.evictor.look()
            return not await self.redis.exists(*map(item_key, item_ids))

        await eventually(have_left, seconds=30)

    async def exported(self, *item_ids: str) -> None:
        """Return once these items are exported as they are."""
        sql = """SELECT count(*) AS n FROM items AS i JOIN exports AS x USING (item_id, epoch, seq)
                 WHERE x.state = 'confirmed' AND item_id = ANY ($1)"""

        async def are() -> bool:
            await self.house.all_archived()
            return bool((await self.house.query(sql, list(item_ids)))[0]["n"] == len(item_ids))

        await eventually(are, seconds=30)

    async def fence(self, item_id: str) -> str:
        pipeline: Any = self.redis.pipeline()
        ask_fence(pipeline, names.shard_of(item_id))
        (answer,) = await pipeline.execute()
        fence = decode_fence(answer)
        assert fence is not None
        return fence

    async def traces(self, item_id: str) -> list[str]:
        """Whatever Redis has of an item: its keys, and the indexes that name it."""
        found = [key.decode() async for key in self.redis.scan_iter(f"*{item_id}*")]
        shard = names.shard_of(item_id)
        for key in (closed_key(shard), deadlines_key(shard), opened_key(shard)):
            if await cast(Any, self.redis.zscore(key, item_id)) is not None:
                found.append(key)
        if await cast(Any, self.redis.sismember(lost_key(shard), item_id)):
            found.append(lost_key(shard))
        return found

    async def contents(self, item_id: str) -> dict[str, Any]:
        """What Redis has under the item's keys: hashes, lists, and events, whose members come in any order."""
        redis: Any = self.redis
        found: dict[str, Any] = {}
        for key in sorted([key.decode() async for key in redis.scan_iter(f"*:{item_id}")]):
            is_list = await redis.type(key) == b"list"
            found[key] = await redis.lrange(key, 0, -1) if is_list else await redis.hgetall(key)
            if ":recent:" in key:
                found[key] = [decode_event(event) for event in found[key]]
        return found

    async def answers(self, item_id: str, **requests: Any) -> dict[str, tuple[int, bytes]]:
        """What these requests are answered; each is (method, path, body, headers)."""
        told: dict[str, tuple[int, bytes]] = {}
        for name, (method, path, body, headers) in requests.items():
            answer = await self.house.http.request(method, path.format(item=item_id), json=body, headers=headers)
            told[name] = (answer.status_code, answer.content)
        return told


@asynccontextmanager
async def auction_of(stack: Stack, options: EvictionOptions = AT_ONCE) -> AsyncIterator[Auction]:
    async with AsyncExitStack() as open_:
        house = await open_.enter_async_context(house_of(stack))
        redis = open_redis(stack.urls.redis_url)
        open_.push_async_callback(redis.aclose)
        pool = await open_postgres(stack.urls.postgres_url, name="test")
        open_.callback(pool.terminate)
        nats = NatsLink(stack.urls.nats_url, name="test")
        open_.push_async_callback(nats.close)
        metrics, archive = Metrics(), Archive(pool)
        yield Auction(
            house,
            redis,
            pool,
            Evictor(pool, redis, metrics, options),
            metrics,
            archive,
            ItemScripts(redis, ScriptLimits()),
            Witnesses(archive, nats),
        )


async def sold(house: House, item_id: str, *, price: float = 50, **terms: Any) -> Json:
    """An item that ann has bought at once, after bob had bid on it."""
    await house.create(item_id, buy_now_price=price, reserve_price=price, **terms)
    await house.accepted(item_id, "bob", f"{item_id}-bob", amount=1)
    return await house.accepted(item_id, "ann", f"{item_id}-ann", amount=price)
