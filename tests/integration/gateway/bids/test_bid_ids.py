"""One bid id names one bid of an item, whoever made it and whichever kind of key came with it; what may be an id."""

from __future__ import annotations

from typing import Any, cast

import asyncpg
import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from infrastructure.local.stack import Stack
from shared import names
from shared.redis_layout.keys import cursors_key, item_key
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]
REASON = {"reason": "a test"}


async def bid(http: httpx.AsyncClient, item: str, user: str, amount: float, **more: Any) -> httpx.Response:
    """``header=`` sends an Idempotency-Key; everything else is a member of the body."""
    header = more.pop("header", None)
    headers = {} if header is None else {"Idempotency-Key": header}
    body = {"user_id": user, "amount": amount} | more
    return await http.post(f"/api/v1/items/{item}/bid", json=body, headers=headers)


async def accepted(http: httpx.AsyncClient, item: str, user: str, amount: float, **more: Any) -> Json:
    answer = await bid(http, item, user, amount, **more)
    assert answer.status_code == 201, answer.text
    return cast(Json, answer.json())


async def verdict(http: httpx.AsyncClient, item: str, key: str, **query: str) -> httpx.Response:
    return await http.get(f"/api/v1/bids/by-key/{key}", params={"item_id": item} | query)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def another(bid_id: str) -> str:
    """Another id as gateways make them."""
    return bid_id[:-1] + ("1" if bid_id[-1] == "0" else "0")


async def archived(redis: Redis, stack: Stack, item: str) -> list[str]:
    """The bid ids of the item in PostgreSQL, once everything of its shard is archived; and nothing was put aside."""

    async def is_done() -> bool:
        fields: Any = redis.hmget(cursors_key(names.shard_of(item)), ["next", "archived"])
        last, done = await fields
        return bool(last == done)

    await eventually(is_done)
    connection = await asyncpg.connect(stack.urls.postgres_url)
    try:
        rows = await connection.fetch("SELECT bid_id FROM bids WHERE item_id = $1 ORDER BY epoch, seq", item)
        letters = await connection.fetch("SELECT detail FROM dead_letters WHERE subject = $1", names.subject_of(item))
    finally:
        await connection.close()
    assert letters == []
    return [row["bid_id"] for row in rows]


