"""What the tests of the archive need around the worker: servers with a database of the test's own, an empty Redis and
an empty stream; a relay's part played step by step; workers in the test's event loop, to be stopped or to die."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncpg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from redis.asyncio import Redis

from archival_worker.consume.batcher import BatchLimits
from archival_worker.consume.worker import Worker, WorkerOptions
from archival_worker.metrics import Metrics
from archival_worker.outbox.cursors import CopyOptions, CursorCopier
from archival_worker.store.archive import Archive
from archival_worker.store.migrate import migrate
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.nats import Client, NatsLink, StreamLimits, ensure_stream, open_nats
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.messages import Event
from shared.permissions.accounts import Account
from shared.redis_layout.keys import cursors_key, outbox_key
from shared.streams.puller import PullOptions
from tests.unit.archival_worker.events import message, message_id
from tests.waiting import eventually

PATIENCE_S = 60.0

SOURCE = PullOptions(names.ARCHIVER_DURABLE)
BATCH = BatchLimits()
COPY = CopyOptions(interval_s=0.01)
STREAM = StreamLimits()


@dataclass
class Running:
    """A worker in the test's event loop, with connections of its own."""

    worker: Worker
    cursors: CursorCopier
    metrics: Metrics
    archive: Archive
    link: NatsLink
    tasks: list[asyncio.Task[None]]
    resources: AsyncExitStack

    async def stop(self) -> None:
        """Stop the worker in an orderly way, as on SIGTERM."""
        self.worker.request_stop()
        await asyncio.wait({self.tasks[0]}, timeout=PATIENCE_S)
        self.cursors.request_stop()
        await asyncio.wait(self.tasks, timeout=PATIENCE_S)
        await self.kill()

    async def kill(self) -> None:
        """End it at once: it finishes, acknowledges, gives back and copies nothing. Its defects surface here."""
        running = set(self.tasks)
        while running:
            # Cancel again and again: a task that does not end at once must not hold up the test.
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=0.5)
        results = await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.resources.aclose()
        for result in results:
            if isinstance(result, Exception):
                raise result


