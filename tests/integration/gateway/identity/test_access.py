"""Every cell of the table of who may call what, against a gateway with ``AUTH_MODE=jwt`` and the key of its stack."""

from __future__ import annotations

import asyncio
import json
import time

import jwt
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from api_gateway.identity.access import NOBODY, TABLE, Reach
from infrastructure.local.stack import Stack
from shared.feed_tokens import check
from shared.identity.tokens import Role
from shared.names import shard_of
from shared.redis_layout.keys import outbox_key
from shared.secret_pairs import SecretPair
from tests.integration.gateway.identity.access_world import ITEMS, WHO, Callers, leader_of, request_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

CELLS = [(call, role) for call in TABLE for role in WHO if call != "bid_socket"]
TOGETHER = ("place_bids", "create_items")
"""Calls that answer each part of a request by itself."""


@pytest.mark.parametrize(("call", "role"), CELLS, ids=lambda value: str(value))
async def test_every_cell(callers: Callers, call: str, role: Role | None) -> None:
    method, path, body, status = await request_of(call, callers)
    answer = await callers.call(WHO[role], role, method, path, body)
    if NOBODY in TABLE[call] or role in TABLE[call]:
        assert answer.status_code == status, answer.text
        if method == "GET" and NOBODY not in TABLE[call]:
            # Nor by the browser's, where somebody else signs in next.
            assert answer.headers.get("cache-control") == "no-store", "what is told to its caller is kept by no cache"
        if call in TOGETHER:
            assert answer.json()["results"][0]["status"] == 201, answer.text
        if call == "require_approval":  # nobody in the other tests is approved
            waived = await callers.call("oda", Role.OPERATOR, "DELETE", path)
            assert waived.json() == {"approval_required": False}
        return
    code = "UNAUTHENTICATED" if role is NOBODY else "FORBIDDEN"
    assert (answer.status_code, answer.json()["code"]) == (401 if role is NOBODY else 403, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].startswith("Bearer")


OWN = [
    (call, role)
    for call, row in TABLE.items()
    for role, reach in row.items()
    # An upload names nobody: it counts as the caller's.
    if reach is Reach.OWN and call not in ("bid_socket", "upload_image")
]


@pytest.mark.parametrize(("call", "role"), OWN, ids=lambda value: str(value))
async def test_own_is_not_another_s(callers: Callers, call: str, role: Role) -> None:
    """The same request of somebody else of the same role, or in the name of somebody else."""
    method, path, body, status = await request_of(call, callers)
    match call:
        case "place_bid":
            body["user_id"] = "bob"
        case "place_bids":
            body["bids"][0]["user_id"] = "bob"
        case "create_item":
            body["seller_id"] = "sue"
        case "create_items":
            body["items"][0]["seller_id"] = "sue"
        case "make_feed_ticket" | "make_feed_token":
            body["user_id"] = "bob"
        case "get_me" | "make_sign_in_code":  # they are about the caller, and nothing else can be asked for
            told = (await callers.call("eve", role, method, path)).json()
            if call == "get_me":
                assert (told["user_id"], told["roles"]) == ("eve", [role.value])
            else:
                exchanged = await callers.http.post("/api/v1/sign-in", json={"code": told["code"]})
                claims = jwt.decode(exchanged.json()["token"], options={"verify_signature": False})
                assert claims["sub"] == "eve"
            return
        case "get_watch_list" | "watch_item" | "unwatch_item" | "list_own_bids":
            # They name nobody. What one does is in the caller's list: test_own_lists.py beside this.
            told = await callers.call(WHO[role], role, method, f"{path}?user_id=eve", headers={"x-user-id": "eve"})
            assert told.status_code == status
            return
        case _:  # the item of sam, or the bid of bea
            answer = await callers.call("eve", role, method, path, body)
            assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN"), answer.text
            return
    answer = await callers.call(WHO[role], role, method, path, body)
    if call in TOGETHER:
        (told,) = answer.json()["results"]
        assert (answer.status_code, told["status"], told["answer"]["code"]) == (status, 403, "FORBIDDEN")
    else:
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN"), answer.text


