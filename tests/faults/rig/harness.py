"""A fault run: the whole stack, a crowd that bids and watches, faults on a seeded timeline, and the judge at the end.

    async with fault_run(start_stack) as run:
        async with run.bidders.bidding():
            await run.bidders.more(run.some(50, 150))
            await run.kill("redis")
            await run.start("redis")
            await run.bidders.more(100)
        await run.prove()

When faults happen is counted in acknowledged bids, drawn from the seed. A run that fails says its seed and what
happened when; ``FAULTS_SEED=<seed>`` repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx2 as httpx
from redis.asyncio import Redis

from infrastructure.local.servers.ports import Ports
from infrastructure.local.servers.redis_and_nats import AppendFsync
from infrastructure.local.services import ALL_SERVICES, PORTS_OF
from infrastructure.local.stack import Stack
from shared.names import shard_of
from shared.redis_layout.keys import item_key, lease_key, outbox_key
from tests.faults.clients.operators import Operators
from tests.faults.clients.wishes import EVERY, Kinds
from tests.faults.rig.bidders import PAUSE_S, TIMEOUT_S, Bidders, Watcher
from tests.faults.rig.evidence import evidence, is_archived
from tests.faults.rig.faults import Faults
from tests.faults.rig.history import History, Viewer, violations
from tests.faults.rig.report import REPORTS, Report, current_test
from tests.stack import StackFactory
from tests.waiting import eventually

# Short enough for a test to see what a lost answer leads to, and long enough for a disk that is busy with other work;
# the defaults are 5 s and 3 s.
_QUICK = {
    "REDIS_TIMEOUT_MS": "2500",
    "RESOLVE_MS": "1500",
    "ARCHIVER_POSTGRES_TIMEOUT_S": "3",
    "ARCHIVER_ACK_WAIT_S": "4",
    "ARCHIVER_HOLES_LOOK_S": "2",
}

Lines = Callable[[Stack], Awaitable[Mapping[str, Mapping[str, str]]]]
"""Called when the servers run and the services do not; returns what each service gets into its environment."""


class FaultRun(Faults):
    """One stack with its crowd, faults on it, and what everybody has at the end."""

    def __init__(
        self,
        stack: Stack,
        *,
        seed: int,
        items: Sequence[str],
        bidders: int,
        readers: int,
        viewers: int,
        pause_s: float,
        kinds: Kinds = EVERY,
        operators: int = 0,
        operator_pause_s: float = 0.5,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.items = list(items)
        self.bidders = Bidders(
            [stack.urls.gateway_url],
            items,
            bidders=bidders,
            readers=readers,
            seed=seed,
            pause_s=pause_s,
            kinds=kinds,
            timeout_s=timeout_s,
        )
        super().__init__(stack, seed=seed, codes=self.bidders.codes)
        self.operators = Operators(
            self.bidders, items, operators=operators, seed=seed, pause_s=operator_pause_s if operators else 0
        )
        self.watchers = [
            Watcher(f"viewer-{number}", stack.urls.broadcast_url, self.items[number % len(self.items)])
            for number in range(viewers)
        ]
        self.more_viewers: dict[str, Sequence[Viewer]] = {}
        """Per item, what viewers beside the watchers were shown: for the judge."""
        self._lost_s: list[float] = []
        self.wall_offset_s: float | None = time.time() - time.monotonic()
        """What to add to this process's clock to get that of Redis; None for a run that moves the clock of Redis."""
        self._has_operators = operators > 0
        self.histories: list[History] = []
        self._of_retired: Counter[str] = Counter()
        self.is_proven = False

    # ------------------------------------------------------------------ the crowd

    def lost(self) -> None:
        """Redis has just lost something: what was decided a moment before may be nowhere any more."""
        self._lost_s.append(time.monotonic())

    async def create(self, items: Mapping[str, Mapping[str, Any]], *, gateway: str | None = None) -> None:
        """More items, each with its terms; the judge looks at them too. Bidders do not know of them."""

        async def one(http: httpx.AsyncClient, item_id: str, terms: Mapping[str, Any]) -> None:
            async def exists() -> bool:
                answer = await http.post("/api/v1/items", json={"id": item_id, "name": item_id, **terms})
                # 503 on a busy machine; 409 where that was not all of the truth.
                assert answer.status_code in (201, 409, 503), answer.text
                return answer.status_code != 503

            await eventually(exists)
            self.items.append(item_id)
            self.bidders.requests[item_id] = []

        async with httpx.AsyncClient(base_url=gateway or self.stack.urls.gateway_url, timeout=20) as http:
            await asyncio.gather(*(one(http, item_id, terms) for item_id, terms in items.items()))

    async def auction(self, items: Mapping[str, Mapping[str, Any]], *, viewers: int = 1) -> None:
        """Create items and move everybody to them: bidders, operators, and so many viewers for each."""
        await self.create(items)
        prices = {item_id: terms.get("buy_now_price") for item_id, terms in items.items()}
        self.bidders.move_to({each: None if price is None else round(price * 100) for each, price in prices.items()})
        self.operators.move_to(items)
        joined = [
            Watcher(f"viewer-{number} of {item_id}", self.stack.urls.broadcast_url, item_id)
            for item_id in items
            for number in range(viewers)
        ]
        self.watchers += joined
        await asyncio.gather(*(watcher.start() for watcher in joined))

    async def retire(self, items: Sequence[str]) -> None:
        """Forget items that were judged, so that a long run does not grow."""
        for watcher in [each for each in self.watchers if each.item_id in items]:
            await watcher.stop()
            self.watchers.remove(watcher)
        self.bidders.forget(items)
        self.operators.forget(items)
        self.items = [each for each in self.items if each not in items]
        self._of_retired = Counter(self.sums)
        self.histories = []

    @property
    def sums(self) -> Mapping[str, int]:
        """The sums over everything that was judged: ``acknowledged``, ``lost``, ``doubled``, ``hidden``."""
        sums = Counter(self._of_retired)
        for name in ("acknowledged", "lost", "doubled", "hidden"):
            sums[name] += sum(getattr(history, name) for history in self.histories)
        return sums

    # ------------------------------------------------------------------ the end

    async def prove(self, *, within_s: float = 60.0) -> list[History]:
        """Let everything settle, then have every item judged; AssertionError names what is broken."""
        histories = await self.settle(within_s=within_s)
        broken = [violation for history in histories for violation in violations(history)]
        assert not broken, "\n".join(broken)
        assert all(history.replay.is_whole for history in histories if history.events), "all must have been replayed"
        assert self.bidders.unresolved == 0
        self.is_proven = True
        return histories

    async def settle(self, *, within_s: float = 60.0) -> list[History]:
        """Repeat what is unknown, wait for archive and viewers, and return what everybody has."""
        repeated = await self.bidders.resolve()
        self.note(f"{repeated} bids of unknown outcome repeated")
        async with self.redis() as redis, self.postgres() as postgres:
            await self._archived(redis, postgres, within_s=within_s)
            for watcher in self.watchers:
                seq = await redis.hget(item_key(watcher.item_id), "seq")
                with contextlib.suppress(TimeoutError):
                    await watcher.reached(int(seq or 0), within_s=60)
            histories = [await self._history(redis, postgres, item_id) for item_id in self.items]
        self.histories = histories
        self.note("settled: " + ", ".join(f"{each.item_id} {each.acknowledged} acknowledged" for each in histories))
        return histories

    async def _archived(self, redis: Redis, postgres: asyncpg.Connection, *, within_s: float) -> None:
        """Wait until PostgreSQL has as many events of each item as Redis; what is missing then is for the judge."""

        async def complete() -> bool:
            return all([await is_archived(redis, postgres, item_id) for item_id in self.items])

        with contextlib.suppress(TimeoutError):
            await eventually(complete, seconds=within_s)

    async def _history(self, redis: Redis, postgres: asyncpg.Connection, item_id: str) -> History:
        return dataclasses.replace(
            await evidence(redis, postgres, self.bidders.gateways[0], item_id),
            requests=self.bidders.requests[item_id],
            viewers=[
                *(watcher.view() for watcher in self.watchers if watcher.item_id == item_id),
                *self.more_viewers.get(item_id, ()),
            ],
            reads=self.bidders.reads[item_id],
            operations=self.operators.operations[item_id] if self._has_operators else None,
            wall_offset_s=self.wall_offset_s,
            lost_s=tuple(self._lost_s),
        )

    def end(self) -> None:
        """Kill services and added servers: how they end in good order takes seconds, and is not what this is about."""
        for name in self.stack.processes.keys() - {*self.stack.servers}:
            self.stack.kill(name)

    @property
    def outboxes(self) -> list[str]:
        """The outboxes of all items, each once."""
        return sorted({outbox_key(shard_of(item_id)) for item_id in self.items})

    @property
    def leases(self) -> list[str]:
        """The leases of all items' shards, each once."""
        return sorted({lease_key(shard_of(item_id)) for item_id in self.items})


