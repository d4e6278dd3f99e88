"""What the tests of the live feed need around the broadcaster: an auction house that decides bids in Redis by the gateway's own
scripts and publishes them as its relay does, one step at a time; viewers; and a connection to Redis that can be held up."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection

from shared import names
from shared.clients.nats import Client, ensure_stream, open_nats
from shared.clients.redis import open_redis
from shared.domain.auction import Terms
from shared.item_state import item_fields
from shared.messages import frame_batch

_LUA = Path(__file__).parents[2] / "api_gateway" / "engine" / "lua"
_OPEN = (_LUA / "open_item.lua").read_text()
_PLACE = (_LUA / "place_bids.lua").read_text()
_BOUND = "1000000"
PATIENCE_S = 10.0

Json = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One outbox entry: what the relay makes one message of."""

    item_id: str
    n: int
    events: bytes


class AuctionHouse:
    """Decides in Redis; ``publish`` is a step of its own, so that a test may leave it out, delay or repeat it."""

    def __init__(self, redis: Redis, nats: Client) -> None:
        self._redis = redis
        self._nats = nats
        self._bids = 0

    @classmethod
    @asynccontextmanager
    async def at(cls, redis_url: str, nats_url: str) -> AsyncIterator[Self]:
        redis = open_redis(redis_url)
        nats = await open_nats(nats_url, name="auction-house")
        try:
            await ensure_stream(nats.jetstream())
            yield cls(redis, nats)
        finally:
            await nats.close()
            await redis.aclose()

    async def open(self, item_id: str | None = None, **terms: Any) -> str:
        """A new item, open for bids, whose ``created`` event is published."""
        item_id = item_id or f"item-{uuid.uuid4().hex[:12]}"
        await self.publish(await self.create(item_id, **terms))
        return item_id

    async def create(self, item_id: str, **terms: Any) -> Entry:
        shard = names.shard_of(item_id)
        # What init_shard.lua does.
        cursors = {"epoch": "1", "next": "0", "published": "0", "archived": "0"}
        if not await self._redis.exists(names.cursors_key(shard)):
            await cast(Any, self._redis.hset(names.cursors_key(shard), mapping=cursors))
        own = {
            "name": "A vase",
            "description": "blue",
            "seller_id": None,
            "start_price": terms.get("start_price", 0),
            "reserve_price": terms.get("reserve_price"),
            "buy_now_price": terms.get("buy_now_price"),
            "increment_kind": "flat",
            "increment_value": 1,
            "increment_steps": "",
            "soft_close": "",
            "auto_opened": False,
        }
        fields = item_fields(Terms(item_id, 0, **terms), name="A vase", description="blue")
        keys = [names.item_key(item_id), names.recent_key(item_id), names.outbox_key(shard), names.cursors_key(shard)]
        answer = await cast(
            Any,
            self._redis.eval(
                _OPEN,
                5,
                *keys,
                names.deadlines_key(shard),
                *(item_id, _BOUND, "", "", "", json.dumps(own)[1:-1] + ","),
                *(part for pair in fields.items() for part in pair),
            ),
        )
        assert answer[0] == 0, answer
        return await self._entry(item_id, answer[1])

    async def decide(self, item_id: str, *amounts: int, user: str = "ann") -> Entry:
        """Bids of these minor units, all of which must be accepted, in one outbox entry; not published."""
        shard = names.shard_of(item_id)
        keys = [
            *(names.item_key(item_id), names.proxies_key(item_id), names.recent_key(item_id)),
            *(names.outbox_key(shard), names.cursors_key(shard), names.deadlines_key(shard)),
        ]
        bids: list[str] = []
        for amount in amounts:
            self._bids += 1
            bids += [user, str(amount), "", f"bid-{self._bids}", "0", "", ""]
        answer = await cast(Any, self._redis.eval(_PLACE, 6, *keys, item_id, _BOUND, "512", "60", *bids))
        assert answer[0] == 0, answer
        assert all(verdict.startswith(b"A|") for verdict in answer[2:]), answer
        return await self._entry(item_id, answer[1])

    async def publish(self, entry: Entry) -> None:
        """As the relay does, until JetStream has it."""
        shard = names.shard_of(entry.item_id)
        await self._nats.jetstream().publish(
            names.subject_of(entry.item_id),
            frame_batch(shard, 1, entry.n, entry.item_id, entry.events),
            headers={"Nats-Msg-Id": names.message_id(shard, 1, entry.n)},
        )

    async def publish_raw(self, item_id: str, data: bytes) -> None:
        await self._nats.jetstream().publish(names.subject_of(item_id), data)

    async def bid(self, item_id: str, *amounts: int, user: str = "ann") -> Entry:
        """Decide and publish."""
        entry = await self.decide(item_id, *amounts, user=user)
        await self.publish(entry)
        return entry

    async def _entry(self, item_id: str, n: int) -> Entry:
        key = names.outbox_key(names.shard_of(item_id))
        [(_, fields)] = await cast(Any, self._redis.xrange(key, f"{n}-0", f"{n}-0"))
        return Entry(item_id, n, fields[b"events"])


async def receive(viewer: ClientConnection) -> Json:
    """The next frame."""
    async with asyncio.timeout(PATIENCE_S):
        return cast(Json, json.loads(await viewer.recv()))


async def receive_many(viewer: ClientConnection, count: int) -> list[Json]:
    return [await receive(viewer) for _ in range(count)]


async def receive_until_seq(viewer: ClientConnection, seq: int) -> list[Json]:
    """Frames up to the one with this seq, or a later one."""
    frames = [await receive(viewer)]
    while frames[-1].get("seq", -1) < seq:
        frames.append(await receive(viewer))
    return frames


async def greeted(viewer: ClientConnection) -> Json:
    """Past ``connected``: the second frame."""
    assert (await receive(viewer))["type"] == "connected"
    return await receive(viewer)


class Gate:
    """A TCP proxy whose answers, or requests, can be held back: a slow network at exactly the moment that a test chooses."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self.held = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self._tasks: set[asyncio.Task[None]] = set()
        for event in self._open.values():
            event.set()
        self.port = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self, what: str) -> None:
        self.held[what].clear()
        self._open[what].clear()

    def release(self, what: str) -> None:
        self._open[what].set()

    async def something_held(self, what: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.held[what].wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, "requests"))
                group.create_task(self._pump(far_reader, writer, "answers"))
        finally:
            writer.close()
            far_writer.close()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str) -> None:
        while data := await reader.read(65_536):
            if not self._open[what].is_set():
                self.held[what].set()
                await self._open[what].wait()
            writer.write(data)
            await writer.drain()
        writer.close()
