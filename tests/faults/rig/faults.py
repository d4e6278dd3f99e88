"""Faults on a running stack, and the timeline of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Mapping

import asyncpg
from nats.js import JetStreamContext
from redis.asyncio import Redis

from infrastructure.local.errors import ProcessFailed
from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared.clients.nats import open_nats
from shared.clients.redis import open_redis
from shared.permissions.accounts import Account
from tests.preforked import run_forked

logger = logging.getLogger(__name__)

_READY_TIMEOUT_S = 90.0
_RECOVER_TIMEOUT_S = 180.0


class Faults:
    """What is done to one stack. All goes through these methods, so that the timeline knows of it."""

    def __init__(self, stack: Stack, *, seed: int, codes: Mapping[str, int]) -> None:
        """
        Args:
            codes: how many answers of which kind bidders have had so far; each line of the timeline says so.
        """
        self.stack = stack
        self.redis_url = stack.urls.redis_url
        self.nats_url = stack.urls.nats_url
        self.seed = seed
        self.chance = random.Random(seed)
        self.timeline: list[str] = []
        self.faults = 0
        self._codes = codes
        self._began_s = time.monotonic()
        for process in stack.processes.values():
            # A process that starts beside bids at full speed, on a machine that has other work, takes its time.
            process.spec = dataclasses.replace(process.spec, ready_timeout_s=_READY_TIMEOUT_S)

    def note(self, what: str) -> None:
        """Write into the timeline."""
        line = f"{time.monotonic() - self._began_s:8.3f} s  {what}   [{dict(self._codes)} so far]"
        self.timeline.append(line)
        logger.info("%s", line)

    def fault(self, what: str) -> None:
        """Write a fault into the timeline."""
        self.faults += 1
        self.note(what)

    def some(self, least: int, most: int) -> int:
        """A number out of the seed."""
        return self.chance.randint(least, most)

    async def kill(self, name: str) -> None:
        """SIGKILL, and wait until the process is gone."""
        self.fault(f"kill -9 {name}")
        self.stack.kill(name)
        assert await self.stack.wait_ended(name)

    async def died(self, name: str, *, within_s: float = 20.0) -> None:
        """Wait until a process has ended by itself."""
        assert await self.stack.wait_ended(name, within_s), f"{name} lives on"
        self.note(f"{name} {self.stack.processes[name].exit_text}")

    async def start(self, name: str) -> None:
        """Start a process that has ended, and wait until it is ready."""
        await self.stack.start_process(name)
        self.note(f"{name} is up again")

    def suspend(self, name: str) -> None:
        """SIGSTOP."""
        self.fault(f"SIGSTOP {name}")
        self.stack.kill(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT."""
        self.note(f"SIGCONT {name}")
        self.stack.kill(name, signal.SIGCONT)

    async def reconfigure(self, name: str, **env: str) -> None:
        """Restart a service with more in its environment."""
        await self.stack.stop_process(name)
        self._set_env(name, {**self.stack.processes[name].spec.env, **env})
        await self.start(name)
        self.note(f"{name} runs with {env}")

    async def crash_at(self, name: str, place: str, *, times: int) -> None:
        """Have a service kill itself when it comes to a crash point for the ``times``-th time; then start it again."""
        usual = self.stack.processes[name].spec.env
        await self.stack.stop_process(name)
        self._set_env(name, {**usual, "CRASH_AT": f"{place}:{times}"})
        self.fault(f"{name} starts with CRASH_AT={place}:{times}")
        # Under load it may be there even before it is seen to be ready.
        with contextlib.suppress(ProcessFailed):
            await self.stack.start_process(name)
        await self.died(name)
        self._set_env(name, usual)
        await self.start(name)

    def _set_env(self, name: str, env: Mapping[str, str]) -> None:
        process = self.stack.processes[name]
        process.spec = dataclasses.replace(process.spec, env=env)

    async def add_gateway(self, name: str, **env: str) -> str:
        """One more gateway; returns its URL. Bidders do not know of it yet."""
        (port,) = free_ports(1)
        await self.stack.add_service(name, API_GATEWAY, port, {"GATEWAY_PORT": str(port), **env})
        return f"http://{HOST}:{port}"

    async def recover(self, *options: str) -> tuple[int, str]:
        """`bidding recover`, as an operator calls it beside the running services; its exit code and what it said."""
        self.note("recover begins")
        async with asyncio.timeout(_RECOVER_TIMEOUT_S):
            env = dict(self.stack.processes[ARCHIVAL_WORKER].spec.env)
            # The archiver's servers, as another account there: but for those that a fault has put something before.
            usual, operator = self.stack.env_of(Account.ARCHIVER), self.stack.env_of(Account.OPERATOR)
            env |= {name: operator[name] for name, url in usual.items() if url != operator[name] and env[name] == url}
            code, text = await run_forked(ARCHIVAL_WORKER, "recover", *options, env=env)
        self.note(f"recover ended with {code}: {' / '.join(text.splitlines()[1:])[:600]}")
        return code, text

    # ------------------------------------------------------------------ behind the services' back

    @contextlib.asynccontextmanager
    async def redis(self) -> AsyncIterator[Redis]:
        """A connection to the Redis of the stack."""
        redis = open_redis(self.redis_url, timeout_s=10)
        try:
            yield redis
        finally:
            await redis.aclose()

    @contextlib.asynccontextmanager
    async def postgres(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection to the PostgreSQL of the stack that may always write."""
        url = self.stack.urls.postgres_url
        connection = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
        try:
            yield connection
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def jetstream(self) -> AsyncIterator[JetStreamContext]:
        """JetStream of the stack."""
        client = await open_nats(self.nats_url, name="faults")
        try:
            yield client.jetstream()
        finally:
            await client.close()

    def log(self, name: str) -> str:
        """What a process has written to its log so far."""
        return self.stack.log_path(name).read_text(errors="replace")

    def account(self) -> str:
        """The seed and all that happened, for whoever reads of a failure."""
        return "\n".join([f"FAULTS_SEED={self.seed} repeats this run. What happened:", *self.timeline])