@dataclass
class World:
    """The servers as one test sees them."""

    stack: Stack
    postgres_url: str
    redis: Redis
    client: Client
    workers: list[Running] = field(default_factory=list)

    @property
    def jetstream(self) -> JetStreamContext:
        return self.client.jetstream(timeout=30)

    async def query(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.postgres_url)
        try:
            return [dict(row) for row in await connection.fetch(sql, *arguments)]
        finally:
            await connection.close()

    async def value(self, sql: str, *arguments: Any) -> Any:
        (row,) = await self.query(sql, *arguments)
        (value,) = row.values()
        return value

    async def count(self, table: str) -> int:
        return cast(int, await self.value(f"SELECT count(*) FROM {table}"))

    async def archived(self, item_id: str) -> int:
        """The archived n of the item's shard, in PostgreSQL."""
        sql = "SELECT archived_n FROM shard_cursors WHERE shard = $1"
        return cast(int, await self.value(sql, names.shard_of(item_id)))

    async def fill_outbox(self, item_id: str, entries: int, *, epoch: int = 1, published: int | None = None) -> None:
        """Redis after the gateway's scripts wrote so many entries of the item's shard, and its relay published them:
        all of them, or the first ``published``."""
        shard = names.shard_of(item_id)
        published = entries if published is None else published
        cursors = {"epoch": epoch, "next": entries, "published": published, "archived": 0}
        await cast(Any, self.redis).hset(cursors_key(shard), mapping=cursors)
        for n in range(1, entries + 1):
            await self.redis.xadd(outbox_key(shard), {"item": item_id, "events": "[]"}, id=f"{n}-0")

    async def redis_cursors(self, item_id: str) -> dict[bytes, bytes]:
        cursors = await cast(Any, self.redis).hgetall(cursors_key(names.shard_of(item_id)))
        return cast(dict[bytes, bytes], cursors)

    async def outbox_ids(self, item_id: str) -> list[bytes]:
        entries = await cast(Any, self.redis).xrange(outbox_key(names.shard_of(item_id)))
        return [entry for entry, _ in entries]

    async def publish(self, n: int, *events: Event, shard_epoch: int = 1, distinct: bool = True) -> None:
        """One outbox entry as one message. ``distinct=False``: without the id by which JetStream drops a duplicate."""
        item_id = events[0].item_id
        header = message_id(n, item_id, shard_epoch=shard_epoch) if distinct else None
        await self.publish_raw(item_id, message(n, *events, shard_epoch=shard_epoch), header)

    async def publish_raw(self, item_id: str, data: bytes, header: str | None) -> None:
        headers = {"Nats-Msg-Id": header} if header else None
        await self.jetstream.publish(names.subject_of(item_id), data, headers=headers)

    async def publish_all(self, entries: Iterable[tuple[int, Sequence[Event]]]) -> None:
        for n, events in entries:
            await self.publish(n, *events)

    def urls_of(self, account: Account) -> dict[str, str]:
        """The environment of an account, with this world's database."""
        env = self.stack.env_of(account)
        server, database = env["POSTGRES_URL"].rpartition("/")[0], self.postgres_url.rpartition("/")[2]
        return env | {"POSTGRES_URL": f"{server}/{database}"}

    async def start_worker(
        self,
        *,
        source: PullOptions = SOURCE,
        batch: BatchLimits = BATCH,
        after_commit: Callable[[], Awaitable[None]] | None = None,
        copy: CopyOptions = COPY,
        postgres_timeout_s: float = 10.0,
    ) -> Running:
        """A worker that runs until it is stopped, killed, or the test ends."""
        resources = AsyncExitStack()
        urls = self.urls_of(Account.ARCHIVER)
        redis = open_redis(urls["REDIS_URL"], timeout_s=10.0)
        resources.push_async_callback(redis.aclose)
        pool = await open_postgres(urls["POSTGRES_URL"], name="archiver", timeout_s=postgres_timeout_s)
        resources.callback(pool.terminate)
        link = NatsLink(urls["NATS_URL"], name="archiver", timeout_s=10.0)
        resources.push_async_callback(link.close)
        metrics = Metrics()
        archive = Archive(pool)
        cursors = CursorCopier(redis, archive.positions, metrics, copy)
        options = WorkerOptions(batch=batch, source=source)
        hook: dict[str, Any] = {} if after_commit is None else {"after_commit": after_commit}
        worker = Worker(link.connected, archive, cursors, metrics, options, **hook)
        tasks = [asyncio.create_task(worker.run()), asyncio.create_task(cursors.run())]
        running = Running(worker, cursors, metrics, archive, link, tasks, resources)
        self.workers.append(running)
        return running

    async def unfinished(self) -> tuple[int, int] | None:
        """Messages that no worker has, and messages that one has, unacknowledged; None before the first worker."""
        try:
            info = await self.jetstream.consumer_info(names.STREAM, names.ARCHIVER_DURABLE)
        except NotFoundError:
            return None
        return (info.num_pending, info.num_ack_pending)

    async def settled(self) -> bool:
        """Whether workers have taken and acknowledged every message of the stream."""
        state = (await self.jetstream.stream_info(names.STREAM)).state
        if await self.unfinished() != (0, 0):
            return False
        # For a moment after a publication, the consumer does not count it yet.
        info = await self.jetstream.consumer_info(names.STREAM, names.ARCHIVER_DURABLE)
        return state.messages == 0 or (info.delivered is not None and info.delivered.stream_seq >= state.last_seq)

    async def all_archived(self) -> None:
        """Return when every message is acknowledged."""
        await eventually(self.settled, "every message acknowledged", seconds=PATIENCE_S)


async def new_database(stack: Stack, *, template: str = "template1") -> str:
    """The URL of a new database: an empty one, or a copy of another that nobody is connected to."""
    name = f"t_{uuid.uuid4().hex}"
    connection = await asyncpg.connect(stack.urls.postgres_url)
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    finally:
        await connection.close()
    return stack.urls.postgres_url.rpartition("/")[0] + f"/{name}"


_templates: dict[Path, str] = {}


async def migrated_database(stack: Stack) -> str:
    """The URL of a new database with the schema: a copy of one that is migrated once per stack."""
    if stack.data_dir not in _templates:
        url = await new_database(stack)
        await migrate(url)
        _templates[stack.data_dir] = url.rpartition("/")[2]
    return await new_database(stack, template=_templates[stack.data_dir])


@asynccontextmanager
async def new_world(stack: Stack, *, stream: StreamLimits = STREAM) -> AsyncIterator[World]:
    """Everything empty, all servers up; what the test started is gone afterwards."""
    for server in stack.servers:
        # A test that failed may have left one down.
        await stack.start_process(server)
    postgres_url = await migrated_database(stack)
    redis = open_redis(stack.urls.redis_url)
    await redis.flushall()
    client = await open_nats(stack.urls.nats_url, name="test")
    jetstream = client.jetstream()
    with contextlib.suppress(NotFoundError):
        await jetstream.delete_stream(names.STREAM)
    await ensure_stream(jetstream, stream)
    world = World(stack, postgres_url, redis, client)
    try:
        yield world
    finally:
        for running in world.workers:
            await running.kill()
        await client.close()
        await redis.aclose()
