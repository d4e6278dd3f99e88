"""Helpers for the tests of the live feed.

A gateway's work in single steps: decisions in Redis, by the gateway's own scripts, and publishing, like its relay; the
frames that a viewer reads; and a connection to Redis that a test can hold up at any moment.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

import httpx2 as httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import BidScripts, Decided
from api_gateway.engine.creation.new_item import NewItem, created_members
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits, Transition
from api_gateway.engine.relay.shard_scripts import ShardScripts
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.nats import Client, ensure_stream, open_nats
from shared.clients.redis import open_redis
from shared.domain.auction import Terms
from shared.messages import frame_batch
from shared.redis_layout.item_hash import item_fields
from shared.redis_layout.keys import outbox_key, recent_key
from tests.stack import running_stack
from tests.tcp import Way, relay, serving
from tests.waiting import eventually

FEED = "broadcast_service"
PATIENCE_S = 60.0
ANSWER_S = 30.0
"""Seconds for one answer of a server, while other tests run."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One outbox entry, of which the relay makes one message."""

    item_id: str
    n: int
    events: bytes


class AuctionHouse:
    """Decides in Redis. ``publish`` is a separate step, so that a test may omit, delay or repeat it."""

    def __init__(self, redis: Redis, nats: Client) -> None:
        self._redis = redis
        self._nats = nats
        limits = ScriptLimits()
        self._scripts = ItemScripts(redis, limits)
        self._bids = BidScripts(redis, limits, timeout_s=ANSWER_S)
        self._numbers = itertools.count(1)

    @classmethod
    @asynccontextmanager
    async def at(cls, redis_url: str, nats_url: str) -> AsyncIterator[Self]:
        redis = open_redis(redis_url, timeout_s=ANSWER_S)
        nats = await open_nats(nats_url, name="auction-house")
        house = cls(redis, nats)
        try:
            await ensure_stream(nats.jetstream(timeout=ANSWER_S))
            # As each gateway does when it starts: a shard without cursors counts as lost.
            for shard in names.SHARDS:
                await ShardScripts(redis).init_shard(shard)
            yield house
        finally:
            await house._bids.close()
            await nats.close()
            await redis.aclose()

    async def open(self, item_id: str | None = None, **terms: Any) -> str:
        """A new item, open for bids, whose ``created`` event is published."""
        item_id = item_id or f"item-{uuid.uuid4().hex[:12]}"
        await self.publish(await self.create(item_id, **terms))
        return item_id

    async def create(self, item_id: str, **terms: Any) -> Entry:
        """A new item; its event is not published."""
        item = NewItem(Terms(item_id, 0, **terms), name="A vase", description="blue")
        opened = await self._scripts.open_item(
            item_id,
            start_us=item.start_us,
            end_us=item.terms.end_us,
            length_us=item.length_us,
            event_members=created_members(item),
            fields=item_fields(item.terms, name=item.name, description=item.description),
        )
        assert opened.created
        return await self._entry(item_id, opened.entry)

    async def decide(self, item_id: str, *amounts: int, user: str = "ann") -> Entry:
        """Bids of these amounts in minor units, in one outbox entry; not published. All must be accepted."""
        future = PendingVerdict()
        bids = [
            PendingBid(item_id, user, f"bid-{next(self._numbers)}", amount, None, None, False, future)
            for amount in amounts
        ]
        [decided] = await self._bids.place([bids])
        assert isinstance(decided, Decided), decided
        assert all(verdict.startswith(b"A|") for verdict in decided.verdicts), decided
        return await self._entry(item_id, decided.entry)

    async def bid(self, item_id: str, *amounts: int, user: str = "ann") -> Entry:
        """Decide and publish."""
        entry = await self.decide(item_id, *amounts, user=user)
        await self.publish(entry)
        return entry

    async def operate(self, name: Transition, item_id: str, reason: str) -> None:
        """An operation of an operator, published."""
        n = await self._scripts.transition(name, item_id, reason=reason, by="operator-1")
        await self.publish(await self._entry(item_id, n))

    async def publish(self, entry: Entry) -> None:
        """Publish like the relay, until JetStream has the message."""
        shard = names.shard_of(entry.item_id)
        await self._nats.jetstream(timeout=ANSWER_S).publish(
            names.subject_of(entry.item_id),
            frame_batch(shard, 1, entry.n, entry.item_id, entry.events),
            headers={"Nats-Msg-Id": names.message_id(shard, 1, entry.n)},
        )

    async def publish_raw(self, item_id: str, data: bytes) -> None:
        """Publish any data in place of an event of the item."""
        await self._nats.jetstream(timeout=ANSWER_S).publish(names.subject_of(item_id), data)

    async def consumers(self) -> set[str]:
        """The names of all consumers of the stream."""
        jetstream = self._nats.jetstream(timeout=ANSWER_S)
        return {consumer.name for consumer in await jetstream.consumers_info(names.STREAM)}

    async def delete_consumers(self, *, but: set[str]) -> None:
        """Delete the consumers of the stream that are not of these names; their subscribers are not told."""
        for name in await self.consumers() - but:
            await self._nats.jetstream(timeout=ANSWER_S).delete_consumer(names.STREAM, name)

    async def shorten_recent(self, item_id: str, kept: int) -> None:
        """Keep only so many recent events, as if more events had pushed the others out."""
        await cast(Any, self._redis.ltrim(recent_key(item_id), 0, kept - 1))

    async def _entry(self, item_id: str, n: int) -> Entry:
        key = outbox_key(names.shard_of(item_id))
        [(_, fields)] = await cast(Any, self._redis.xrange(key, f"{n}-0", f"{n}-0"))
        return Entry(item_id, n, fields[b"events"])


