"""Every cell of the table of who may call what, against a gateway with ``AUTH_MODE=jwt`` and the key of its stack."""

from __future__ import annotations

import asyncio
import itertools
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import jwt
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api_gateway.identity.access import NOBODY, TABLE, Reach
from api_gateway.routes.batches import BYTES_MAX
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from shared.feed_tokens import check
from shared.identity.tokens import Role
from shared.names import shard_of
from shared.redis_layout.keys import outbox_key
from shared.secret_pairs import SecretPair
from tests.stack import StackFactory
from tests.unit.api_gateway.images.pictures import png

JSON = {"content-type": "application/json"}
pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEMS = "/api/v1/items"
WHO: dict[Role | None, str] = {
    NOBODY: "",
    Role.BIDDER: "bea",
    Role.SELLER: "sam",
    Role.OPERATOR: "oda",
    Role.AUDITOR: "aud",
}
CELLS = [(call, role) for call in TABLE for role in WHO if call != "bid_socket"]
TOGETHER = ("place_bids", "create_items")
"""Calls that answer each part of a request by itself."""
RULINGS = {
    "approve_on_item": ("approval", "item"),
    "unapprove_on_item": ("approval", "item"),
    "block_on_item": ("block", "item"),
    "unblock_on_item": ("block", "item"),
    "unlimit_on_item": ("limit", "item"),
    "block_for_seller": ("block", "seller"),
    "unblock_for_seller": ("block", "seller"),
    "approve_bidder": ("approval", "all"),
    "unapprove_bidder": ("approval", "all"),
    "block_bidder": ("block", "all"),
    "unblock_bidder": ("block", "all"),
}
"""What a call rules on, and where."""
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    factory = StackFactory()
    try:
        yield await factory(services=(API_GATEWAY,), env={"AUTH_MODE": "jwt"})
    finally:
        await factory.close()


class Callers:
    """The gateway, as somebody with a token reaches it."""

    def __init__(self, http: httpx.AsyncClient, key: Any) -> None:
        self.http = http
        self._key = key

    def token(self, user: str, *roles: Role, ttl_s: int = 600) -> str:
        return signed_token(self._key, user, [role.value for role in roles], ttl_s=ttl_s, environment={})

    async def call(
        self, user: str, role: Role | None, method: str, path: str, body: Any = None, **options: Any
    ) -> httpx.Response:
        headers = {} if role is None else {"authorization": f"Bearer {self.token(user, role)}"}
        headers |= options.pop("headers", {})
        if isinstance(body, bytes):
            return await self.http.request(
                method, path, content=body, headers=headers | {"content-type": "image/png"}, **options
            )
        return await self.http.request(method, path, json=body, headers=headers, **options)

    async def item(self, seller: str = "sam", **terms: Any) -> str:
        """A new one."""
        item_id = f"access-{secrets.token_hex(6)}"
        body = {"name": "x", "id": item_id, "seller_id": seller, **terms}
        made = await self.call("oda", Role.OPERATOR, "POST", ITEMS, body)
        assert made.status_code == 201, made.text
        return item_id

    async def bid(self, item_id: str, user: str = "bea") -> str:
        """A new bid's id, which is its key too."""
        bid_id = f"b{next(_numbers)}"
        body = {"amount": 5, "bid_id": bid_id}
        done = await self.call(user, Role.BIDDER, "POST", f"{ITEMS}/{item_id}/bid", body)
        assert done.status_code == 201, done.text
        return bid_id


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, headers=JSON, timeout=30) as http:
        yield Callers(http, signing_key(stack.data_dir))


