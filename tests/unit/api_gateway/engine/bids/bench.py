"""A committer without a network: scripts that answer as they are told, and a Redis that has what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.queue_bound import QueueBound
from api_gateway.engine.bids.scripts import BidScripts, Decided
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.stored_verdicts import StoredVerdict

ACCEPTED = b"A|b|1|100|100|1|101|1|bid|1|5"
LINEAGE = Lineage("a run", 1)
REFUSED = b"R|TOO_LOW|100|0|101|1"


class FakeScripts:
    """``place`` as :class:`BidScripts` has it, answering what the test wants; flushes wait at ``gate``."""

    calls_per_item = 1

    def __init__(self, *answers: list[Decided | Exception] | Exception) -> None:
        self._answers = list(answers)
        self.flushed: list[list[list[str]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def place(self, calls: Sequence[Sequence[PendingBid]]) -> list[Decided | Exception]:
        self.flushed.append([[bid.bid_id for bid in call] for call in calls])
        await self.gate.wait()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeRedis:
    """The reads with which the outcome of a lost answer is looked up; ``stored`` by key and field."""

    def __init__(self, *, stored: dict[str, dict[str, bytes]] | None = None, recent: list[bytes] | None = None) -> None:
        self._stored = stored or {}
        self._recent = recent or []

    async def hmget(self, key: str, fields: list[str]) -> list[bytes | None]:
        return [self._stored.get(key, {}).get(field) for field in fields]

    async def lrange(self, key: str, first: int, last: int) -> list[bytes]:
        return self._recent[first : None if last == -1 else last + 1]


def kept(line: bytes, *, user: str = "ada", amount: int = 100) -> bytes:
    return StoredVerdict(user, f"{amount},", line).encode()


def bid(
    bid_id: str,
    *,
    user: str = "ada",
    item: str = "a",
    key: str | None = None,
    amount: int = 100,
    header: bool = False,
) -> PendingBid:
    return PendingBid(item, user, bid_id, amount, None, key, not header, PendingVerdict())


class Bench:
    """A running committer and what it told the relay."""

    def __init__(self, scripts: FakeScripts, redis: FakeRedis | None = None, **options: Any) -> None:
        self.outbox: list[tuple[str, int, int]] = []
        self.noticed: list[str] = []
        self.bound = QueueBound(queue_max=options.pop("queue_max", 10), wait_s=0)
        self.committer = Committer(
            cast(BidScripts, scripts),
            cast(Any, redis or FakeRedis()),
            bound=self.bound,
            resolve_s=options.pop("resolve_s", 0.05),
            on_outbox=self.noticed.append,
            on_given_out=lambda *place: self.outbox.append(place),
            **options,
        )
        self.task = asyncio.create_task(self.committer.run())

    async def stop(self) -> None:
        await self.committer.close()
        await asyncio.wait_for(self.task, 30)
