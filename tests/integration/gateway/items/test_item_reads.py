"""Reads of items: shared round trips, kept bytes, and that nobody is told an older item than there was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx2 as httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from typing_extensions import override

from api_gateway.engine import item_reads
from api_gateway.engine.item_reads import Absent, ItemReads, Reading
from api_gateway.engine.items import Items
from api_gateway.engine.loss.lost_items import LostItems
from infrastructure.local.stack import Stack
from shared import names
from shared.domain.errors import Overloaded, ShardLost, Unavailable
from shared.redis_layout.keys import cursors_key, item_key, lost_key

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def item_id() -> str:
    return f"read-{secrets.token_hex(4)}"


async def placed(http: httpx.AsyncClient, item_id: str, user: str, **amounts: float) -> dict[str, Any]:
    answer = await http.post(f"/api/v1/items/{item_id}/bid", json={"user_id": user} | amounts)
    assert answer.status_code in (200, 201), answer.text
    return cast("dict[str, Any]", answer.json())


async def reading_of(reads: ItemReads, item_id: str) -> Reading:
    reading = await reads.get(item_id)
    assert isinstance(reading, Reading)
    return reading


async def read(http: httpx.AsyncClient, item_id: str, *, by_asgi: bool = False) -> httpx.Response:
    # A query is not plain: the framework answers.
    return await http.get(f"/api/v1/items/{item_id}{'?' if by_asgi else ''}{'a=1' if by_asgi else ''}")


async def test_who_only_looks_opens_no_item(http: httpx.AsyncClient, item_id: str) -> None:
    path = f"/api/v1/items/{item_id}"
    # The second is answered by the framework.
    for query in ("may_open=false", "may_open=false&a=1"):
        answer = await http.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()["code"]) == (404, "ITEM_NOT_FOUND")
    await placed(http, item_id, "ann", amount=5)
    direct, by_asgi = [await http.get(f"{path}?{query}") for query in ("may_open=false", "may_open=false&a=1")]
    assert direct.json()["bid_count"] == 1
    assert direct.content == by_asgi.content


async def test_both_roads_tell_the_same(http: httpx.AsyncClient, item_id: str) -> None:
    await placed(http, item_id, "ann", amount=5)
    for change in ({}, {"amount": 7}, {"max_amount": 50}, {"max_amount": 60}):
        if change:
            await placed(http, item_id, "bob", **change)
        direct, by_asgi = [await read(http, item_id, by_asgi=road) for road in (False, True)]
        assert (direct.status_code, direct.content) == (by_asgi.status_code, by_asgi.content)
        assert direct.headers.keys() == by_asgi.headers.keys()
        assert direct.headers["content-type"] == "application/json"


async def test_whoever_was_told_of_a_bid_reads_no_older_price(http: httpx.AsyncClient, item_id: str) -> None:
    highest = 0.0
    done = asyncio.Event()

    async def bid() -> None:
        nonlocal highest
        for amount in range(1, 121):
            answer = await placed(http, item_id, f"user-{amount % 3}", amount=amount)
            highest = max(highest, float(answer["current_bid"]))
        done.set()

    async def look() -> int:
        count = 0
        while not done.is_set():
            told = highest
            answer = await read(http, item_id)
            if answer.status_code == 200:
                assert float(answer.json()["current_bid"]) >= told
                count += 1
        return count

    await placed(http, item_id, "ann", amount=0.5)
    looking = [asyncio.create_task(look()) for _ in range(20)]
    await bid()
    assert sum(await asyncio.gather(*looking)) > 100


async def test_an_item_of_a_closed_shard_is_not_told(http: httpx.AsyncClient, redis: Redis, item_id: str) -> None:
    await placed(http, item_id, "ann", amount=5)
    assert (await read(http, item_id)).status_code == 200
    key = cursors_key(names.shard_of(item_id))
    epoch = await cast(Any, redis.hget(key, "epoch"))
    await cast(Any, redis.hdel(key, "epoch"))
    try:
        answer = await read(http, item_id)
        assert (answer.status_code, answer.json()["code"]) == (503, "BEING_REBUILT")
        assert int(answer.headers["retry-after"]) > 0
    finally:
        await cast(Any, redis.hset(key, "epoch", epoch))
    assert (await read(http, item_id)).status_code == 200


@pytest_asyncio.fixture(loop_scope="module")
async def client(gateway_stack: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(gateway_stack.urls.redis_url, protocol=2, socket_timeout=5) as client:
        yield client


class CountedReads(ItemReads):
    trips = 0

    @override
    async def _read_some(self, asked: dict[str, asyncio.Future[Reading | Absent]]) -> None:
        self.trips += 1
        await super()._read_some(asked)


async def test_a_crowd_shares_its_round_trips(http: httpx.AsyncClient, client: Redis, item_id: str) -> None:
    await placed(http, item_id, "ann", amount=5)
    reads = CountedReads(client)
    first = await reads.get(item_id)
    found = await asyncio.gather(*(reads.get(item_id) for _ in range(1_000)))
    assert all(one is first for one in found)
    assert reads.trips <= 3


async def test_a_raised_maximum_that_nobody_sees_is_noticed(
    http: httpx.AsyncClient, client: Redis, item_id: str
) -> None:
    """It has no number of its own, and moves no time."""
    reads = ItemReads(client)
    for bid in ({"amount": 5, "max_amount": 10}, {"max_amount": 20}):
        await placed(http, item_id, "ann", **bid)
        reading = await reading_of(reads, item_id)
        assert reading.item.state.leader_max == bid["max_amount"] * 100


async def test_what_is_kept_is_bounded(
    http: httpx.AsyncClient, client: Redis, item_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{item_id}-{number}" for number in range(4)]
    for one in ids:
        await placed(http, one, "ann", amount=5)
    some = await reading_of(ItemReads(client), ids[0])
    size = item_reads.size_of(sum(map(len, some.fields.values())))
    monkeypatch.setattr(item_reads, "KEPT_BYTES_MAX", 5 * size // 2)
    reads = ItemReads(client)
    for _ in range(2):
        for one in ids:
            reading = await reading_of(reads, one)
            assert json.loads(reading.body)["id"] == one
    assert len(reads._kept) == 2
    await client.delete(item_key(ids[-1]))
    assert isinstance(await reads.get(ids[-1]), Absent)
    assert len(reads._kept) == 1


async def test_more_than_may_wait_are_refused(client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_reads, "WAITING_MAX", 3)
    reads = ItemReads(client)
    answers = await asyncio.gather(*(reads.get(f"nobody-{number}") for number in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers[:3]] == [Absent] * 3
    assert [type(answer) for answer in answers[3:]] == [Overloaded, Overloaded]


async def test_who_gives_up_takes_the_answer_from_nobody(http: httpx.AsyncClient, client: Redis, item_id: str) -> None:
    await placed(http, item_id, "ann", amount=5)
    reads = ItemReads(client)
    impatient, patient = asyncio.create_task(reads.get(item_id)), asyncio.create_task(reads.get(item_id))
    await asyncio.sleep(0)
    impatient.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await impatient
    assert isinstance(await patient, Reading)


async def test_a_redis_that_is_away_and_back(client: Redis) -> None:
    """Each reader is told so, and the next ones are served."""
    reads = ItemReads(Redis(host="127.0.0.1", port=1))
    answers = await asyncio.gather(*(reads.get("any") for _ in range(3)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
    reads._redis = client
    assert isinstance(await reads.get("nobody"), Absent)


async def test_a_damaged_item_spoils_only_its_own_reads(http: httpx.AsyncClient, client: Redis, item_id: str) -> None:
    ids = [f"{item_id}-{number}" for number in range(3)]
    for one in ids:
        await placed(http, one, "ann", amount=5)
    damaged = item_key(ids[1])
    leader_max = await cast(Any, client.hget(damaged, "leader_max"))
    await cast(Any, client.hdel(damaged, "leader_max"))
    reads = ItemReads(client)
    try:
        for _ in range(2):  # the second time there is something to compare
            first, spoilt, last = await asyncio.wait_for(asyncio.gather(*(reading_of(reads, one) for one in ids)), 10)
            assert json.loads(last.body)["id"] == ids[2]
            assert json.loads(first.body)["id"] == ids[0]
            with pytest.raises(KeyError):
                assert spoilt.body
        answer = await read(http, ids[1])
        assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL_ERROR")
        assert (await read(http, ids[2])).status_code == 200
    finally:
        await cast(Any, client.hset(damaged, "leader_max", leader_max))


async def test_whoever_waits_behind_a_time_out_is_told_with_it(
    http: httpx.AsyncClient, gateway_stack: Stack, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after a time-out of their own, one after the other."""
    monkeypatch.setattr(item_reads, "ITEMS_PER_TRIP_MAX", 1)
    async with Redis.from_url(gateway_stack.urls.redis_url, protocol=2, socket_timeout=1) as impatient:
        reads = ItemReads(impatient)
        await reads.get("nobody")
        await cast(Any, client).execute_command("CLIENT", "PAUSE", "3000", "ALL")
        began_s = asyncio.get_running_loop().time()
        answers = await asyncio.gather(*(reads.get(f"n-{number}") for number in range(20)), return_exceptions=True)
        took_s = asyncio.get_running_loop().time() - began_s
    assert {type(answer) for answer in answers} == {Unavailable}
    assert took_s < 10


