"""An item's end is moved later by hand: what is told, what is refused, and that a repetition moves it once."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from shared import names
from shared.messages import EndMoved
from shared.redis_layout.keys import deadlines_key
from tests.integration.gateway.items.test_lifecycle import create, events_of, in_s, item_when, kinds, operate

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "Idempotency-Key"


async def extend(http: httpx.AsyncClient, item: str, key: str | None = None, **to: Any) -> httpx.Response:
    headers = {} if key is None else {KEY: key}
    body = {"reason": "the room asked", "by": "olga"} | to
    return await http.post(f"/api/v1/items/{item}/extend", json=body, headers=headers)


def end_of(item: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(item["end_time"])


async def test_the_end_moves_by_a_length_or_to_an_instant(http: httpx.AsyncClient, redis: Redis) -> None:
    created = await create(http, "longer", duration_s=600)
    answer = await extend(http, "longer", by_s=90)
    assert (answer.status_code, answer.json()["status"]) == (200, "open")
    assert end_of(answer.json()) - end_of(created) == timedelta(seconds=90)
    assert answer.json()["original_end_time"] == created["end_time"]
    to = end_of(created) + timedelta(hours=2)
    answer = await extend(http, "longer", end_time=to.isoformat())
    assert end_of(answer.json()) == to
    score = await redis.zscore(deadlines_key(names.shard_of("longer")), "longer")
    assert score == to.timestamp() * 1_000_000, "the closer looks when the new end comes"
    events = await events_of(redis, "longer")
    assert kinds(events) == ["created", "end_moved", "end_moved"]
    assert isinstance(events[1], EndMoved)
    assert (events[1].by, events[1].reason, events[1].extensions) == ("olga", "the room asked", 0)


async def test_an_item_that_would_have_ended_goes_on(http: httpx.AsyncClient, redis: Redis) -> None:
    await create(http, "goes-on", duration_s=4)
    assert (await extend(http, "goes-on", by_s=3)).status_code == 200
    await item_when(http, "goes-on", "unsold")
    events = await events_of(redis, "goes-on")
    assert kinds(events) == ["created", "end_moved", "closed"]
    assert events[-1].ts_us - events[0].ts_us >= 7_000_000


async def test_a_paused_item_gets_more_time_and_a_scheduled_one_a_later_end(
    http: httpx.AsyncClient, redis: Redis
) -> None:
    created = await create(http, "resting", duration_s=600)
    await operate(http, "resting", "pause")
    refused = await extend(http, "resting", end_time=in_s(3_600))
    assert (refused.status_code, refused.json()["code"]) == (409, "STATE_CONFLICT")
    assert "by_s" in refused.json()["detail"]
    more = await extend(http, "resting", by_s=60)
    assert (more.json()["status"], end_of(more.json()) - end_of(created)) == ("paused", timedelta(seconds=60))
    shard = deadlines_key(names.shard_of("resting"))
    assert await redis.zscore(shard, "resting") is None, "nothing closes it"
    resumed = await operate(http, "resting", "resume")
    assert end_of(resumed.json()) >= end_of(more.json())
    await create(http, "early", start_time=in_s(600), end_time=in_s(900))
    answer = await extend(http, "early", by_s=60)
    assert (answer.status_code, answer.json()["status"]) == (200, "scheduled")


@pytest.mark.parametrize(
    ("to", "status", "said"),
    [
        ({}, 422, "one of them"),
        ({"by_s": 5, "end_time": "2050-01-01T00:00:00Z"}, 422, "one of them"),
        ({"by_s": 0}, 422, "by_s"),
        ({"by_s": 2_592_001}, 422, "by_s"),
        ({"by_s": 1.5}, 422, "by_s"),
        ({"end_time": "tomorrow"}, 422, "end_time"),
        ({"end_time": "2020-01-01T00:00:00Z"}, 409, "only become later"),
        ({"end_time": "2050-01-01T00:00:00Z"}, 409, "30 days"),
        ({"by_s": 60, "reason": " "}, 422, "blank"),
    ],
)
async def test_what_is_no_later_end_is_refused(
    http: httpx.AsyncClient, to: dict[str, Any], status: int, said: str
) -> None:
    if (await http.get("/api/v1/items/stays?may_open=false")).status_code == 404:
        await create(http, "stays", duration_s=600)
    before = (await http.get("/api/v1/items/stays")).json()
    answer = await extend(http, "stays", **to)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]
    assert (await http.get("/api/v1/items/stays")).json() == before


async def test_it_moves_by_thirty_days_in_all(http: httpx.AsyncClient) -> None:
    await create(http, "at-most", duration_s=600)
    assert (await extend(http, "at-most", by_s=2_592_000 - 5)).status_code == 200
    refused = await extend(http, "at-most", by_s=6)
    assert refused.status_code == 409
    assert "5 seconds are left" in refused.json()["detail"]
    assert (await extend(http, "at-most", by_s=5)).status_code == 200


async def test_what_is_over_or_has_no_end_stays(http: httpx.AsyncClient) -> None:
    await create(http, "endless")
    refused = await extend(http, "endless", by_s=60)
    assert (refused.status_code, "it has none" in refused.json()["detail"]) == (409, True)
    await create(http, "gone", duration_s=600)
    await operate(http, "gone", "cancel")
    refused = await extend(http, "gone", by_s=60)
    assert (refused.status_code, refused.json()["code"]) == (409, "STATE_CONFLICT")
    assert (await extend(http, "nobody-s", by_s=60)).status_code == 404


async def test_under_one_key_a_request_is_carried_out_once(http: httpx.AsyncClient, redis: Redis) -> None:
    created = await create(http, "again", duration_s=600)
    answers = await asyncio.gather(*(extend(http, "again", "k-1", by_s=60) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert {end_of(answer.json()) - end_of(created) for answer in answers} == {timedelta(seconds=60)}
    other = await extend(http, "again", "k-1", by_s=61)
    assert (other.status_code, other.json()["code"]) == (422, "KEY_REUSED")
    assert (await extend(http, "again", "k-2", by_s=60)).status_code == 200
    # Somebody else's key is another one; and what was done is told of an item that is over by now, too.
    body = {"reason": "x", "by": "omar", "by_s": 1}
    await http.post("/api/v1/items/again/extend", json=body, headers={KEY: "k-1"})
    await operate(http, "again", "cancel")
    late = await extend(http, "again", "k-1", by_s=60)
    assert (late.status_code, late.json()["status"]) == (200, "cancelled")
    assert kinds(await events_of(redis, "again")) == ["created", "end_moved", "end_moved", "end_moved", "cancelled"]


async def test_a_bad_key_is_refused(http: httpx.AsyncClient) -> None:
    await create(http, "bad-key", duration_s=600)
    assert (await extend(http, "bad-key", "a b", by_s=60)).status_code == 422