async def request_of(call: str, callers: Callers) -> tuple[str, str, Any, int]:
    """A request that succeeds where it is allowed: to ``sam`` who sells the item, and to ``bea`` who bids; and the
    status of its answer then."""
    item_id = await callers.item()
    why = {"reason": "a test"}
    at = f"{ITEMS}/{item_id}"
    match call:
        case "place_bid":
            return "POST", f"{at}/bid", {"amount": 5}, 201
        case "place_bids":
            return "POST", "/api/v1/bids:batch", {"bids": [{"item_id": item_id, "amount": 5}]}, 200
        case "create_items":
            return "POST", "/api/v1/items:batch", {"items": [{"name": "x"}]}, 200
        case "get_verdict":
            key = await callers.bid(item_id)
            return "GET", f"/api/v1/bids/by-key/{key}?item_id={item_id}&user_id=bea", None, 200
        case "create_item":
            return "POST", ITEMS, {"name": "x"}, 201
        case "upload_image":
            return "POST", "/api/v1/images", png(), 201
        case "pause_item" | "cancel_item":
            return "POST", f"{at}/{call.partition('_')[0]}", why, 200
        case "extend_item":
            at = f"{ITEMS}/{await callers.item(duration_s=600)}"
            return "POST", f"{at}/extend", why | {"by_s": 60}, 200
        case "resume_item":
            paused = await callers.call("oda", Role.OPERATOR, "POST", f"{at}/pause", why)
            assert paused.status_code == 200
            return "POST", f"{at}/resume", why, 200
        case "void_bid":
            return "POST", f"{at}/bids/{await callers.bid(item_id)}/void", why, 200
        case "limit_bidder":
            return "PUT", "/api/v1/bidders/cyd/limit", {"amount": 50}, 200
        case "unlimit_bidder":
            return "DELETE", "/api/v1/bidders/cyd/limit", None, 200
        case "get_spending":
            return "GET", "/api/v1/bidders/bea/limit", None, 200
        case "limit_on_item":
            return "PUT", f"{at}/bidders/bea/limit", {"amount": 50}, 200
        case "list_bidders_of_item" | "get_bidder_of_item":
            return "GET", f"{at}/bidders{'/bea' if call.startswith('get') else ''}", None, 200
        case "list_bidders_of_seller" | "get_bidder_of_seller":
            return "GET", f"/api/v1/sellers/sam/bidders{'/bea' if call.startswith('get') else ''}", None, 200
        case "list_bidders" | "get_bidder":
            return "GET", f"/api/v1/bidders{'/bea' if call.startswith('get') else ''}", None, 200
        case "require_approval" | "waive_approval":
            return ("PUT" if call.startswith("require") else "DELETE"), "/api/v1/approval-required", None, 200
        case _ if call in RULINGS:
            what, where = RULINGS[call]
            above = {"item": at, "seller": "/api/v1/sellers/sam", "all": "/api/v1"}[where]
            return ("DELETE" if call.startswith("un") else "PUT"), f"{above}/bidders/cyd/{what}", None, 200
        case "make_feed_ticket" | "make_feed_token":
            return "POST", f"/api/v1/{call.removeprefix('make_').replace('_', '-')}", {}, 201
        case "exchange_api_key":
            # The key is what counts, and not who asks: tests/integration/gateway/identity/test_api_keys.py.
            return "POST", "/api/v1/token", None, 401
        case "revoke_tokens":
            return "POST", "/api/v1/revocations", {"user_id": "nobody-else"}, 201
        case "list_items":
            return "GET", ITEMS, None, 200
        case "get_item":
            return "GET", at, None, 200
        case "get_history":
            return "GET", f"{at}/bids", None, 200
        case "get_named_bids":
            return "GET", f"{at}/named-bids", None, 200
        case "get_audit":
            return "GET", f"{at}/audit", None, 200
        case "get_overview" | "get_dead_letters" | "get_rulings" | "get_acts":
            return "GET", f"/api/v1/ops/{call.removeprefix('get_').replace('_', '-')}", None, 200
        case "get_me":
            return "GET", "/api/v1/me", None, 200
        case "get_watch_list" | "list_own_bids":
            return "GET", f"/api/v1/me/{'bids' if call == 'list_own_bids' else 'watch-list'}", None, 200
        case "watch_item" | "unwatch_item":
            return ("PUT" if call == "watch_item" else "DELETE"), f"/api/v1/me/watch-list/{item_id}", None, 200
        case "list_items_of_seller":
            return "GET", "/api/v1/sellers/sam/items", None, 200
        case "make_sign_in_code":
            return "POST", "/api/v1/sign-in-code", None, 201
        case "sign_in":
            made = await callers.call("bea", Role.BIDDER, "POST", "/api/v1/sign-in-code")
            return "POST", "/api/v1/sign-in", {"code": made.json()["code"]}, 201
        case "get_health" | "get_readiness" | "get_metrics":
            return "GET", {"get_health": "/health", "get_readiness": "/ready"}.get(call, "/metrics"), None, 200
    raise AssertionError(f"{call} is in the table, and no request is here that tries it")


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