async def test_the_id_that_a_gateway_would_make_next_cannot_be_taken(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    first = await accepted(http, "next-id", "ada", 1)
    taken = await bid(http, "next-id", "eve", 2, bid_id=another(first["bid_id"]))
    assert code_of(taken) == (422, "INVALID")
    assert "leave bid_id out" in taken.json()["detail"]
    second = await accepted(http, "next-id", "bob", 3)
    third = await accepted(http, "next-id", "cyd", 4)
    ids = [one["bid_id"] for one in (first, second, third)]
    assert await archived(redis, gateway_stack, "next-id") == ids


async def test_an_id_that_the_gateway_made_cannot_be_sent_back(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    first = await accepted(http, "echoed", "ada", 1)
    assert code_of(await bid(http, "echoed", "ada", 5, bid_id=first["bid_id"])) == (422, "INVALID")
    assert await archived(redis, gateway_stack, "echoed") == [first["bid_id"]]


async def test_an_id_as_gateways_made_them_before_cannot_be_sent(http: httpx.AsyncClient) -> None:
    """Bids of that time may stand under it, and no verdict says so."""
    answer = await bid(http, "old-ids", "ada", 1, bid_id="0123456789abcdef01-1b")
    assert code_of(answer) == (422, "INVALID")
    assert (await bid(http, "old-ids", "ada", 1, bid_id="0123456789abcdef0-1b")).status_code == 201


async def test_an_id_that_the_gateway_made_is_taken_where_bids_are_named(http: httpx.AsyncClient) -> None:
    first = await accepted(http, "made", "ada", 1)
    await accepted(http, "made", "bob", 2)
    path = f"/api/v1/items/made/bids/{first['bid_id']}/void"
    assert first["bid_id"].startswith("~")
    assert (await http.post(path, json=REASON)).status_code == 200
    history = (await http.get("/api/v1/items/made/bids")).json()["bids"]
    assert [(one["bid_id"], one["status"]) for one in history][1] == (first["bid_id"], "voided")


async def test_a_header_key_like_an_id_of_the_gateway_does_no_harm(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    first = await accepted(http, "like-made", "ada", 1)
    guessed = another(first["bid_id"])
    second = await accepted(http, "like-made", "eve", 2, header=guessed)
    third = await accepted(http, "like-made", "bob", 3)
    fourth = await accepted(http, "like-made", "cyd", 4, header=first["bid_id"])
    assert (await bid(http, "like-made", "eve", 2, header=guessed)).json() == second
    ids = [one["bid_id"] for one in (first, second, third, fourth)]
    assert len(set(ids)) == 4
    assert await archived(redis, gateway_stack, "like-made") == ids
    assert (await verdict(http, "like-made", guessed)).json() == second


async def test_a_header_key_does_not_block_the_bid_id_of_somebody_else(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    by_header = await accepted(http, "crossed", "ada", 1, header="k")
    by_id = await accepted(http, "crossed", "bob", 2, bid_id="k")
    other = await accepted(http, "crossed", "cyd", 3, header="k")
    assert code_of(await bid(http, "crossed", "dee", 4, bid_id="k")) == (422, "KEY_REUSED")
    # Every one of them gets the own answer again, and only that.
    assert (await bid(http, "crossed", "ada", 1, header="k")).json() == by_header
    assert (await bid(http, "crossed", "bob", 2, bid_id="k")).json() == by_id
    assert (await bid(http, "crossed", "cyd", 3, header="k")).json() == other
    assert await archived(redis, gateway_stack, "crossed") == [by_header["bid_id"], "k", other["bid_id"]]
    for user, mine in (("ada", by_header), ("bob", by_id), ("cyd", other)):
        assert (await verdict(http, "crossed", "k", user_id=user)).json() == mine
    assert (await verdict(http, "crossed", "k", user_id="dee")).status_code == 404
    # A bid id names one bid; only where it names none is the key that of a header.
    assert (await verdict(http, "crossed", "k")).json() == by_id


async def test_without_a_user_the_first_who_used_the_key_is_told(http: httpx.AsyncClient) -> None:
    first = await accepted(http, "firsts", "ada", 1, header="k")
    await accepted(http, "firsts", "bob", 2, header="k")
    assert (await verdict(http, "firsts", "k")).json() == first
    low = await bid(http, "firsts", "cyd", 1, header="low")
    await bid(http, "firsts", "dee", 1.5, header="low")
    assert (await verdict(http, "firsts", "low")).json() == low.json()
    counts = await accepted(http, "firsts", "eve", 9, header="low")
    assert (await verdict(http, "firsts", "low")).json() == counts, "an accepted bid comes before refused ones"


async def test_a_bidders_header_key_and_bid_id_are_one_key(http: httpx.AsyncClient) -> None:
    by_header = await accepted(http, "one-key", "ada", 1, header="k")
    assert (await bid(http, "one-key", "ada", 1, bid_id="k")).json() == by_header
    by_id = await accepted(http, "one-key", "ada", 2, bid_id="i")
    assert (await bid(http, "one-key", "ada", 2, header="i")).json() == by_id
    assert (await bid(http, "one-key", "ada", 2, bid_id="i", header="i")).json() == by_id
    assert code_of(await bid(http, "one-key", "ada", 3, header="i")) == (422, "KEY_REUSED")
    assert code_of(await bid(http, "one-key", "ada", 3, bid_id="k")) == (422, "KEY_REUSED")
    assert (await http.get("/api/v1/items/one-key")).json()["seq"] == 2


@pytest.mark.parametrize("bid_id", ["~", "~a", "a~b", ".", "..", "...", "." * 64, "a/proxy", "a\n", "", "x" * 65])
async def test_ids_that_nobody_may_send(http: httpx.AsyncClient, bid_id: str) -> None:
    answer = await bid(http, "unsayable", "ada", 1, bid_id=bid_id)
    assert code_of(answer) == (422, "INVALID")
    assert "bid_id" in answer.json()["detail"] or "bid_id" in answer.json().get("field", "")


@pytest.mark.parametrize("user_id", [".", "..", "....", "a\n"])
async def test_user_ids_that_an_address_could_not_hold(http: httpx.AsyncClient, user_id: str) -> None:
    assert code_of(await bid(http, "unsayable", user_id, 1)) == (422, "INVALID")
    for path, body in (("", {"name": "Thing", "seller_id": user_id}), ("/unsayable/pause", REASON | {"by": user_id})):
        assert code_of(await http.post(f"/api/v1/items{path}", json=body)) == (422, "INVALID")


@pytest.mark.parametrize("key", [".", "..", "..."])
async def test_header_keys_that_could_not_be_asked_for(http: httpx.AsyncClient, key: str) -> None:
    assert code_of(await bid(http, "unsayable", "ada", 1, header=key)) == (422, "INVALID")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/items/breaks%0A/bid"),
        ("POST", "/api/v1/items/breaks/bid%0A"),
        ("POST", "/api/v1/items/breaks/pause%0A"),
        ("POST", "/api/v1/items/breaks/cancel%0D%0A"),
        ("POST", "/api/v1/items/breaks/bids/x/void%0A"),
        ("POST", "/api/v1/items/breaks/bids/x%0A/void"),
        ("POST", "/api/v1/items/breaks/bids/%2e%2e/void"),
        ("POST", "/api/v1/items%0A"),
        ("GET", "/api/v1/items/breaks%0A"),
        ("GET", "/api/v1/items/breaks/bids%0A"),
        ("GET", "/api/v1/items%0A"),
        ("GET", "/api/v1/bids/by-key/x%0A?item_id=breaks"),
        ("GET", "/api/v1/bids/by-key/x?item_id=breaks%0A"),
        ("GET", "/api/v1/bids/by-key/x?item_id=breaks&user_id=ada%0A"),
        ("GET", "/health%0A"),
        ("POST", "/api/v1/items//bid"),
        ("POST", "/api/v1/items/breaks/bids//void"),
        ("GET", "/api/v1/bids/by-key/?item_id=breaks"),
    ],
)
async def test_an_address_that_path_rules_read_otherwise_leads_nowhere(
    http: httpx.AsyncClient, redis: Redis, method: str, path: str
) -> None:
    """A line break at its end, or a part that is empty or of dots: a proxy may see another path in it."""
    await bid(http, "breaks", "ada", 1, bid_id="x")
    before = (await http.get("/api/v1/items/breaks")).json()
    is_bid, is_new = "/bid" in path and "void" not in path, path.startswith("/api/v1/items%")
    body = {"user_id": "eve", "amount": 9} if is_bid else {"name": "breaks"} if is_new else REASON
    # The client library normalises nothing here: the target goes out as it stands.
    request = http.build_request(method, "/", json=body)
    request.url = request.url.copy_with(raw_path=path.encode())
    answer = await http.send(request)
    assert answer.status_code in (404, 405, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await http.get("/api/v1/items/breaks")).json() == before
    assert not [key async for key in redis.scan_iter("*breaks\n*")]


@pytest.mark.parametrize(
    ("body", "field", "hint"),
    [
        ('{"user_id":"ada","amount":1,"max_amuont":50}', "max_amuont", 'did you mean "max_amount"?'),
        ('{"user_id":"ada","ammount":1}', "ammount", 'did you mean "amount"?'),
        ('{"user_id":"ada","amount":1,"comment":"hello"}', "comment", "user_id, amount, max_amount, bid_id"),
    ],
)
async def test_a_misspelt_field_of_a_bid_is_refused(
    http: httpx.AsyncClient, redis: Redis, body: str, field: str, hint: str
) -> None:
    answer = await http.post("/api/v1/items/misspelt/bid", content=body.encode())
    assert code_of(answer) == (422, "INVALID")
    assert answer.json()["field"] == field
    assert hint in answer.json()["detail"]
    assert not await redis.exists(item_key("misspelt"))


@pytest.mark.parametrize(
    ("path", "body", "hint"),
    [
        ("/api/v1/items", {"name": "Thing", "start_prise": 5}, 'did you mean "start_price"?'),
        ("/api/v1/items/any/pause", {"reson": "x", "reason": "y"}, 'did you mean "reason"?'),
        ("/api/v1/items/any/bids/x/void", {"reason": "y", "buy": "op"}, 'did you mean "by"?'),
        ("/api/v1/feed-token", {"user_id": "ada", "userid": "bob"}, 'did you mean "user_id"?'),
    ],
)
async def test_so_is_one_of_every_other_body(http: httpx.AsyncClient, path: str, body: Json, hint: str) -> None:
    answer = await http.post(path, json=body)
    assert code_of(answer) == (422, "INVALID")
    assert hint in answer.json()["detail"]


async def test_equal_numbers_are_the_same_bid(http: httpx.AsyncClient) -> None:
    first = await accepted(http, "numbers", "ada", 12, bid_id="x")
    for literal in ("12.0000", "1.2000000e1", "120e-1", "0.1200e2", "12E0", "1200000000000000000000000e-23"):
        body = f'{{"user_id":"ada","amount":{literal},"bid_id":"x"}}'
        answer = await http.post("/api/v1/items/numbers/bid", content=body.encode())
        assert (answer.status_code, answer.json()) == (201, first), literal
    for literal in ("12.001", "12.0000000001", "1e400", "1e-400", "0e999999999", "1e999999999", "1e-999999999"):
        body = f'{{"user_id":"ada","amount":{literal},"bid_id":"x"}}'
        answer = await http.post("/api/v1/items/numbers/bid", content=body.encode())
        assert code_of(answer) == (422, "AMOUNT_INVALID"), literal


@pytest.mark.parametrize(
    "end_time",
    [
        "2030-W01-1T00:00:00Z",
        "20300101T000000Z",
        "2030-01-01",
        "2030-01-01T00:00Z",
        "2030-01-01T00:00:00",
        "2030-01-01T00:00:00+0100",
        "2030-01-01T00:00:00+01",
        "2030-01-01T00:00:00,5Z",
        "2030-001T00:00:00Z",
        "2029-12-31T23:59:60Z",
        "2030-01-01T24:00:00Z",
    ],
)
async def test_times_are_those_of_rfc_3339(http: httpx.AsyncClient, end_time: str) -> None:
    answer = await http.post("/api/v1/items", json={"name": "Clock", "end_time": end_time})
    assert (*code_of(answer), answer.json()["field"]) == (422, "TERMS_INVALID", "end_time")


async def test_times_of_rfc_3339_are_read(http: httpx.AsyncClient) -> None:
    for end_time in ("2030-01-01t00:00:00z", "2030-01-01T01:00:00.000+01:00", "2029-12-31T23:59:59.9999999-00:00"):
        answer = await http.post("/api/v1/items", json={"name": "Clock", "end_time": end_time})
        assert answer.status_code == 201, answer.text
