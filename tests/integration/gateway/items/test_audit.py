"""The audit of an item: what was just done is in it, also while the archive lags or is away."""

from __future__ import annotations

import signal
from typing import Any, cast

import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from api_gateway.reads.archive import Archive
from api_gateway.reads.audit import Audit
from infrastructure.local.services import ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared.domain.errors import Unavailable
from shared.names import shard_of
from shared.redis_layout.keys import outbox_key
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ITEM = "/api/v1/items/audited-at-once"


class ArchiveAway:
    """PostgreSQL does not answer."""

    async def operations(self, item_id: str, limit: int) -> list[Any]:
        raise Unavailable("the archive does not answer")


async def done(http: httpx.AsyncClient, method: str, path: str, body: Any = None, **query: str) -> None:
    answer = await http.request(method, f"{ITEM}{path}", json=body, params=query)
    assert answer.status_code in (200, 201), answer.text


async def test_what_was_just_done_is_told_while_the_archive_lags(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    answer = await http.post("/api/v1/items", json={"id": "audited-at-once", "name": "x", "duration_s": 3600})
    assert answer.status_code == 201, answer.text
    await done(http, "POST", "/bid", {"user_id": "ann", "amount": 5, "bid_id": "ann-1"})
    await done(http, "POST", "/pause", {"reason": 'a "question"', "by": "olga"})
    outbox = outbox_key(shard_of("audited-at-once"))

    async def is_archived() -> bool:
        return int(await redis.xlen(outbox)) == 0

    await eventually(is_archived, seconds=60)
    gateway_stack.kill(ARCHIVAL_WORKER, signal.SIGSTOP)
    try:
        await done(http, "POST", "/resume", {"reason": "it was answered", "by": "olga"})
        await done(http, "POST", "/extend", {"by_s": 60, "reason": "the room asks", "by": "olga"})
        await done(http, "POST", "/bids/ann-1/void", {"reason": "by mistake", "by": "olga"})
        await done(http, "PUT", "/bidders/joe/limit", {"amount": 7.25, "reason": "new", "by": "olga"})
        await done(http, "PUT", "/bidders/joe/block", {"reason": "left", "by": "olga"})
        lagging = (await http.get(f"{ITEM}/audit")).json()
        newest = (await http.get(f"{ITEM}/audit", params={"limit": 1})).json()
        away = await Audit(redis, cast(Archive, ArchiveAway())).page("audited-at-once", 50)
    finally:
        gateway_stack.kill(ARCHIVAL_WORKER, signal.SIGCONT)
    told = [(each["type"], each["reason"], each["by"]) for each in lagging["operations"]]
    assert told == [
        ("voided", "by mistake", "olga"),
        ("end_moved", "the room asks", "olga"),
        ("resumed", "it was answered", "olga"),
        ("paused", 'a "question"', "olga"),
    ]
    assert lagging["operations"][0]["bid_id"] == "ann-1"
    assert [each["end_time"] is not None for each in lagging["operations"]] == [False, True, False, False]
    ruled = [(each["user_id"], each["ruling"], each["amount"], each["currency"]) for each in lagging["rulings"]]
    assert ruled == [("joe", "block", None, "USD"), ("joe", "limit", 7.25, "USD")]
    assert lagging["partial"] is False
    assert newest["operations"] == lagging["operations"][:1]
    assert newest["rulings"] == lagging["rulings"][:1]
    # Without the archive, what it does not have yet is still told.
    assert [row["type"] for row in away.operations] == ["voided", "end_moved", "resumed"]
    assert (len(away.rulings), away.partial) == (2, True)
    # Once it is archived, it is told in the same words, and once.
    await eventually(is_archived, seconds=60)
    assert (await http.get(f"{ITEM}/audit")).json() == lagging