async def test_a_slash_too_many_leads_to_a_path_and_to_no_host(callers: Callers) -> None:
    """The host is whatever a request says, and behind a proxy the scheme is another one: the token would go there."""
    for path, leads_to in (
        ("/items/lot/", "/items/lot"),
        ("/ops/?x=1&y=%20", "/ops?x=1&y=%20"),
        ("/api/v1/ops/acts/", "/api/v1/ops/acts"),
    ):
        answer = await callers.http.get(path, headers={"host": "evil.example"})
        assert (answer.status_code, answer.headers["location"]) == (307, leads_to)
    for path in ("//evil.example/", "/nothing/", "/items/lot//", "/api/v1/"):
        answer = await callers.http.get(f"{str(callers.http.base_url).rstrip('/')}{path}")
        assert (answer.status_code, answer.headers.get("location")) == (404, None), path


@pytest.mark.parametrize(
    ("path", "media_type", "body"),
    [
        ("/api/v1/images", "image/png", png()),
        ("/api/v1/feed-ticket", "application/json", b"{}"),
        ("/api/v1/items:batch", "application/json", b'{"items":[{"name":"late"}]}'),
        (f"{ITEMS}/none/pause", "application/json", b'{"reason":"late"}'),
    ],
    ids=["image", "ticket", "batch", "operation"],
)
async def test_who_is_revoked_while_the_body_is_held_back_is_refused(
    callers: Callers, path: str, media_type: str, body: bytes
) -> None:
    user = f"late-{secrets.token_hex(4)}"

    async def held_back() -> AsyncIterator[bytes]:
        yield body[:-1]
        done = await callers.call("oda", Role.OPERATOR, "POST", "/api/v1/revocations", {"user_id": user})
        assert done.status_code == 201
        yield body[-1:]

    headers = {"authorization": f"Bearer {callers.token(user, *Role)}", "content-type": media_type}
    headers["content-length"] = str(len(body))
    answer = await callers.http.post(path, content=held_back(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED")


async def test_a_link_of_somebody_who_was_revoked_signs_nobody_in(callers: Callers) -> None:
    made = await callers.call("vic", Role.BIDDER, "POST", "/api/v1/sign-in-code")
    done = await callers.call("oda", Role.OPERATOR, "POST", "/api/v1/revocations", {"user_id": "vic"})
    assert (made.status_code, done.status_code) == (201, 201)
    refused = await callers.http.post("/api/v1/sign-in", json={"code": made.json()["code"]})
    assert (refused.status_code, refused.json()["code"], "token" in refused.json()) == (404, "CODE_NOT_FOUND", False)


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


async def test_a_code_is_exchanged_once_and_is_nothing_else(callers: Callers) -> None:
    made = await callers.call("bea", Role.BIDDER, "POST", "/api/v1/sign-in-code")
    ticket = await callers.call("bea", Role.BIDDER, "POST", "/api/v1/feed-ticket", {})
    assert (made.headers["cache-control"], made.json()["expires_in"]) == ("no-store", 120)
    code = made.json()["code"]
    first, *others = [
        await callers.http.post("/api/v1/sign-in", json={"code": said})
        for said in (code, code, ticket.json()["ticket"], secrets.token_urlsafe(16), "x", "*" * 64)
    ]
    me = await callers.http.get("/api/v1/me", headers={"authorization": f"Bearer {first.json()['token']}"})
    assert (first.headers["cache-control"], me.json()["user_id"]) == ("no-store", "bea")
    assert [(each.status_code, each.json()["code"]) for each in others] == [(404, "CODE_NOT_FOUND")] * 5
    # The only call without a token that has a body takes no long one.
    long = await callers.http.post("/api/v1/sign-in", content=b" " * 100_000)
    assert long.status_code == 413


async def leader_of(callers: Callers, item_id: str) -> str:
    """Who leads, as operators are told; everybody is told the alias."""
    named = await callers.call("oda", Role.OPERATOR, "GET", f"{ITEMS}/{item_id}/named-bids?limit=1")
    [newest] = named.json()["bids"]
    item = (await callers.http.get(f"{ITEMS}/{item_id}")).json()
    assert newest["user_id"] != item["highest_bidder_id"] == item["highest_bidder"] == newest["bidder"]
    return str(newest["user_id"])


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


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


def bad_tokens(callers: Callers) -> Iterator[tuple[str, dict[str, str]]]:
    good = callers.token("bea", Role.BIDDER)
    claims = jwt.decode(good, options={"verify_signature": False})
    yield "none", {"authorization": f"Bearer {jwt.encode(claims, '', algorithm='none')}"}
    yield "HS256", {"authorization": f"Bearer {jwt.encode(claims, 's' * 32, algorithm='HS256')}"}
    yield "expired", {"authorization": f"Bearer {callers.token('bea', Role.BIDDER, ttl_s=-60)}"}
    yield "cut", {"authorization": f"Bearer {good[:-6]}"}
    yield "basic", {"authorization": f"Basic {good}"}
    yield "cookie", {"cookie": f"token={good}; authorization=Bearer {good}"}
    yield "another header", {"x-authorization": f"Bearer {good}", "proxy-authorization": f"Bearer {good}"}


async def test_bad_tokens_on_both_roads_of_a_bid(callers: Callers) -> None:
    item_id = await callers.item()
    path = f"{ITEMS}/{item_id}/bid"
    good = callers.token("bea", Role.BIDDER)
    body = b'{"amount":5}'
    for name, headers in bad_tokens(callers):
        for content in (body, in_pieces(body)):
            answer = await callers.http.post(path, content=content, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED"), name
    for content in (body, in_pieces(body)):
        in_address = await callers.http.post(f"{path}?token={good}&access_token={good}", content=content)
        assert in_address.status_code == 401
        twice = [("authorization", f"Bearer {good}"), ("authorization", f"Bearer {good}")]
        assert (await callers.http.post(path, content=content, headers=twice)).status_code == 401
    for content in (b'{"user_id":"bob","amount":5}', in_pieces(b'{"user_id":"bob","amount":5}')):
        answer = await callers.http.post(path, content=content, headers={"authorization": f"Bearer {good}"})
        assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
    for spelling in (f"/api/v1/items/{item_id[:-1]}%{ord(item_id[-1]):02x}/bid", f"//api/v1/items/{item_id}/bid"):
        assert (await callers.http.post(spelling, content=body)).status_code in (401, 404)
    seen = (await callers.http.get(f"{ITEMS}/{item_id}")).json()
    assert (seen["bid_count"], seen["seq"]) == (0, 0)
    for content in (body, in_pieces(b'{"user_id":"bea","amount":6}')):
        answer = await callers.http.post(path, content=content, headers={"authorization": f"bearer {good}"})
        assert answer.status_code == 201, answer.text


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


async def test_a_socket_ends_with_its_token(callers: Callers, stack: Stack) -> None:
    url = stack.urls.gateway_url.replace("http", "ws", 1) + "/api/v1/bids"
    headers = {"authorization": f"Bearer {callers.token('bea', Role.BIDDER, ttl_s=2)}"}
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401
    foreign = headers | {"origin": "https://elsewhere.example"}
    for address in (url, f"{url}?token={callers.token('bea', Role.BIDDER)}"):
        with pytest.raises(InvalidStatus):
            await connect(address, additional_headers=foreign if address == url else {}, proxy=None)


async def test_no_body_is_awaited_of_a_stranger(stack: Stack) -> None:
    parts = urlsplit(stack.urls.gateway_url)
    assert parts.hostname is not None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = f"POST /api/v1/bids:batch HTTP/1.1\r\nHost: x\r\nContent-Length: {BYTES_MAX}\r\n"
    head += "Content-Type: application/json\r\n\r\n"
    writer.write(head.encode())
    status = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert status.split()[1] == b"401"


async def test_a_gateway_whose_settings_make_no_sense_ends(stack: Stack) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", API_GATEWAY),
        env=stack.service_env | {"AUTH_HS256_SECRET": "s" * 40},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 2
    assert said.splitlines() == [
        b"error: AUTH_MODE=jwt needs one of AUTH_JWKS_URL, AUTH_JWKS_FILE, AUTH_JWKS, AUTH_HS256_SECRET; "
        b"set is AUTH_JWKS and AUTH_HS256_SECRET"
    ]
