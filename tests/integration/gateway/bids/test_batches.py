"""Many bids in one request: each has the answer that it would have alone."""

from __future__ import annotations

import secrets
from typing import Any, cast

import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from api_gateway.contract.schemas import BATCH_MAX
from api_gateway.routes.batches import BYTES_MAX, PATH
from shared import names
from shared.redis_layout.keys import cursors_key, item_key

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def prefix() -> str:
    return f"batch-{secrets.token_hex(4)}"


def bid(item_id: str, user: str = "ann", **more: Any) -> dict[str, Any]:
    return {"item_id": item_id, "user_id": user, **more}


async def answers(http: httpx.AsyncClient, *bids: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    answer = await http.post(PATH, json={"bids": list(bids)})
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [one["item_id"] for one in results] == [one["item_id"] for one in bids]
    return [(one["status"], one["answer"]) for one in results]


async def test_each_bid_has_its_own_answer_in_the_order_of_the_request(http: httpx.AsyncClient, prefix: str) -> None:
    a, b = f"{prefix}-a", f"{prefix}-b"
    found = await answers(
        http,
        bid(a, amount=5),
        bid(b, "bob", max_amount=9),
        bid(a, "bob", amount=5),
        bid(a, "bob", amount=6.001),
        bid(a, "bob", amount=7, bid_id="~1"),
        bid("no such item!", amount=7),
        bid(b, amount=4, bid_id=f"{prefix}-key"),
        bid(a, "cat", amount=8),
    )
    assert [status for status, _ in found] == [201, 201, 200, 422, 422, 422, 201, 201]
    assert [body.get("code") for _, body in found[2:6]] == ["TOO_LOW", "AMOUNT_INVALID", "INVALID", "INVALID"]
    assert (found[0][1]["seq"], found[7][1]["seq"]) == (1, 2)
    assert found[6][1]["is_highest"] is False, "the maximum of another bidder is higher"


async def test_bids_on_one_item_are_decided_in_their_order(http: httpx.AsyncClient, prefix: str) -> None:
    for start in (1, 1_000):  # an item that the gateway does not know yet, and one that it knows
        found = await answers(
            http, *(bid(prefix, f"user-{number % 7}", amount=start + number) for number in range(BATCH_MAX))
        )
        assert [status for status, _ in found] == [201] * BATCH_MAX
        seqs = [body["seq"] for _, body in found]
        assert seqs == list(range(seqs[0], seqs[0] + BATCH_MAX))


async def test_a_repetition_has_the_same_answers_and_places_nothing(http: httpx.AsyncClient, prefix: str) -> None:
    bids = [
        bid(f"{prefix}-{number % 40}", f"user-{number}", amount=1 + number, bid_id=f"{prefix}-{number}")
        for number in range(200)
    ]
    first = await answers(http, *bids)
    assert await answers(http, *bids) == first
    alone = await http.post(
        f"/api/v1/items/{bids[7]['item_id']}/bid", json={k: v for k, v in bids[7].items() if k != "item_id"}
    )
    assert (alone.status_code, alone.json()) == first[7]
    other = await answers(http, bids[7] | {"amount": 4_000})
    assert (other[0][0], other[0][1]["code"]) == (422, "KEY_REUSED")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"bids":[]}', 422, "INVALID"),
        (b'{"bids":[{"item_id":"a","user_id":"ann","amuont":1}]}', 422, "INVALID"),
        (b'{"bids":[{"user_id":"ann","amount":1}]}', 422, "INVALID"),
        (b'{"bids":[{"item_id":"a","user_id":"ann","amount":1},{"item_id":"a","amount":2}]}', 422, "INVALID"),
        (b"[", 422, "INVALID"),
        (b'{"bids":[%b]}' % b",".join([b'{"item_id":"a","user_id":"ann","amount":1}'] * 501), 422, "INVALID"),
        (b'{"bids":"%b"}' % (b"a" * BYTES_MAX), 413, "BODY_TOO_LARGE"),
    ],
    ids=["none", "a misspelt member", "no item", "one without a bidder", "no JSON", "too many", "too large"],
)
async def test_what_is_malformed_is_refused_as_a_whole(
    http: httpx.AsyncClient, body: bytes, status: int, code: str
) -> None:
    answer = await http.post(PATH, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_the_largest_batch_has_room(http: httpx.AsyncClient, prefix: str) -> None:
    bids = [
        bid(f"{prefix}{number:0>4}".ljust(64, "x"), "u" * 64, amount=1, max_amount=10**13 - 1, bid_id=f"b{number}" * 12)
        for number in range(BATCH_MAX)
    ]
    bids[1:] = [one | {"bid_id": str(one["bid_id"])[:64]} for one in bids[1:]]
    found = await answers(http, *bids)
    assert {status for status, _ in found} <= {201, 422}
    assert found[0][0] in (201, 422)


async def test_what_one_item_suffers_is_no_matter_of_the_others(
    http: httpx.AsyncClient, redis: Redis, prefix: str
) -> None:
    items = [f"{prefix}-{number}" for number in range(8)]
    await answers(http, *(bid(item_id, amount=1) for item_id in items))
    closed = names.shard_of(items[0])
    epoch = await cast(Any, redis.hget(cursors_key(closed), "epoch"))
    await cast(Any, redis.hdel(cursors_key(closed), "epoch"))
    broken = next(item_id for item_id in items if names.shard_of(item_id) != closed)
    await cast(Any, redis.hset(item_key(broken), "price", "none"))
    try:
        found = dict(zip(items, await answers(http, *(bid(item_id, amount=2) for item_id in items)), strict=True))
    finally:
        await cast(Any, redis.hset(cursors_key(closed), "epoch", epoch or ""))
        await cast(Any, redis.hset(item_key(broken), "price", "100"))
    assert (found[items[0]][0], found[items[0]][1]["code"]) == (503, "BEING_REBUILT")
    assert (found[broken][0], found[broken][1]["code"]) == (503, "OUTCOME_UNKNOWN")
    others = [status for item_id, (status, _) in found.items() if names.shard_of(item_id) != closed]
    assert sorted(others) == [201] * (len(others) - 1) + [503]
