"""Callers of a gateway with ``AUTH_MODE=jwt``, and a request for each call that succeeds where it is allowed."""

from __future__ import annotations

import itertools
import secrets
from typing import Any

import httpx2 as httpx

from api_gateway.identity.access import NOBODY
from infrastructure.local.signing_key import signed_token
from shared.identity.tokens import Role
from tests.unit.api_gateway.images.pictures import png

JSON = {"content-type": "application/json"}
ITEMS = "/api/v1/items"
WHO: dict[Role | None, str] = {
    NOBODY: "",
    Role.BIDDER: "bea",
    Role.SELLER: "sam",
    Role.OPERATOR: "oda",
    Role.AUDITOR: "aud",
}
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


async def leader_of(callers: Callers, item_id: str) -> str:
    """Who leads, as operators are told; everybody is told the alias."""
    named = await callers.call("oda", Role.OPERATOR, "GET", f"{ITEMS}/{item_id}/named-bids?limit=1")
    [newest] = named.json()["bids"]
    item = (await callers.http.get(f"{ITEMS}/{item_id}")).json()
    assert newest["user_id"] != item["highest_bidder_id"] == item["highest_bidder"] == newest["bidder"]
    return str(newest["user_id"])