async def test_an_item_that_has_left_and_come_back_meanwhile_is_not_the_same(
    http: httpx.AsyncClient, client: Redis, item_id: str
) -> None:
    """1. An item is read. 2. It leaves. 3. What was beside it is looked for, and not found. 4. It comes back."""
    await placed(http, item_id, "ann", amount=5)
    nobody: Any = None
    items = Items(client, nobody, nobody, nobody, nobody, open_catalogue=False, on_outbox=lambda _: None)
    item = await items.get(item_id)
    assert await items.is_same(item)
    await cast(Any, client.hset(item_key(item_id), "returned_us", "1795937470399115"))
    assert not await items.is_same(item)
    assert await items.is_same(await items.get(item_id))
    await client.delete(item_key(item_id))
    assert not await items.is_same(item)


class NoneIsClosed:
    """The archive, in the moment in which its chain of hashes does not have an item's newest event."""

    async def find(self, item_id: str, absent: Absent | None = None) -> None:
        return None


async def test_an_item_that_comes_back_while_the_archive_is_asked_is_neither_new_nor_lost(
    http: httpx.AsyncClient, client: Redis, item_id: str
) -> None:
    """1. Redis does not have it. 2. It comes back and is struck, which is archived. 3. The archive is asked.

    It has none until its chain has the void.
    """
    await placed(http, item_id, "ann", amount=5)
    nobody, none_is_closed = cast(Any, None), cast(Any, NoneIsClosed())
    items = Items(
        client, nobody, nobody, LostItems(client), none_is_closed, open_catalogue=False, on_outbox=lambda _: None
    )
    found = await items.find_absent(item_id, Absent(1, False), may_open=False)
    assert (found.item.terms.item_id, found.has_left) == (item_id, False)
    with pytest.raises(Unavailable, match="coming back"):
        await items.absent(item_id)
    assert "coming back" in str(await items._lost_or_left(item_id))
    await items.note_missing([item_id], [item_id])
    assert not await cast(Any, client.sismember(lost_key(names.shard_of(item_id)), item_id))