async def test_a_name_that_is_left_out_is_the_caller_s(callers: Callers, stack: Stack) -> None:
    item_id = await callers.item()
    await callers.bid(item_id)
    made = await callers.call("sam", Role.SELLER, "POST", ITEMS, {"name": "x"})
    of_house = await callers.call("oda", Role.OPERATOR, "POST", ITEMS, {"name": "x"})
    for_sue = await callers.call("oda", Role.OPERATOR, "POST", ITEMS, {"name": "x", "seller_id": "sue"})
    assert [each.json()["seller_id"] for each in (made, of_house, for_sue)] == ["sam", None, "sue"]
    assert await leader_of(callers, item_id) == "bea"
    feed = await callers.call("bea", Role.BIDDER, "POST", "/api/v1/feed-token", {})
    identity = check(SecretPair("FEED_TOKEN_SECRET", stack.service_env["FEED_TOKEN_SECRET"]), feed.json()["token"])
    # No longer than the token that it was asked for with, which is good for 10 minutes.
    assert (identity.user_id, identity.sees_maximum) == ("bea", False)
    assert identity.expires_s <= time.time() + 600


async def test_who_did_it_is_the_caller(callers: Callers, stack: Stack) -> None:
    item_id = await callers.item()
    at, why = f"{ITEMS}/{item_id}", {"reason": "a test"}
    lied = await callers.call("sam", Role.SELLER, "POST", f"{at}/pause", why | {"by": "oda"})
    assert lied.status_code == 403
    await callers.call("sam", Role.SELLER, "POST", f"{at}/pause", why)
    await callers.call("oda", Role.OPERATOR, "POST", f"{at}/resume", why | {"by": "oda"})
    async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
        entries = await redis.xrange(outbox_key(shard_of(item_id)))
    told = " ".join(str(fields) for _, fields in entries or () if item_id in str(fields))
    assert '"by":"sam"' in told
    assert '"by":"oda"' in told
    assert '"by":"operator"' not in told


async def test_nobody_acts_on_an_item_without_a_seller_or_on_none(callers: Callers) -> None:
    made = await callers.call("oda", Role.OPERATOR, "POST", ITEMS, {"name": "x"})
    why = {"reason": "a test"}
    refused = await callers.call("sam", Role.SELLER, "POST", f"{ITEMS}/{made.json()['id']}/pause", why)
    missing = await callers.call("sam", Role.SELLER, "POST", f"{ITEMS}/no-such-item/pause", why)
    assert (refused.status_code, missing.status_code) == (403, 404)
    # With the catalogue closed nobody opens an item by looking at it, or by bidding.
    assert (await callers.http.get(f"{ITEMS}/never-opened")).status_code == 404
    bid = await callers.call("bea", Role.BIDDER, "POST", f"{ITEMS}/never-opened/bid", {"amount": 1})
    assert bid.status_code == 404


async def test_another_s_key_tells_nothing(callers: Callers) -> None:
    item_id = await callers.item()
    key = await callers.bid(item_id)
    path = f"/api/v1/bids/by-key/{key}?item_id={item_id}"
    assert (await callers.call("bea", Role.BIDDER, "GET", path)).status_code == 200
    assert (await callers.call("bob", Role.BIDDER, "GET", path)).status_code == 404
    assert (await callers.call("aud", Role.AUDITOR, "GET", path)).status_code == 200
    same = await callers.call("bob", Role.BIDDER, "POST", f"{ITEMS}/{item_id}/bid", {"amount": 5, "bid_id": key})
    assert (same.status_code, same.json()["code"]) == (422, "KEY_REUSED")


@pytest.mark.parametrize("role", WHO, ids=str)
async def test_every_cell_of_a_socket(callers: Callers, stack: Stack, role: Role | None) -> None:
    url = stack.urls.gateway_url.replace("http", "ws", 1) + "/api/v1/bids"
    headers = {} if role is NOBODY else {"authorization": f"Bearer {callers.token(WHO[role], role)}"}
    if role not in TABLE["bid_socket"]:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=headers, proxy=None)
        answer = refused.value.response
        assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (
            401 if role is NOBODY else 403,
            "Bearer",
        )
        return
    item_id, unseen = await callers.item(), "never-opened"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        told = []
        for who in ({}, {"user_id": "bob"}, {"user_id": "bea"}):
            for item in (item_id, unseen):
                await socket.send(json.dumps({"op": "bid", "id": 1, "item_id": item, "amount": 5} | who))
                told.append(json.loads(await asyncio.wait_for(socket.recv(), 5)))
    assert [each["status"] for each in told] == [201, 404, 403, 403, 200, 404]
    assert await leader_of(callers, item_id) == "bea"
