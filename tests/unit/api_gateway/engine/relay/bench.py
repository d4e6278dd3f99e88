"""A bench for the relay without a network: one shard's Redis and JetStream, which do what a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from nats.js.api import Header

from api_gateway.engine.relay.in_flight import PubAck
from api_gateway.engine.relay.options import RelayOptions
from api_gateway.engine.relay.relay import Relay
from api_gateway.engine.relay.shard_scripts import Advance, Hold, ShardScripts, Turn
from shared import names
from shared.clients.nats import NatsLink
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key
from shared.redis_layout.outbox import Entry
from tests.waiting import eventually

ITEM = "lot"
SHARD = names.shard_of(ITEM)
OURS = Lineage("run-1", 1)
BRIEF_MS = 150
"""A lease that a test waits out; any other must outlast a machine that stands still for a while."""


@dataclass
class Cursors:
    """One shard's, as Redis has them."""

    run: str = OURS.run
    epoch: int | None = OURS.epoch
    published: int = 0
    archived: int = 0
    stream_id: str = ""
    stream_seq: int = 0
    republish: str | None = None
    next: int = 0
    stale: int | None = None

    def read(self, fields: Sequence[str]) -> list[bytes | None]:
        values = [getattr(self, name) for name in fields]
        return [None if value is None else str(value).encode() for value in values]


class FakeRedis:
    """One shard: its outbox, and its cursors as pipelines read them; other shards have neither, unless a test adds them
    to ``shards``: then they have the same."""

    def __init__(self) -> None:
        self.shards = {SHARD}
        self.entries: list[int] = []
        self.cursors = Cursors()
        self.on_read: Callable[[], None] = lambda: None

    def pipeline(self, *, transaction: bool) -> FakePipeline:
        return FakePipeline(self)


class FakePipeline:
    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._commands: list[Callable[[], Any]] = []

    def hmget(self, key: str, fields: Sequence[str]) -> None:
        ours = key in map(cursors_key, self._redis.shards)
        self._commands.append(lambda: self._redis.cursors.read(fields) if ours else [None] * len(fields))

    async def execute(self) -> list[Any]:
        return [command() for command in self._commands]


async def _at_once() -> None:
    return