async def test_a_page_of_which_redis_has_only_older_copies_is_not_told_as_empty(
    http: httpx.AsyncClient, client: Redis, item_id: str
) -> None:
    """Its shard is closed after a failover, and the hash is there."""
    await placed(http, item_id, "ann", amount=5)
    nobody: Any = None
    items = Items(client, nobody, nobody, LostItems(client), nobody, open_catalogue=False, on_outbox=lambda _: None)
    key = cursors_key(names.shard_of(item_id))
    epoch = await cast(Any, client.hget(key, "epoch"))
    await cast(Any, client.hdel(key, "epoch"))
    try:
        assert await items.readings([item_id]) == {}
        with pytest.raises(ShardLost):
            await items.note_missing([item_id], [item_id])
    finally:
        await cast(Any, client.hset(key, "epoch", epoch))


async def test_what_is_known_of_an_item_that_is_not_there(http: httpx.AsyncClient, client: Redis, item_id: str) -> None:
    shard = names.shard_of(item_id)
    epoch = await cast(Any, client.hget(cursors_key(shard), "epoch"))
    reads = ItemReads(client)
    assert await reads.get(item_id) == Absent(int(epoch), False)
    await cast(Any, client.sadd(lost_key(shard), item_id))
    await cast(Any, client.hdel(cursors_key(shard), "epoch"))
    try:
        assert await reads.get(item_id) == Absent(None, True)
    finally:
        await cast(Any, client.hset(cursors_key(shard), "epoch", epoch))
        await cast(Any, client.srem(lost_key(shard), item_id))


async def test_a_closed_shard_is_told_as_such(client: Redis, item_id: str) -> None:
    key = item_key(item_id)
    shard = names.shard_of(item_id)
    await cast(Any, client.hset(key, mapping={"epoch": 1, "seq": 1, "updated_us": 1, "leader_max": 0}))
    epoch = await cast(Any, client.hget(cursors_key(shard), "epoch"))
    await cast(Any, client.hdel(cursors_key(shard), "epoch"))
    try:
        with pytest.raises(ShardLost):
            await ItemReads(client).get(item_id)
    finally:
        await cast(Any, client.hset(cursors_key(shard), "epoch", epoch))
        await client.delete(key)