def _report(run: FaultRun, test: str) -> Report:
    return Report(
        test=test,
        is_proven=run.is_proven,
        seed=run.seed,
        faults=run.faults,
        answers=sum(run.bidders.codes.values()),
        **run.sums,
    )


def chosen_seed() -> int:
    """FAULTS_SEED, or any."""
    return int(os.environ.get("FAULTS_SEED") or secrets.randbelow(1_000_000))


async def _start_services(stack: Stack, env: Mapping[str, Mapping[str, str]]) -> None:
    ports = {name: getattr(stack.ports, PORTS_OF[name][0]) for name in ALL_SERVICES}
    await asyncio.gather(
        *(stack.add_service(name, name, port, env.get(name, {})) for name, port in ports.items()),
    )


@contextlib.asynccontextmanager
async def fault_run(
    start_stack: StackFactory,
    *,
    items: int = 3,
    bidders: int = 8,
    readers: int = 0,
    viewers: int = 3,
    env: Mapping[str, str] | None = None,
    redis_appendfsync: AppendFsync = "always",
    ports: Ports | None = None,
    pause_s: float = PAUSE_S,
    test: str | None = None,
    lines: Lines | None = None,
    kinds: Kinds = EVERY,
    operators: int = 0,
    operator_pause_s: float = 0.5,
    timeout_s: float = TIMEOUT_S,
    data_dir: Path | None = None,
    valkey_nodes: int = 1,
) -> AsyncIterator[FaultRun]:
    """A running stack with ``items`` open items, ``viewers`` on them, and ``bidders`` who wait to be let loose.

    ``readers`` ask for items all the while. Each bidder rests up to ``pause_s`` after a bid and sends what ``kinds``
    says; each of the ``operators`` rests up to ``operator_pause_s``, and works while ``run.operators.operating()``.
    ``timeout_s``: how long a bidder waits for an answer. ``data_dir``: where a new
    database is made, in place of a copy. ``valkey_nodes``: of how many nodes Redis is a cluster.
    ``test`` is the name in the table where it is not that of the test that runs now. ``lines`` puts something between
    the services and the servers. An error that leaves the block carries the seed and the timeline.
    """
    seed = chosen_seed()
    test = test or current_test()
    services = ALL_SERVICES if lines is None else ()
    stack = await start_stack(
        env={**_QUICK, **(env or {})},
        redis_appendfsync=redis_appendfsync,
        ports=ports,
        services=services,
        data_dir=data_dir,
        valkey_nodes=valkey_nodes,
    )
    if lines is not None:
        await _start_services(stack, await lines(stack))
    names = [f"lot-{number}" for number in range(items)]
    run = FaultRun(
        stack,
        seed=seed,
        items=names,
        bidders=bidders,
        readers=readers,
        viewers=viewers,
        pause_s=pause_s,
        kinds=kinds,
        operators=operators,
        operator_pause_s=operator_pause_s,
        timeout_s=timeout_s,
    )
    try:
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=20) as http:
            for name in names:
                assert (await http.get(f"/api/v1/items/{name}")).status_code == 200
        await asyncio.gather(*(watcher.start() for watcher in run.watchers))
        run.note("started")
        yield run
        REPORTS.append(_report(run, test))
    except BaseException as error:
        error.add_note(run.account())
        raise
    finally:
        for watcher in run.watchers:
            await watcher.stop()
        run.end()
