"""A running stack as bidders and an operator see it, for the tests of losing Redis and rebuilding it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import asyncpg
import httpx2 as httpx
from redis.asyncio import Redis

from infrastructure.local.services import ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared import names
from shared.messages import decode_event
from shared.permissions.accounts import Account
from shared.redis_layout.keys import cursors_key, deadlines_key, item_key, proxies_key, recent_key
from tests.preforked import run_forked
from tests.programs import bidding
from tests.waiting import eventually

Json = dict[str, Any]

PROXY = "proxy"
RENEWED = 2  # the epoch after the first loss


@dataclass
class House:
    """A running stack, as bidders and an operator see it."""

    stack: Stack
    http: httpx.AsyncClient
    redis: Redis

    async def bid(self, item_id: str, user_id: str, bid_id: str, **amounts: float) -> httpx.Response:
        body = {"user_id": user_id, "bid_id": bid_id, **amounts}
        return await self.http.post(f"/api/v1/items/{item_id}/bid", json=body)

    async def accepted(self, item_id: str, user_id: str, bid_id: str, **amounts: float) -> Json:
        answer = await self.bid(item_id, user_id, bid_id, **amounts)
        assert answer.status_code == 201, answer.text
        return cast(Json, answer.json())

    async def by_header(self, user_id: str, key: str, **amounts: float) -> Json:
        """A bid on the item of the maxima under a header key, without a bid id."""
        body, headers = {"user_id": user_id, **amounts}, {"Idempotency-Key": key}
        answer = await self.http.post(f"/api/v1/items/{PROXY}/bid", json=body, headers=headers)
        return cast(Json, answer.json())

    async def create(self, item_id: str, **terms: Any) -> None:
        answer = await self.http.post("/api/v1/items", json={"id": item_id, "name": item_id, **terms})
        assert answer.status_code == 201, answer.text

    async def operate(self, path: str) -> None:
        answer = await self.http.post(f"/api/v1/items/{path}", json={"reason": "a test"})
        assert answer.status_code == 200, answer.text

    async def item(self, item_id: str) -> Json:
        return cast(Json, (await self.http.get(f"/api/v1/items/{item_id}")).json())

    async def history(self, item_id: str) -> list[Json]:
        answer = await self.http.get(f"/api/v1/items/{item_id}/bids", params={"limit": 200})
        assert answer.status_code == 200, answer.text
        return cast("list[Json]", answer.json()["bids"])

    async def page(self) -> Json:
        """The first page of the list of items. PostgreSQL may be slower than a reader is let wait; then ask again."""

        async def shown() -> Json | None:
            answer = await self.http.get("/api/v1/items")
            assert answer.status_code in (200, 503), answer.text
            return cast(Json, answer.json()) if answer.status_code == 200 else None

        return await eventually(shown, "a page of items", seconds=30)

    async def hash(self, item_id: str) -> dict[str, str]:
        fields = await cast(Any, self.redis.hgetall(item_key(item_id)))
        return {name.decode(): value.decode() for name, value in fields.items()}

    async def recent(self, item_id: str) -> list[Any]:
        raw = await cast(Any, self.redis.lrange(recent_key(item_id), 0, -1))
        return [decode_event(event) for event in raw]

    async def verdicts(self) -> dict[bytes, dict[bytes, bytes]]:
        """The kept verdicts of accepted bids, by item."""
        keys = [key async for key in self.redis.scan_iter("*:verdicts:*")]
        return {key: cast("dict[bytes, bytes]", await cast(Any, self.redis.hgetall(key))) for key in keys}

    async def maxima(self, item_id: str) -> dict[bytes, bytes]:
        return cast("dict[bytes, bytes]", await cast(Any, self.redis.hgetall(proxies_key(item_id))))

    async def deadlines(self) -> dict[bytes, float]:
        found: dict[bytes, float] = {}
        for shard in names.SHARDS:
            found |= dict(await cast(Any, self.redis.zrange(deadlines_key(shard), 0, -1, withscores=True)))
        return found

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.stack.urls.postgres_url)
        try:
            yield connection
        finally:
            await connection.close()

    async def query(self, sql: str, *arguments: Any) -> list[Any]:
        async with self.connected() as connection:
            return cast("list[Any]", await connection.fetch(sql, *arguments))

    async def _reached(self, cursor: str) -> bool:
        for shard in names.SHARDS:
            last, reached = await cast(Any, self.redis.hmget(cursors_key(shard), ["next", cursor]))
            if last is None or last != reached:
                return False
        return True

    async def all_published(self) -> None:
        await eventually(lambda: self._reached("published"), seconds=60)

    async def all_archived(self) -> None:
        await eventually(lambda: self._reached("archived"), seconds=60)

    async def is_degraded(self) -> bool:
        return (await self.http.get("/ready")).status_code == 503

    async def is_ready(self) -> bool:
        return cast(bool, (await self.http.get("/ready")).json()["status"] == "ready")

    async def lose_redis(self) -> None:
        await self.redis.flushall()

    async def bidding(self, *arguments: str, crash_at: str = "") -> tuple[int, str]:
        """Exit code and output of a `bidding` command on this stack."""
        return await bidding(*arguments, "--data-dir", str(self.stack.data_dir), env={"CRASH_AT": crash_at})

    async def recover(
        self, *options: str, crash_at: str = "", redis_url: str = "", closed_keep_s: str = ""
    ) -> tuple[int, str]:
        """What `bidding recover` runs, without its start."""
        env = {**self.stack.env_of(Account.OPERATOR), "CRASH_AT": crash_at}
        if closed_keep_s:
            env["CLOSED_KEEP_S"] = closed_keep_s
        if redis_url:
            env["REDIS_URL"] = redis_url
        return await run_forked(ARCHIVAL_WORKER, "recover", "--settle-s", "0", *options, env=env)


@asynccontextmanager
async def house_of(stack: Stack) -> AsyncIterator[House]:
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=20) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2) as redis,
    ):
        yield House(stack, http, redis)


def assert_lost_for_now(answer: httpx.Response) -> str:
    """The code of the answer: BEING_REBUILT, or UNAVAILABLE where a gateway could not find out in time."""
    code = str(answer.json().get("code"))
    assert (answer.status_code, code) in ((503, "BEING_REBUILT"), (503, "UNAVAILABLE")), answer.text
    return code


async def assert_being_rebuilt(ask: Callable[[], Awaitable[httpx.Response]], what: str = "") -> httpx.Response:
    """The answer that says so. It comes, and nothing but a refusal before it: who may know the item is asked, and may
    need longer than a gateway waits for it."""

    async def is_said() -> httpx.Response | None:
        answer = await ask()
        return answer if assert_lost_for_now(answer) == "BEING_REBUILT" else None

    return await eventually(is_said, f"an answer of BEING_REBUILT {what}", seconds=30)


async def assert_refused_for_now(house: House, *item_ids: str) -> None:
    for item_id in item_ids:
        await assert_being_rebuilt(partial(house.bid, item_id, "eve", "meanwhile", amount=1_000))