def running_feed(postgres_url: str) -> AbstractContextManager[Stack]:
    """A broadcaster with Redis and NATS for this test module alone, so that nobody else publishes events.

    It takes 15 s of silence for a failure of NATS: on a busy machine it may stand still for a few seconds itself.
    """
    env = {"OPEN_CATALOGUE": "false", "FEED_HEARTBEAT_S": "5"}
    return running_stack(services=(FEED,), env=env, postgres_url=postgres_url)


def ws_url(stack: Stack, path: str, port: int | None = None) -> str:
    return f"ws://127.0.0.1:{port or stack.ports.broadcast}{path}"


@asynccontextmanager
async def another_feed(stack: Stack, name: str, **env: str) -> AsyncIterator[int]:
    """Start another broadcaster on the same servers, with its own settings; returns its port."""
    [port] = free_ports(1)
    await stack.add_service(name, FEED, port, {"BROADCAST_PORT": str(port), **env})
    try:
        yield port
    finally:
        await stack.stop_process(name)


async def raw_upgrade(port: int, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket that does not answer by itself."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    return reader, writer


async def http_get(stack: Stack, path: str, port: int | None = None, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=ANSWER_S) as client:
        return await client.get(f"http://127.0.0.1:{port or stack.ports.broadcast}{path}", headers=headers)


async def metric(stack: Stack, name: str, port: int | None = None) -> float:
    text = (await http_get(stack, "/metrics", port)).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def until_metric(
    stack: Stack, name: str, at_least: float, port: int | None = None, *, every_s: float = 0.0
) -> None:
    """Wait until a metric is so high; ``every_s``: seconds between two looks, for what takes long."""

    async def reached() -> bool:
        await asyncio.sleep(every_s)
        return await metric(stack, name, port) >= at_least

    await eventually(reached, f"{name} of {at_least} or more", seconds=PATIENCE_S)


async def closed_with(viewer: ClientConnection) -> int:
    """Read to the end; the close code that the service sent."""

    async def read_all() -> None:
        while True:
            await viewer.recv()

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ConnectionClosed) as closed:
            await read_all()
    assert closed.value.rcvd is not None, "cut off without a close frame"
    return closed.value.rcvd.code


def seqs(frames: list[Json]) -> list[int]:
    return [frame["seq"] for frame in frames]


NOISE = frozenset({"heartbeat", "viewers"})
"""Frames that come by the clock, in between whatever else is said."""


async def receive(viewer: ClientConnection, *, without: frozenset[str] = NOISE) -> Json:
    """The next frame that is not of the types ``without``."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            frame = cast(Json, json.loads(await viewer.recv()))
            if frame["type"] not in without:
                return frame


async def receive_many(viewer: ClientConnection, count: int) -> list[Json]:
    frames: list[Json] = []
    for _ in range(count):
        try:
            frames.append(await receive(viewer))
        except TimeoutError as error:
            raise TimeoutError(f"{count} frames were expected, and only these came: {frames}") from error
    return frames


async def receive_type(viewer: ClientConnection, kind: str) -> Json:
    """The next frame of this type; earlier ones are skipped."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            frame = cast(Json, json.loads(await viewer.recv()))
            if frame["type"] == kind:
                return frame


async def receive_until_seq(viewer: ClientConnection, seq: int) -> list[Json]:
    """Frames up to the one with this seq, or a later one."""
    frames = [await receive(viewer)]
    while frames[-1].get("seq", -1) < seq:
        frames.append(await receive(viewer))
    return frames


async def greeted(viewer: ClientConnection) -> Json:
    """The second frame, after ``connected``."""
    assert (await receive(viewer))["type"] == "connected"
    return await receive(viewer)


class Gate:
    """A TCP proxy that can hold back requests or answers: a slow network, when the test wants it."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._open: dict[Way, asyncio.Event] = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        self.held: dict[Way, asyncio.Event] = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        for event in self._open.values():
            event.set()
        self.port = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Self]:
        async with serving(self._connected) as self.port:
            yield self

    def hold(self, what: Way) -> None:
        self.held[what].clear()
        self._open[what].clear()

    def release(self, what: Way) -> None:
        self._open[what].set()

    async def something_held(self, what: Way) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.held[what].wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, self._target_port, self._when_open)

    async def _when_open(self, way: Way, data: bytes) -> bytes:
        if not self._open[way].is_set():
            self.held[way].set()
            await self._open[way].wait()
        return data
