"""Keys that are not what they should be, on a real Redis: they are told once, and keep nobody from anything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio

from archival_worker.eviction.evictor import EvictionOptions, Evictor, _Candidate
from archival_worker.metrics import Metrics
from shared import names
from shared.clients.redis import open_redis
from shared.redis_layout.keys import closed_key, cursors_key, item_key

pytestmark = pytest.mark.integration

ITEMS = [f"lot-{n}" for n in range(40)]


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    """Every shard is open, and has sold items that nobody has noted."""
    client: Any = open_redis(redis_url)
    await client.flushall()
    for shard in names.SHARDS:
        await client.hset(cursors_key(shard), mapping={"epoch": "1", "next": "9", "archived": "9"})
    for item_id in ITEMS:
        await client.hset(item_key(item_id), mapping={"id": item_id, "status": "sold", "seq": "1", "updated_us": "1"})
    yield client
    await client.aclose()


class WithoutArchive(Evictor):
    """Nothing is exported, as far as it knows, so that a look ends with what Redis has."""

    async def _exports_exist(self) -> bool:
        return False


def evictor_of(redis: Any) -> Evictor:
    return WithoutArchive(cast(Any, None), redis, Metrics(), EvictionOptions(keep_s=0, search_keys=1))


async def searched(evictor: Evictor) -> None:
    """Return once a search has ended."""
    evictor._search_at_s = 0.0
    while await evictor._search():
        pass


async def noted(redis: Any) -> set[str]:
    found: set[str] = set()
    for shard in names.SHARDS:
        if await redis.type(closed_key(shard)) == b"zset":
            found |= {member.decode() for member in await redis.zrange(closed_key(shard), 0, -1)}
    return found


async def test_an_item_that_is_no_hash_ends_no_search_and_is_told_once(
    redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = ITEMS[17]
    await redis.delete(item_key(damaged))
    await redis.lpush(item_key(damaged), "no hash")
    evictor = evictor_of(redis)
    for _ in range(2):
        await searched(evictor)
        assert await noted(redis) == set(ITEMS) - {damaged}
        assert not evictor._missed, "the next search comes after hours"
    told = [record.getMessage() for record in caplog.records if item_key(damaged) in record.getMessage()]
    assert len(told) == 1
    assert "WRONGTYPE" in told[0]
    assert evictor._metrics.failures_by["eviction"] == 2


async def test_an_item_that_cannot_be_noted_ends_no_search_and_is_told_once(
    redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    shard = names.shard_of(ITEMS[0])
    await redis.lpush(closed_key(shard), "no sorted set")
    evictor = evictor_of(redis)
    of_shard = [item_id for item_id in ITEMS if names.shard_of(item_id) == shard]
    for _ in range(2):
        await searched(evictor)
        assert await noted(redis) == set(ITEMS) - set(of_shard)
        await evictor.look()
        assert evictor.closed_in_redis == len(ITEMS) - len(of_shard), "the other shards are looked at"
    for item_id in of_shard:
        assert sum(record.getMessage().startswith(f"{item_key(item_id)} ") for record in caplog.records) == 1
    await redis.delete(closed_key(shard))
    await searched(evictor)
    assert await noted(redis) == set(ITEMS)


async def test_a_shard_whose_cursors_are_damaged_keeps_no_others(redis: Any, caplog: pytest.LogCaptureFixture) -> None:
    evictor = evictor_of(redis)
    await searched(evictor)
    damaged = names.shard_of(ITEMS[0])
    await redis.delete(cursors_key(damaged))
    await redis.lpush(cursors_key(damaged), "no hash")
    for _ in range(2):
        pages = await evictor._pages()
        found = {candidate.item_id for page in pages.values() for candidate in page}
        assert found == {item_id for item_id in ITEMS if names.shard_of(item_id) != damaged}
    assert sum(cursors_key(damaged) in record.getMessage() for record in caplog.records) == 1


async def test_what_another_archiver_has_removed_is_no_alarm_any_more(redis: Any) -> None:
    damaged, kept = (_Candidate(item_id, names.shard_of(item_id), "1") for item_id in ITEMS[:2])
    one, other = evictor_of(redis), evictor_of(redis)
    await searched(one)
    seqs = dict.fromkeys(ITEMS[:2], 1)
    for candidate in (damaged, kept):
        await redis.delete(item_key(candidate.item_id))
        await redis.lpush(item_key(candidate.item_id), "no hash")
    for evictor in (one, other):
        assert await evictor._evict([damaged, kept], seqs) == set()
        assert await evictor.look() == 0
        assert "2 closed items cannot be removed" in evictor.alarms["eviction"]
    # An operator deletes the key, and the other archiver is the first to look.
    await redis.delete(item_key(damaged.item_id))
    await other._evict([damaged], seqs)
    await one.look()
    for evictor in (one, other):
        assert f"1 closed items cannot be removed from Redis, say {kept.item_id}" in evictor.alarms["eviction"]
    await redis.delete(item_key(kept.item_id))
    await one._evict([kept], seqs)
    for evictor in (one, other):
        await evictor.look()
        assert evictor.alarms == {}


async def test_what_is_no_text_ends_no_look_and_no_search(redis: Any) -> None:
    shards = sorted({names.shard_of(item_id) for item_id in ITEMS})
    await redis.hset(cursors_key(shards[0]), "epoch", b"\xff")
    await redis.zadd(closed_key(shards[0]), {"lot-x": 1})
    await redis.zadd(closed_key(shards[1]), {b"\xff": 1, b"lot-y": 1})
    await redis.hset(item_key("lot-0").encode() + b"\xff", mapping={"status": "sold", "seq": "1"})
    evictor = evictor_of(redis)
    pages = await evictor._pages()
    assert shards[0] not in pages
    assert [candidate.item_id for candidate in pages[shards[1]]] == ["lot-y"]
    await searched(evictor)
    assert {*ITEMS} - {item for item in ITEMS if names.shard_of(item) in shards[:2]} <= {
        member.decode(errors="replace")
        for shard in shards[2:]
        for member in await redis.zrange(closed_key(shard), 0, -1)
    }
    assert not evictor._missed
