"""The gateway over HTTP, against real servers."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from api_gateway.engine.creation.new_item import NewItem, created_members
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from shared.domain.auction import Terms
from shared.redis_layout.item_hash import item_fields
from shared.redis_layout.keys import item_key
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def bid(http: httpx.AsyncClient, item: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await http.post(f"/api/v1/items/{item}/bid", json=body, headers=headers)


async def test_an_accepted_bid_has_the_documented_answer(http: httpx.AsyncClient) -> None:
    answer = await bid(http, "answers", {"user_id": "ada", "amount": 12.5, "bid_id": "first"})
    assert answer.status_code == 201
    assert answer.text == (
        '{"success":true,"message":"Bid accepted","current_bid":12.50,"your_bid":12.50,"is_highest":true,'
        '"event_id":"answers:1:1","bid_id":"first","seq":1,"min_next_bid":12.51,"reserve_met":true,"kind":"bid"}'
    )


async def test_a_refused_bid_says_what_would_do(http: httpx.AsyncClient) -> None:
    await bid(http, "refusals", {"user_id": "ada", "amount": 12.5})
    answer = await bid(http, "refusals", {"user_id": "bob", "amount": 12.5})
    assert answer.status_code == 200
    assert answer.json() == {
        "success": False,
        "code": "TOO_LOW",
        "message": "Too low, bid at least 12.51",
        "current_bid": 12.5,
        "your_bid": 12.5,
        "is_highest": False,
        "min_next_bid": 12.51,
        "you_lead": False,
        "reserve_met": True,
    }


async def test_a_repeated_key_gives_the_same_answer_and_one_bid(http: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(bid(http, "retries", {"user_id": "ada", "amount": 3, "bid_id": "same"}) for _ in range(100))
    )
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, answers[0].text)}
    item = (await http.get("/api/v1/items/retries")).json()
    assert (item["seq"], item["bid_count"]) == (1, 1)
    stored = await http.get("/api/v1/bids/by-key/same", params={"item_id": "retries"})
    assert (stored.status_code, stored.text) == (200, answers[0].text)


async def test_a_key_with_other_content_is_refused(http: httpx.AsyncClient) -> None:
    await bid(http, "reuse", {"user_id": "ada", "amount": 3}, **{"Idempotency-Key": "k 1".replace(" ", "/")})
    answer = await bid(http, "reuse", {"user_id": "ada", "amount": 4}, **{"Idempotency-Key": "k/1"})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "KEY_REUSED"
    assert answer.json()["error"] == answer.json()["detail"]
    assert (await http.get("/api/v1/items/reuse")).json()["seq"] == 1
    # The same header key of another bidder is another key.
    other = await bid(http, "reuse", {"user_id": "bob", "amount": 4}, **{"Idempotency-Key": "k/1"})
    assert other.status_code == 201
    theirs = await http.get("/api/v1/bids/by-key/k%2F1", params={"item_id": "reuse", "user_id": "bob"})
    assert theirs.json() == other.json()


async def test_one_bid_id_names_one_bid_whoever_sends_it(http: httpx.AsyncClient) -> None:
    assert (await bid(http, "owners", {"user_id": "ada", "amount": 3, "bid_id": "x"})).status_code == 201
    assert (await bid(http, "owners", {"user_id": "bob", "amount": 4, "bid_id": "x"})).status_code == 422


async def test_an_unknown_key_is_404(http: httpx.AsyncClient) -> None:
    await bid(http, "unknown-keys", {"user_id": "ada", "amount": 3})
    answer = await http.get("/api/v1/bids/by-key/never", params={"item_id": "unknown-keys"})
    assert (answer.status_code, answer.json()["code"]) == (404, "KEY_NOT_FOUND")


BAD_BODIES = [
    '{"user_id":"ada","amount":true}',
    '{"user_id":"ada","amount":"12"}',
    '{"user_id":"ada","amount":null}',
    '{"user_id":"ada","amount":NaN}',
    '{"user_id":"ada","amount":1e400}',
    '{"user_id":"ada","amount":-1}',
    '{"user_id":"ada","amount":0}',
    '{"user_id":"ada","amount":0.00}',
    '{"user_id":"ada","amount":9007199254740992}',
    '{"user_id":"ada","amount":90071992547409.92}',
    '{"user_id":"ada","amount":10.001}',
    '{"user_id":"ada","amount":10.000000000000000000000001}',
    '{"user_id":"ada","amount":[1]}',
    '{"user_id":"ada","amount":{"a":1}}',
    '{"user_id":"ada","amount":' + "[" * 2_000 + "]" * 2_000 + "}",
    '{"user_id":"ada"}',
    '{"user_id":"ada","max_amount":null}',
    '{"amount":1}',
    '{"user_id":7,"amount":1}',
    '{"user_id":"","amount":1}',
    '{"user_id":"a b","amount":1}',
    '{"user_id":"a{b}","amount":1}',
    '{"user_id":"a*","amount":1}',
    '{"user_id":"a>","amount":1}',
    '{"user_id":"a\\u0000","amount":1}',
    '{"user_id":"\\ud83d\\ude00","amount":1}',
    '{"user_id":"' + "a" * 65 + '","amount":1}',
    '{"user_id":"ada","amount":1,"max_amount":0.5}',
    '{"user_id":"ada","amount":1,"bid_id":"a b"}',
    '{"user_id":"ada","amount":1,"bid_id":""}',
    "[1]",
    "not json",
    "",
    '{"user_id":"ada","amount":1',
]


@pytest.mark.parametrize(
    "body", [*(text.encode() for text in BAD_BODIES), b'{"user_id":"\xff","amount":1}', b"\xff\xfe"]
)
async def test_a_malformed_bid_never_reaches_the_script(http: httpx.AsyncClient, redis: Redis, body: bytes) -> None:
    before = await _decided(http)
    answer = await http.post("/api/v1/items/malformed/bid", content=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"]
    assert await _decided(http) == before
    assert not await redis.exists(item_key("malformed")), "a malformed bid must not open an item either"


async def _decided(http: httpx.AsyncClient) -> int:
    """How many bids the gateway has put through the script."""
    lines = (await http.get("/metrics")).text.splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("bidding_bids_decided_total ")))


@pytest.mark.parametrize(
    "item", ["a.b", "a*b", "a>b", "a{b}", "a%20b", "a%00b", "x" * 65, "x" * 10_000, "%F0%9F%98%80"]
)
async def test_a_malformed_item_id_is_refused(http: httpx.AsyncClient, item: str) -> None:
    answer = await http.post(f"/api/v1/items/{item}/bid", content=b'{"user_id":"ada","amount":1}')
    assert answer.status_code == 422, answer.text
    assert (await http.get(f"/api/v1/items/{item}")).status_code == 422


async def test_a_large_body_is_refused_early(http: httpx.AsyncClient) -> None:
    declared = await http.post("/api/v1/items/large/bid", content=b"x" * 10_000_000)
    assert declared.status_code == 413

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 1_000

    try:
        endless = await http.post("/api/v1/items/large/bid", content=chunks())
    except (httpx.WriteError, httpx.ReadError):
        pass  # the connection was closed while the client was still sending
    else:
        assert endless.status_code == 413
    created = await http.post("/api/v1/items", content=b"x" * 1_000_000)
    assert created.status_code == 413


async def test_amounts_are_exact_to_the_last_minor_unit(http: httpx.AsyncClient) -> None:
    text = '{"user_id":"ada","amount":90071992547409.91}'
    answer = await http.post("/api/v1/items/exact/bid", content=text.encode())
    assert answer.status_code == 201
    assert '"current_bid":90071992547409.91,' in answer.text
    higher = await http.post("/api/v1/items/exact/bid", content=text.replace("ada", "bob").encode())
    assert higher.json()["code"] == "TOO_LOW"


async def test_a_currency_without_decimals_takes_none(http: httpx.AsyncClient) -> None:
    created = await http.post(
        "/api/v1/items", json={"id": "yen", "name": "Netsuke", "currency": "JPY", "start_price": 500}
    )
    assert created.status_code == 201
    assert (await bid(http, "yen", {"user_id": "ada", "amount": 500.5})).status_code == 422
    answer = await bid(http, "yen", {"user_id": "ada", "amount": 500})
    assert (answer.status_code, answer.json()["min_next_bid"]) == (201, 501)


async def test_an_amount_is_read_in_the_currency_that_the_item_got(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    """A first bid takes the item for one of its own, in dollars, while somebody else opens it in yen."""
    blocking = await asyncpg.connect(gateway_stack.urls.postgres_url)
    watching = await asyncpg.connect(gateway_stack.urls.postgres_url)
    async with blocking.transaction():
        await blocking.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
        first = asyncio.create_task(bid(http, "raced", {"user_id": "ada", "amount": 12.5}))

        async def is_asking() -> bool:
            sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'api-gateway' AND wait_event_type = 'Lock'"
            return bool(await watching.fetch(sql))

        await eventually(is_asking)
        yen = NewItem(Terms(item_id="raced", start_us=0, currency="JPY"), name="Netsuke")
        opened = await ItemScripts(redis, ScriptLimits()).open_item(
            "raced",
            start_us=None,
            end_us=None,
            length_us=None,
            event_members=created_members(yen),
            fields=item_fields(yen.terms, name=yen.name, description=""),
        )
        assert opened.created
    answer = await first
    assert (answer.status_code, answer.json()["code"]) == (422, "AMOUNT_INVALID")
    assert (await bid(http, "raced", {"user_id": "ada", "amount": 12})).json()["your_bid"] == 12
    for connection in (blocking, watching):
        await connection.close()


async def test_an_item_is_created_once(http: httpx.AsyncClient) -> None:
    body = {"id": "once", "name": "Clock", "description": 'says "tick"\n', "start_price": 10.25, "seller_id": "sel"}
    created = await http.post("/api/v1/items", json=body)
    assert created.status_code == 201
    item = created.json()
    assert item["name"] == "Clock"
    assert item["description"] == 'says "tick"\n'
    assert (item["seq"], item["epoch"], item["status"], item["min_next_bid"]) == (0, 1, "open", 10.25)
    again = await http.post("/api/v1/items", json=body)
    assert (again.status_code, again.json()["code"]) == (409, "ITEM_EXISTS")
    assert (await bid(http, "once", {"user_id": "sel", "amount": 11})).json()["code"] == "OWN_ITEM"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"name": ""}, "name"),
        ({"start_price": -1}, "amount"),
        ({"start_price": "5"}, "amount"),
        ({"currency": "XXX"}, "currency"),
        ({"reserve_price": 1, "start_price": 2}, "reserve_price"),
        ({"end_time": "2001-01-01T00:00:00Z"}, "end_time"),
        ({"end_time": "2030-01-01T00:00:00"}, "end_time"),
        ({"end_time": "soon"}, "end_time"),
        ({"increment": {"kind": "percent", "value": 101}}, "increment"),
        ({"increment": {"kind": "ladder", "steps": [{"below": 5, "increment": 1}]}}, "increment"),
        ({"soft_close": {"trigger_s": 10, "extend_s": 10}}, "soft_close"),
        ({"seller_id": "a b"}, "seller_id"),
        ({"id": "a b"}, "item id"),
        ({"surprise": 1}, "surprise"),
        ({"duration_s": 0}, "duration_s"),
    ],
)
async def test_impossible_terms_are_refused(http: httpx.AsyncClient, change: dict[str, Any], where: str) -> None:
    answer = await http.post("/api/v1/items", json={"name": "Thing"} | change)
    assert answer.status_code == 422, answer.text
    assert where in answer.json()["detail"]


async def test_history_joins_the_archive_with_what_is_not_archived(http: httpx.AsyncClient) -> None:
    for number in range(1, 31):
        answer = await bid(http, "history", {"user_id": f"u{number % 3}", "amount": number})
        assert answer.status_code == 201
    # Right after the last answer some bids are archived and some are not; all are shown.
    first = (await http.get("/api/v1/items/history/bids", params={"limit": 20})).json()
    second = (await http.get("/api/v1/items/history/bids", params={"limit": 20, "cursor": first["next_cursor"]})).json()
    shown = [*first["bids"], *second["bids"]]
    assert [entry["seq"] for entry in shown] == list(range(30, 0, -1))
    assert [entry["amount"] for entry in shown] == list(range(30, 0, -1))
    assert second["next_cursor"] is None
    assert len({entry["bidder"] for entry in shown}) == 3
    assert not {entry["bidder"] for entry in shown} & {"u0", "u1", "u2"}


async def test_items_are_listed_with_their_live_price(http: httpx.AsyncClient) -> None:
    for number in range(5):
        body: dict[str, Any] = {
            "id": f"listed-{number}",
            "name": f"Lot {number}",
            "start_price": number + 1,
            "currency": "EUR",
        }
        if number % 2:
            body["duration_s"] = 10_000 - 1_000 * number
        assert (await http.post("/api/v1/items", json=body)).status_code == 201

    async def all_listed() -> bool:
        page = await _page(http, {"limit": "200"})
        return len([item for item in page["items"] if item["id"].startswith("listed-")]) == 5

    await eventually(all_listed, seconds=60)
    assert (await bid(http, "listed-0", {"user_id": "ada", "amount": 77})).status_code == 201
    newest = await _all_pages(http, sort="newest", status="open")
    assert [item["id"] for item in newest] == [f"listed-{number}" for number in range(4, -1, -1)]
    assert newest[-1]["current_bid"] == 77
    ending = await _all_pages(http, sort="ending")
    assert [item["id"] for item in ending] == ["listed-3", "listed-1", "listed-0", "listed-2", "listed-4"]

    async def priced() -> bool:
        by_price = await _all_pages(http, sort="price")
        return [item["id"] for item in by_price] == ["listed-0", "listed-4", "listed-3", "listed-2", "listed-1"]

    await eventually(priced, seconds=60)
    assert (await http.get("/api/v1/items", params={"cursor": "nonsense"})).status_code == 422


@pytest.mark.parametrize(
    ("sort", "place", "item"),
    [
        ("newest", "2026-13-32 25:61:61+00", "a"),
        ("newest", "2026-01-01 00:00:00+00", "a\0"),
        ("price", "EUR:" + "9" * 19, "a"),
        ("price", "EUR:\u0661", "a"),  # an Arabic digit
        ("price", "EUR:-1", "a"),
        ("price", "5", "a"),
        ("price", ":5", "a"),
        ("price", None, "a"),
        ("ending", "5", "a"),
    ],
)
async def test_a_cursor_that_was_tampered_with_is_refused(
    http: httpx.AsyncClient, sort: str, place: str | None, item: str
) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps([sort, place, item]).encode()).decode().rstrip("=")
    answer = await http.get("/api/v1/items", params={"sort": sort, "cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID"), answer.text


async def _page(http: httpx.AsyncClient, params: dict[str, str]) -> dict[str, Any]:
    """A page of the list. PostgreSQL may be slower than a reader is let wait; then the reader asks again."""

    async def shown() -> dict[str, Any] | None:
        answer = await http.get("/api/v1/items", params=params)
        assert answer.status_code in (200, 503), answer.text
        return cast("dict[str, Any]", answer.json()) if answer.status_code == 200 else None

    return await eventually(shown, "a page of items", seconds=30)


async def test_prices_of_different_currencies_are_listed_apart(http: httpx.AsyncClient) -> None:
    """Of 700 yen, 9.00 euros and 8.000 dinars the dinars have the most minor units, and the yen the fewest."""
    prices = {"yen-a": 700, "yen-b": 900, "eur-a": 9, "eur-b": 9, "eur-c": 11.5, "kwd-a": 8, "usd-a": 1}
    for name, price in prices.items():
        body = {
            "id": f"priced-{name}",
            "name": name,
            "start_price": price,
            "currency": name[:3].replace("yen", "jpy").upper(),
        }
        assert (await http.post("/api/v1/items", json=body)).status_code == 201
    expected = ["eur-c", "eur-b", "eur-a", "yen-b", "yen-a", "kwd-a", "usd-a"]

    async def apart() -> bool:
        pages = await _all_pages(http, "priced-", sort="price", status="open")
        return [item["name"] for item in pages] == expected

    await eventually(apart, seconds=60)


async def _all_pages(http: httpx.AsyncClient, prefix: str = "listed-", **filters: str) -> list[dict[str, Any]]:
    """The items of such ids over pages of two; none may be missing or come twice."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = filters | {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = await _page(http, params)
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return [item for item in found if item["id"].startswith(prefix)]


async def test_a_catalogue_that_is_closed_knows_no_strangers(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"OPEN_CATALOGUE": "false"})
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url) as http:
        answer = await bid(http, "stranger", {"user_id": "ada", "amount": 1})
        assert (answer.status_code, answer.json()["code"]) == (404, "ITEM_NOT_FOUND")
        assert (await http.get("/api/v1/items/stranger")).status_code == 404
