"""The audit of an item: what was just done is in it, also while the archive lags or is away."""

from __future__ import annotations

import signal
from typing import Any, cast

import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from api_gateway.reads.archive import Archive
from api_gateway.reads.audit import ENTRIES_MAX, Audit
from infrastructure.local.services import ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared.domain.errors import Unavailable
from shared.names import shard_of
from shared.redis_layout.keys import outbox_key
from shared.redis_layout.outbox import PAGE
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


class OfCopy:
    """Redis, in which another stream is the outbox. Counts the entries that are read."""

    def __init__(self, redis: Redis, copy: str) -> None:
        self._redis: Any = redis
        self._copy = copy
        self.read = 0

    async def xrevrange(self, _: str, *args: Any, **named: Any) -> list[Any]:
        entries: list[Any] = await self._redis.xrevrange(self._copy, *args, **named)
        self.read += len(entries)
        return entries

    async def hget(self, key: str, field: str) -> Any:
        return await self._redis.hget(key, field)


async def outbox_of_paused(http: httpx.AsyncClient, redis: Redis, item_id: str) -> list[dict[bytes, bytes]]:
    """The entries of an item that is made, paused and resumed, while the archiver rests."""
    for path, body in (
        ("", {"id": item_id, "name": "x", "duration_s": 3600}),
        (f"/{item_id}/pause", {"reason": "one", "by": "olga"}),
        (f"/{item_id}/resume", {"reason": "two", "by": "olga"}),
    ):
        answer = await http.post(f"/api/v1/items{path}", json=body)
        assert answer.status_code in (200, 201), answer.text
    entries: Any = await redis.xrange(outbox_key(shard_of(item_id)))
    return [fields for _, fields in entries if fields[b"item"] == item_id.encode()]


async def test_an_entry_that_cannot_be_read_takes_no_other_off_the_audit(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    gateway_stack.kill(ARCHIVAL_WORKER, signal.SIGSTOP)
    try:
        entries = await outbox_of_paused(http, redis, "damaged")
    finally:
        gateway_stack.kill(ARCHIVAL_WORKER, signal.SIGCONT)
    damaged: list[dict[Any, Any]] = [
        {"item": "damaged", "events": "no JSON"},
        {"item": "damaged", "events": '[{"type": "paused"}]'},
        {"item": "damaged", "events": "[]", "rulings": '[{"user_id": 5}]'},
        {"item": b"\xff", "events": "[]"},
        {"unknown": "fields"},
    ]
    for at, fields in enumerate(damaged):
        copy = f"copy-{at}"
        for each in [*entries[:2], fields, *entries[2:]]:
            await cast(Any, redis).xadd(copy, each)
        told = await Audit(cast(Redis, OfCopy(redis, copy)), cast(Archive, ArchiveAway())).page("damaged", 50)
        assert [row["reason"] for row in told.operations] == ["two", "one"], fields
        assert told.partial


class ArchiveEmpty:
    """The archive has nothing yet."""

    async def operations(self, item_id: str, limit: int) -> list[Any]:
        return []

    async def rulings_on_item(self, item_id: str, limit: int) -> list[Any]:
        return []

    async def retired(self, item_id: str) -> None:
        return None


async def test_of_a_long_outbox_the_newest_is_told_and_that_there_may_be_more(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    gateway_stack.kill(ARCHIVAL_WORKER, signal.SIGSTOP)
    try:
        _, paused, resumed = await outbox_of_paused(http, redis, "far-behind")
    finally:
        gateway_stack.kill(ARCHIVAL_WORKER, signal.SIGCONT)
    pipeline = cast(Any, redis.pipeline(transaction=False))
    pipeline.xadd("long", paused)
    # A busy shard: entries of another item.
    for _ in range(ENTRIES_MAX):
        pipeline.xadd("long", {"item": "another", "events": "[]"})
    await pipeline.execute()
    reader = OfCopy(redis, "long")
    audit = Audit(cast(Redis, reader), cast(Archive, ArchiveEmpty()))
    told = await audit.page("far-behind", 50)
    assert (told.operations, told.partial) == ([], True)
    assert reader.read <= ENTRIES_MAX + PAGE
    await cast(Any, redis).xadd("long", resumed)
    told = await audit.page("far-behind", 50)
    assert ([row["reason"] for row in told.operations], told.partial) == (["two"], True)
    await cast(Any, redis).xtrim("long", maxlen=PAGE - 1, approximate=False)
    assert not (await audit.page("far-behind", 50)).partial