class FakeScripts:
    """The shard's scripts on that Redis; the lease is ours unless it is made to wait, or somebody else has it."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self.may_lease = asyncio.Event()
        self.may_lease.set()
        self.is_ours = True
        self.holds: list[Hold] = []
        self.refuses = 0
        self.rewinds = 0
        self.stopped: list[Lineage] = []
        self.on_moved: Callable[[], Awaitable[None]] = _at_once

    async def lease(self, shards: Sequence[str], token: str, ttl_ms: int, *, hold: Hold) -> list[bool]:
        await self.may_lease.wait()
        self.holds.append(hold)
        return [shard in self._redis.shards and self.is_ours for shard in shards]

    async def news(self, known: Mapping[str, tuple[Lineage, int]]) -> set[str]:
        cursors = self._redis.cursors
        self._redis.on_read()
        return {
            shard
            for shard, (lineage, published) in known.items()
            if lineage != Lineage(cursors.run, cursors.epoch or 0) or any(n > published for n in self._redis.entries)
        }

    async def find_unpublished(self, shards: Sequence[str], *, stream_id: str, last_seq: int) -> set[str]:
        cursors = self._redis.cursors
        is_same = cursors.stream_id in ("", stream_id) and cursors.stream_seq <= last_seq
        return set() if is_same and cursors.republish is None else {SHARD} & {*shards}

    async def turn(
        self, advances: Mapping[str, Advance], after: Mapping[str, int], *, token: str, stream_id: str, count: int
    ) -> dict[str, Turn]:
        moved = {shard: self._move(advance, stream_id) for shard, advance in advances.items()}
        cursors = self._redis.cursors
        turns: dict[str, Turn] = {}
        for shard in dict.fromkeys((*after, *advances)):
            is_moved = moved.get(shard, True)
            if shard != SHARD or cursors.epoch is None:
                turns[shard] = Turn(is_moved, None, [])
                continue
            asked = shard in after and is_moved
            entries = [Entry(n, ITEM, b"[]", None) for n in self._redis.entries if asked and n > after[shard]]
            turns[shard] = Turn(is_moved, Lineage(cursors.run, cursors.epoch), entries[:count])
        if after:
            self._redis.on_read()
        if advances:
            await self.on_moved()
        return turns

    def _move(self, advance: Advance, stream_id: str) -> bool:
        if self.refuses or not self._may_move(advance, stream_id):
            self.refuses = max(0, self.refuses - 1)
            return False
        self._redis.cursors.published = advance.entry
        self._redis.cursors.stream_id, self._redis.cursors.stream_seq = stream_id, advance.stream_seq
        return True

    def _may_move(self, advance: Advance, stream_id: str) -> bool:
        cursors = self._redis.cursors
        is_left = not self.is_ours or self.holds[-1:] == ["leave"]
        is_same = advance.lineage == Lineage(cursors.run, cursors.epoch or 0)
        return not is_left and is_same and cursors.stream_id in ("", stream_id) and advance.after <= cursors.published

    async def rewind_published(self, shard: str, *, token: str, stream_id: str) -> bool:
        self.rewinds += 1
        cursors = self._redis.cursors
        cursors.published, cursors.stream_id, cursors.stream_seq = cursors.archived, stream_id, 0
        cursors.republish = None
        return True

    async def stop_shard(self, shard: str, lineage: Lineage, *, token: str) -> bool:
        self.stopped.append(lineage)
        self._redis.cursors.epoch = None
        return True


@dataclass
class FakeStream:
    """JetStream, its client, and the link to it. ``answers`` are given to publications in turn: PubAcks, errors as JSON
    has them, None where nothing comes. Then each is stored."""

    answers: list[PubAck | dict[str, Any] | None] = field(default_factory=list)
    published: list[tuple[str, bytes]] = field(default_factory=list)
    looks: list[Any] = field(default_factory=list)
    looked_at: list[int] = field(default_factory=list)
    infos: int = 0
    created: str = "one"
    last_seq: int = 0
    is_connected: bool = True
    on_publish: Callable[[], None] = lambda: None
    on_answer: Callable[[Any], Awaitable[None]] = field(init=False)

    @property
    def client(self) -> FakeStream | None:
        return self if self.is_connected else None

    @property
    def ids(self) -> list[int]:
        """The entries that were published, in order."""
        entries = [names.entry_of_message_id(message_id) for message_id, _ in self.published]
        return [entry.n for entry in entries if entry is not None]

    async def connected(self) -> FakeStream:
        if not self.is_connected:
            raise ConnectionError("NATS is disconnected")
        return self

    def new_inbox(self) -> str:
        return "_INBOX.bench"

    async def subscribe(self, subject: str, *, cb: Any) -> None:
        if subject == "_INBOX.bench.*":
            self.on_answer = cb

    def jetstream(self) -> FakeStream:
        return self

    async def stream_info(self, name: str) -> Any:
        self.infos += 1
        return SimpleNamespace(created=self.created, state=SimpleNamespace(last_seq=self.last_seq))

    async def publish(self, subject: str, payload: bytes, *, reply: str, headers: dict[Header, str]) -> None:
        self.published.append((headers[Header.MSG_ID], payload))
        self.on_publish()
        answer = self.answers.pop(0) if self.answers else PubAck(self.last_seq + 1)
        if isinstance(answer, PubAck) and not answer.duplicate:
            self.last_seq = answer.seq
        if answer is not None:
            told = {"error": answer} if isinstance(answer, dict) else {"stream": names.STREAM, **answer._asdict()}
            await self.on_answer(SimpleNamespace(subject=reply, data=msgspec.json.encode(told)))

    async def get_msg(self, stream: str, *, seq: int) -> Any:
        self.looked_at.append(seq)
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look


class Bench:
    """A relay that runs, and what it told of; with ``BRIEF_MS`` its lease runs out soon."""

    def __init__(self, *entries: int, lease_ms: int = 5_000, backoff_max_s: float = 0.01, **cursors: Any) -> None:
        self.redis, self.stream = FakeRedis(), FakeStream()
        self.redis.entries, self.redis.cursors = list(entries), Cursors(**cursors)
        self.scripts = FakeScripts(self.redis)
        self.moves: list[tuple[Lineage, int]] = []
        self.read: list[tuple[str, int, int]] = []
        self.relay = Relay(
            cast(Any, self.redis),
            cast(ShardScripts, self.scripts),
            cast(NatsLink, self.stream),
            options=RelayOptions(lease_ms=lease_ms, poll_ms=5, ack_timeout_s=0.1, backoff_max_s=backoff_max_s),
            on_published=lambda shard, lineage, entry: self.moves.append((lineage, entry)),
            on_read=lambda *place: self.read.append(place),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.relay.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def reached(self, entry: int) -> None:
        async def there() -> bool:
            return self.redis.cursors.published >= entry

        await eventually(there, seconds=30)


def duplicate(seq: int) -> PubAck:
    return PubAck(seq, duplicate=True)
