"""Nodes and front ends as processes, before a PostgreSQL that logs every question; and an archive that is filled by
hand."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import aiohttp
import asyncpg

from infrastructure.local.cache_nodes import CACHE_NODE
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from tests.waiting import eventually

SLOWNESS: Final = 5
"""A busy machine is slow: the times that are promised hold on an idle one, and are printed."""
READY_S: Final = 60.0

PATIENT: Final = {"READ_CACHE_PEER_TIMEOUT_MS": "2000", "READ_CACHE_LEASE_S": "15"}
"""Settings for tests that kill no node: a busy machine makes a peer silent for longer than the usual 250 ms."""

Json = dict[str, Any]

_INSERT: Final = """
    WITH made AS (
        INSERT INTO items (item_id, name, currency, start_price, increment_kind, increment_value, start_at, created_at,
                           epoch, seq, current_bid, bid_count, min_next_bid, status, reserve_met, updated_at)
        SELECT id, id, 'USD', 0, 'flat', 1, now(), now(), 1, 1, 100, 0, 101, 'unsold', true, now()
        FROM unnest($1::text[]) AS id RETURNING item_id, epoch, seq)
    INSERT INTO chains (item_id, epoch, seq) SELECT item_id, epoch, seq FROM made"""


def tell(text: str) -> None:
    """What was measured, for whoever runs the tests with ``-s``."""
    sys.stdout.write(f"\n  {text}\n")


@dataclass(slots=True)
class Answer:
    """One answer to a GET."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass
class CacheWorld:
    """A stack with PostgreSQL and NATS, and the nodes that run on it."""

    stack: Stack
    session: aiohttp.ClientSession
    http: dict[str, str] = field(default_factory=dict)
    """Where each process answers HTTP, by its name."""

    # Processes

    async def start(self, *names: str, role: str = "node", module_env: Mapping[str, str] | None = None) -> None:
        """Nodes or front ends of these names, all at once; those that ran before have their old ports."""
        again = [name for name in names if name in self.stack.processes]
        new = [name for name in names if name not in self.stack.processes]
        ports = free_ports(2 * len(new))
        starting = [self.stack.start_process(name) for name in again]
        for number, name in enumerate(new):
            http, grpc = ports[2 * number], ports[2 * number + 1]
            self.http[name] = f"http://127.0.0.1:{http}"
            env = {
                "CACHE_ROLE": role,
                "CACHE_PORT": str(http),
                "CACHE_NODE_PORT": str(grpc),
                "CACHE_NODE_NAME": name,
                # Longer than the usual 2 s, since tests hold questions up and the machine may be slow.
                "CACHE_POSTGRES_TIMEOUT_S": "5",
                **(module_env or {}),
            }
            starting.append(self.stack.add_service(name, CACHE_NODE, http, env))
        await asyncio.gather(*starting)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        self.stack.kill(name, number)

    async def agreed(self, *names: str, seconds: float = READY_S) -> Json:
        """Return what one node tells of the ring, once each of these sees all of these in it, and nobody else."""

        async def is_agreed() -> list[Json]:
            told = [await self.stats(name) for name in names]
            epochs = {one["epoch"] for one in told if one is not None}
            members = {tuple(sorted(one["nodes"])) for one in told if one is not None}
            is_one = len(epochs) == 1 and members == {tuple(sorted(names))}
            return [cast(Json, told[0])] if is_one and None not in told else []

        return (await eventually(is_agreed, f"{', '.join(names)} agree on the ring", seconds=seconds))[0]

    async def in_step(self, *names: str) -> None:
        """Return once these nodes keep values."""

        async def are() -> bool:
            return all([(told := await self.stats(name)) is not None and told["keeping"] for name in names])

        await eventually(are, "nodes keep values", seconds=READY_S)

    # Asking

    async def get(self, name: str, path: str, **parameters: str) -> Answer:
        """A GET at one process.

        Raises:
            aiohttp.ClientError, TimeoutError: no answer.
        """
        async with self.session.get(f"{self.http[name]}{path}", params=parameters) as answer:
            return Answer(answer.status, await answer.read(), answer.headers)

    async def value(self, name: str, key: str) -> Answer:
        return await self.get(name, "/api", key=key)

    async def stats(self, name: str) -> Json | None:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self.session.get(f"{self.http[name]}/stats", timeout=aiohttp.ClientTimeout(total=5)) as answer:
                return cast(Json, await answer.json())
        return None

    async def total(self, count: str, names: Collection[str] = ()) -> int:
        """The sum of a counter over these processes, or all."""
        told = [await self.stats(name) for name in names or self.http]
        return sum(one["counts"][count] for one in told if one is not None)

    # PostgreSQL

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.stack.urls.postgres_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def add_closed(self, *item_ids: str) -> None:
        """Closed items of which the archive has everything."""
        async with self.connected() as connection:
            await connection.execute(_INSERT, list(item_ids))

    @asynccontextmanager
    async def held_up(self) -> AsyncIterator[None]:
        """While inside, no question about items is answered."""
        async with self.connected() as connection, connection.transaction():
            await connection.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
            yield

    async def questions_about(self, item_id: str) -> int:
        """How many questions about an item PostgreSQL has executed, as its own log tells."""
        # What was asked before this is in the log before it.
        async with self.connected() as connection:
            await connection.execute(f"SELECT 'end of {item_id}'")
        path = self.stack.log_path("postgres")

        async def text() -> str | None:
            log = path.read_text(errors="replace")
            return log if f"'end of {item_id}'" in log else None

        log = await eventually(text)
        pattern = rf"^.*DETAIL: .*arameters: \$1 = '\{{\"?{re.escape(item_id)}\"?\}}', \$2 = .*$"
        return len(re.findall(pattern, log, re.MULTILINE))


@asynccontextmanager
async def cache_world(stack: Stack) -> AsyncIterator[CacheWorld]:
    """The world on a running stack, whose PostgreSQL logs every statement from now on."""
    with (stack.data_dir / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("\nlog_statement = 'all'\n")
    stack.kill("postgres", signal.SIGHUP)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        world = CacheWorld(stack, session)

        async def logs() -> bool:
            async with world.connected() as connection:
                return bool(await connection.fetchval("SHOW log_statement") == "all")

        await eventually(logs)
        yield world
