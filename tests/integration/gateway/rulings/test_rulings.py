"""Who may bid, on a running gateway: every road of a bid, every kind of ruling, and what the archive has of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from infrastructure.local.stack import Stack
from shared import names
from shared.redis_layout.keys import item_rulings_key, outbox_key, rulings_key
from tests.integration.gateway.rulings.calls import API, bid, code, create, rule
from tests.programs import bidding
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


async def test_approval_on_an_item(http: httpx.AsyncClient) -> None:
    await create(http, "members", approval_required=True)
    assert (await http.get(f"{API}/items/members")).json()["approval_required"] is True
    refused = await bid(http, "members", "ann", amount=5, bid_id="ann-1")
    assert (refused["success"], refused["code"], refused["current_bid"]) == (False, "NOT_APPROVED", 0)
    # It was not decided, so nothing is kept under its key.
    asked = await http.get(f"{API}/bids/by-key/ann-1", params={"item_id": "members"})
    assert asked.status_code == 404
    told = await rule(http, "PUT", "/items/members/bidders/ann/approval", {"reason": "known", "by": "olga"})
    assert told["may_bid"] is True
    assert (told["approved"], told["approved_for_all"], told["refusal"]) == (True, False, None)
    accepted = await bid(http, "members", "ann", amount=5, bid_id="ann-1")
    assert accepted["success"] is True
    await rule(http, "DELETE", "/items/members/bidders/ann/approval")
    # What was accepted stands, and a repetition has its answer.
    assert await bid(http, "members", "ann", amount=5, bid_id="ann-1") == accepted
    assert await code(http, "members", "ann", amount=6) == "NOT_APPROVED"
    assert (await http.get(f"{API}/items/members")).json()["highest_bidder_id"] == "ann"


async def test_a_block_on_every_road(http: httpx.AsyncClient, gateway_stack: Stack) -> None:
    await create(http, "roads")
    await rule(http, "PUT", "/items/roads/bidders/dan/block")
    assert await code(http, "roads", "dan", amount=5) == "BLOCKED"
    in_pieces = await http.post(f"{API}/items/roads/bid", content=pieces(b'{"user_id":"dan","amount":5}'))
    assert in_pieces.json()["code"] == "BLOCKED"
    batch = {"bids": [{"item_id": "roads", "user_id": user, "amount": 5} for user in ("dan", "ann", "dan")]}
    results = (await http.post(f"{API}/bids:batch", json=batch)).json()["results"]
    assert [each["answer"].get("code") for each in results] == ["BLOCKED", None, "BLOCKED"]
    url = gateway_stack.urls.gateway_url.replace("http", "ws", 1) + f"{API}/bids"
    async with connect(url, proxy=None) as socket:
        await socket.send(json.dumps({"op": "bid", "id": 1, "item_id": "roads", "user_id": "dan", "amount": 50}))
        told = json.loads(await asyncio.wait_for(socket.recv(), 5))
    assert (told["status"], told["answer"]["code"]) == (200, "BLOCKED")
    await rule(http, "DELETE", "/items/roads/bidders/dan/block")
    assert await code(http, "roads", "dan", amount=50) is None


async def pieces(content: bytes) -> Any:
    yield content


async def test_a_block_by_a_seller_and_by_the_house(http: httpx.AsyncClient) -> None:
    """On items of many shards, also on one that is created later."""
    mine, other = [f"of-sam-{n}" for n in range(8)], "of-sue"
    assert len({names.shard_of(item) for item in mine}) > 4
    for item in mine[:-1]:
        await create(http, item, seller_id="sam")
    await create(http, other, seller_id="sue")
    told = await rule(http, "PUT", "/sellers/sam/bidders/eve/block", {"reason": "did not pay"})
    assert told == {
        **{"user_id": "eve", "seller_id": "sam", "approved": False, "blocked": True},
        "approval_required": False,
    }
    assert await rule(http, "GET", "/sellers/sam/bidders/eve") == told
    assert await rule(http, "GET", "/sellers/sue/bidders/eve") == told | {"seller_id": "sue", "blocked": False}
    await create(http, mine[-1], seller_id="sam")
    assert [await code(http, item, "eve", amount=5) for item in (*mine, other)] == ["BLOCKED"] * 8 + [None]
    seen = await rule(http, "GET", f"/items/{mine[0]}/bidders/eve")
    assert (seen["may_bid"], seen["blocked"], seen["blocked_by_seller"], seen["blocked_for_all"]) == (
        *(False, False, True),
        False,
    )
    await rule(http, "PUT", "/bidders/eve/block")
    assert await code(http, other, "eve", amount=6) == "BLOCKED"
    await rule(http, "DELETE", "/sellers/sam/bidders/eve/block")
    assert await code(http, mine[0], "eve", amount=6) == "BLOCKED"
    # A block of the house is none of the seller's.
    assert await rule(http, "GET", "/sellers/sam/bidders/eve") == told | {"blocked": False}
    await rule(http, "DELETE", "/bidders/eve/block")
    assert [await code(http, item, "eve", amount=7) for item in (*mine, other)] == [None] * 9


async def test_a_house_that_asks_for_approval(http: httpx.AsyncClient) -> None:
    await create(http, "plain-1")
    await create(http, "plain-2")
    assert await rule(http, "PUT", "/approval-required", {"reason": "a sale for members"}) == {
        "approval_required": True
    }
    try:
        assert await code(http, "plain-1", "fay", amount=5) == "NOT_APPROVED"
        await rule(http, "PUT", "/bidders/fay/approval")
        assert await code(http, "plain-1", "fay", amount=5) is None
        assert (await rule(http, "GET", "/items/plain-2/bidders/gus"))["refusal"] == "NOT_APPROVED"
        await rule(http, "PUT", "/items/plain-2/bidders/gus/approval")
        assert [await code(http, item, "gus", amount=9) for item in ("plain-2", "plain-1")] == [None, "NOT_APPROVED"]
    finally:
        assert await rule(http, "DELETE", "/approval-required") == {"approval_required": False}
    assert await code(http, "plain-1", "gus", amount=9) is None


async def test_a_limit(http: httpx.AsyncClient) -> None:
    await create(http, "limited", currency="JPY")
    wrong = await http.put(f"{API}/items/limited/bidders/hal/limit", json={"amount": 10.5})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "amount")
    told = await rule(http, "PUT", "/items/limited/bidders/hal/limit", {"amount": 500})
    assert (told["limit"], told["currency"], told["may_bid"]) == (500, "JPY", True)
    assert await code(http, "limited", "hal", amount=100, max_amount=501) == "LIMIT_EXCEEDED"
    assert await code(http, "limited", "hal", amount=100, max_amount=500) is None
    assert await code(http, "limited", "ida", max_amount=9_000) is None
    assert await code(http, "limited", "hal", amount=502) == "LIMIT_EXCEEDED"
    await rule(http, "DELETE", "/items/limited/bidders/hal/limit")
    assert await code(http, "limited", "hal", amount=502) is None


async def test_what_is_no_request(http: httpx.AsyncClient) -> None:
    await create(http, "odd")
    for method, path, body, status in (
        ("PUT", "/items/never-there-1/bidders/ann/block", None, 404),
        ("PUT", "/items/odd/bidders/no spaces/block", None, 422),
        ("PUT", "/items/odd/bidders/.../block", None, 422),
        ("PUT", "/items/odd/bidders/*/block", None, 422),
        ("PUT", "/bidders/a|b/block", None, 422),
        ("PUT", "/sellers/x y/bidders/ann/block", None, 422),
        ("GET", "/sellers/x y/bidders/ann", None, 422),
        ("GET", "/sellers/sam/bidders/a|b", None, 422),
        ("PUT", "/items/odd/bidders/ann/block", {"why": "a wrong name"}, 422),
        ("PUT", "/items/odd/bidders/ann/block", {"reason": "nul\0"}, 422),
        ("PUT", "/items/odd/bidders/ann/block", {"reason": "x" * 501}, 422),
        ("PUT", "/items/odd/bidders/ann/block", {"by": "no spaces"}, 422),
        ("PUT", "/items/odd/bidders/ann/limit", None, 422),
        ("PUT", "/items/odd/bidders/ann/limit", {"amount": None}, 422),
        ("PUT", "/items/odd/bidders/ann/limit", {"amount": -1}, 422),
        ("PUT", "/items/odd/bidders/ann/limit", {"amount": "1"}, 422),
        ("POST", "/items/odd/bidders/ann/limit", {"amount": 1}, 405),
        ("GET", "/items/odd/bidders?cursor=-1", None, 422),
        ("GET", "/items/odd/bidders?cursor=99999999999999999999", None, 422),
        ("GET", "/items/odd/bidders?limit=0", None, 422),
        ("DELETE", "/items/odd/bidders/ann/block?reason=" + "x" * 501, None, 422),
    ):
        answer = await http.request(method, f"{API}{path}", json=body)
        assert answer.status_code == status, (method, path, body, answer.text)
    assert (await rule(http, "GET", "/items/odd/bidders"))["bidders"] == []


async def test_an_item_that_is_over_takes_no_rulings(http: httpx.AsyncClient) -> None:
    await create(http, "over")
    await rule(http, "PUT", "/items/over/bidders/ann/block")
    assert (await http.post(f"{API}/items/over/cancel", json={"reason": "a test"})).status_code == 200
    answer = await http.put(f"{API}/items/over/bidders/bob/block")
    assert (answer.status_code, answer.json()["code"]) == (409, "STATE_CONFLICT")
    assert (await rule(http, "GET", "/items/over/bidders/ann"))["refusal"] == "BLOCKED"


async def test_pages_of_bidders(http: httpx.AsyncClient) -> None:
    await create(http, "many")
    everybody = {f"bidder-{n}" for n in range(700)}
    for first in range(0, 700, 50):
        ruled = (http.put(f"{API}/items/many/bidders/bidder-{n}/approval") for n in range(first, first + 50))
        assert {answer.status_code for answer in await asyncio.gather(*ruled)} == {200}
    found: list[str] = []
    cursor, pages = None, 0
    while True:
        page = await rule(
            http, "GET", "/items/many/bidders", limit="50", **({} if cursor is None else {"cursor": cursor})
        )
        found += (each["user_id"] for each in page["bidders"])
        cursor, pages = page["next_cursor"], pages + 1
        if cursor is None:
            break
    assert set(found) == everybody
    assert pages > 3


async def test_the_archive_knows_who_ruled_what_and_nobody_else_is_told(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    await create(http, "audited", seller_id="sam")
    reason = 'he said "100 %", and \\ left'
    await rule(http, "PUT", "/items/audited/bidders/joe/block", {"reason": reason, "by": "olga"})
    await rule(http, "PUT", "/items/audited/bidders/joe/block", {"reason": "again", "by": "olga"})
    await rule(http, "PUT", "/items/audited/bidders/joe/limit", {"amount": 7.25})
    await rule(http, "DELETE", "/items/audited/bidders/joe/block", reason="paid", by="olga")
    await rule(http, "PUT", "/sellers/sam/bidders/joe/block", {"reason": reason})
    before = (await http.get(f"{API}/items/audited")).json()
    assert (before["seq"], before["bid_count"]) == (0, 0), "no event tells of it"
    connection = await asyncpg.connect(gateway_stack.urls.postgres_url)
    try:

        async def rows() -> Any:
            found = await connection.fetch(
                "SELECT item_id, seller_id, user_id, ruling, approved, blocked, max_amount, reason, actor FROM rulings "
                "WHERE user_id = 'joe' ORDER BY decided_at"
            )
            return [tuple(row) for row in found] if len(found) == 4 else None

        assert await eventually(rows) == [
            ("audited", None, "joe", "block", False, True, None, reason, "olga"),
            ("audited", None, "joe", "limit", False, True, 725, "", "operator"),
            ("audited", None, "joe", "unblock", False, False, 725, "paid", "olga"),
            (None, "sam", "joe", "block", False, True, None, reason, "operator"),
        ]
        assert await connection.fetchval("SELECT count(*) FROM dead_letters") == 0
        told = (await http.get(f"{API}/items/audited/audit")).json()["rulings"]
        assert [(each["ruling"], each["amount"], each["by"], each["reason"]) for each in told] == [
            ("unblock", None, "olga", "paid"),
            ("limit", 7.25, "operator", ""),
            ("block", None, "olga", reason),
        ]
        assert {(each["user_id"], each["seller_id"], each["currency"]) for each in told} == {("joe", None, "USD")}
        [on_all] = (await http.get(f"{API}/ops/rulings", params={"user_id": "joe"})).json()["rulings"]
        assert (on_all["ruling"], on_all["seller_id"], on_all["by"]) == ("block", "sam", "operator")
        assert on_all["reason"] == reason
    finally:
        await connection.close()
    # A ruling that was taken back altogether leaves nothing on the item.
    await rule(http, "DELETE", "/items/audited/bidders/joe/limit")
    assert await redis.exists(item_rulings_key("audited")) == 0
    await rule(http, "DELETE", "/sellers/sam/bidders/joe/block")


async def test_who_ruled_on_all_bidders_and_on_what_one_may_spend_is_told(http: httpx.AsyncClient) -> None:
    await rule(http, "PUT", "/bidders/ken/limit", {"amount": 12.5, "reason": "new", "by": "olga"})
    await rule(http, "PUT", "/approval-required", {"reason": "a gala", "by": "olga"})
    await rule(http, "DELETE", "/approval-required", reason="it is over", by="olga")

    async def made(**whom: str) -> Any:
        found = (await http.get(f"{API}/ops/rulings", params=whom)).json()["rulings"]
        return [(each["user_id"], each["ruling"], each["amount"], each["reason"], each["by"]) for each in found]

    async def is_archived() -> bool:
        newest = (await made(limit="1"))[:1]
        return [each[3] for each in newest] == ["it is over"] and len(await made(user_id="ken")) == 1

    await eventually(is_archived)
    assert await made(user_id="ken") == [("ken", "limit", 12.5, "new", "olga")]
    everybody = await made()
    assert [(user_id, reason, by) for user_id, _, _, reason, by in everybody[:2]] == [
        (None, "it is over", "olga"),
        (None, "a gala", "olga"),
    ]
    assert len(await made(limit="1")) == 1
    assert (await http.get(f"{API}/ops/rulings", params={"user_id": "white space"})).status_code == 422


async def test_every_shard_has_it_when_it_is_answered(http: httpx.AsyncClient, redis: Any) -> None:
    await rule(http, "PUT", "/bidders/kim/block")
    values = {await redis.hget(rulings_key(shard), "kim") for shard in names.SHARDS}
    assert len(values) == 1
    assert values.pop().startswith(b"B|")
    # One entry in one outbox, not 64.
    entries = 0
    for shard in names.SHARDS:
        entries += str(await redis.xrange(outbox_key(shard))).count('"user_id":"kim"')
    assert entries <= 1
    await rule(http, "DELETE", "/bidders/kim/block")


async def test_the_command(http: httpx.AsyncClient, gateway_stack: Stack) -> None:
    await create(http, "by-command", seller_id="sam")
    url = gateway_stack.urls.gateway_url

    async def said(*words: str) -> str:
        ended_with, text = await bidding("bidders", *words, "--gateway-url", url)
        assert ended_with == 0, text
        return text.strip()

    assert await said("block", "lea", "--item", "by-command") == "lea is blocked, not approved on by-command."
    assert await code(http, "by-command", "lea", amount=5) == "BLOCKED"
    assert await said("unblock", "lea", "--item", "by-command") == "lea is not blocked, not approved on by-command."
    assert await said("limit", "lea", "12.50", "--item", "by-command", "--reason", "x", "--by", "olga") == (
        "lea is not blocked, not approved, limited to 12.50 USD on by-command."
    )
    assert await said("unlimit", "lea", "--item", "by-command") == "lea is not blocked, not approved on by-command."
    assert await said("block", "lea", "--seller", "sam") == "lea is blocked, not approved on all items of sam."
    assert await said("show", "lea", "--item", "by-command") == "lea is blocked, not approved on by-command."
    assert await said("unblock", "lea", "--seller", "sam") == "lea is not blocked, not approved on all items of sam."
    assert await said("approve", "lea") == "lea is not blocked, approved on all items."
    assert await said("unapprove", "lea") == "lea is not blocked, not approved on all items."
    assert await said("limit", "lea", "75.5") == "lea may lead with 75.50 more of 75.50 USD over all items."
    assert (await said("show", "lea")).splitlines()[1] == "lea may lead with 75.50 more of 75.50 USD over all items."
    assert await said("unlimit", "lea", "--reason", "x") == "lea may lead with any amount of USD over all items."
    ended_with, text = await bidding("bidders", "block", "lea", "--item", "a", "--seller", "b", "--gateway-url", url)
    assert (ended_with, "not both" in text) == (1, True)
