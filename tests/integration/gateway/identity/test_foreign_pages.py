"""What a page of another site can make a browser send changes nothing, on any road; and what strangers are told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from infrastructure.local.services import API_GATEWAY, BROADCAST_SERVICE
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from tests.stack import StackFactory

pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEMS = "/api/v1/items"
FOREIGN = [
    {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
]
SIMPLE = ["text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
"""What a page may have sent to anywhere without asking first."""


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


def writing(item_id: str) -> list[tuple[str, Any]]:
    at, why = f"{ITEMS}/{item_id}", {"reason": "a test"}
    bid = {"user_id": "ada", "amount": 1_000}
    return [
        (f"{at}/bid", bid),
        ("/api/v1/bids:batch", {"bids": [bid | {"item_id": item_id}]}),
        (ITEMS, {"id": "foreign", "name": "x"}),
        ("/api/v1/items:batch", {"items": [{"id": "foreign", "name": "x"}]}),
        (f"{at}/pause", why),
        (f"{at}/cancel", why),
        (f"{at}/bids/b1/void", why),
        ("/api/v1/feed-token", {"user_id": "ada"}),
    ]


async def test_a_foreign_page_changes_nothing(gateway_stack: Stack, http: httpx.AsyncClient) -> None:
    item_id = "foreign-lot"
    placed = {"user_id": "bob", "amount": 5, "bid_id": "b1"}
    assert (await http.post(f"{ITEMS}/{item_id}/bid", json=placed)).status_code == 201
    before = (await http.get(f"{ITEMS}/{item_id}")).json()
    for path, body in writing(item_id):
        encoded = json.dumps(body).encode()
        for said in FOREIGN:
            for media_type in SIMPLE:
                for content in (encoded, in_pieces(encoded)):
                    answer = await http.post(path, content=content, headers=said | {"content-type": media_type})
                    assert (answer.status_code, answer.json()["code"]) == (403, "ORIGIN_NOT_ALLOWED"), path
    assert (await http.get(f"{ITEMS}/{item_id}")).json() == before
    assert (await http.get(f"{ITEMS}/foreign?may_open=false")).status_code == 404
    url = f"ws://127.0.0.1:{gateway_stack.ports.gateway}/api/v1/bids"
    for said in FOREIGN:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=said, proxy=None)
        assert refused.value.response.status_code == 403
    # Pages of our own, programs, and curl -d.
    own = {"origin": gateway_stack.urls.gateway_url, "sec-fetch-site": "same-origin"}
    for number, headers in enumerate((own, {}, {"content-type": SIMPLE[1]}), start=10):
        body = json.dumps({"user_id": "ada", "amount": number}).encode()
        for content in (body, in_pieces(body)):
            assert (await http.post(f"{ITEMS}/{item_id}/bid", content=content, headers=headers)).status_code in (
                200,
                201,
            )
    # Whoever may read it anyway may read it from anywhere, and a browser shows it to no foreign page.
    read = await http.get(f"{ITEMS}/{item_id}", headers=FOREIGN[0])
    assert (read.status_code, "access-control-allow-origin" in read.headers) == (200, False)


async def test_with_tokens_a_body_is_json(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"AUTH_MODE": "jwt"})
    token = signed_token(signing_key(stack.data_dir), "ann", ["bidder", "operator"], ttl_s=600, environment={})
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as client:
        client.headers["authorization"] = f"Bearer {token}"
        assert (await client.post(ITEMS, json={"id": "lot", "name": "x"})).status_code == 201
        for path, body in writing("lot"):
            encoded = json.dumps(body).encode()
            for media_type in SIMPLE:
                answer = await client.post(path, content=encoded, headers={"content-type": media_type})
                assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE"), path
            # One that says nothing, at once and in pieces; and none, of which aiohttp says this.
            for content in (encoded, in_pieces(encoded)):
                assert (await client.post(path, content=content)).status_code == 415, path
        for path in ("/api/v1/feed-ticket", "/api/v1/sign-in-code"):
            headers = {"content-type": "application/octet-stream"}
            assert (await client.post(path, headers=headers)).status_code == 201, path
        bid = await client.post(f"{ITEMS}/lot/bid", json={"amount": 5})
        assert bid.status_code == 201, bid.text


async def test_strangers_are_told_a_word(start_stack: StackFactory) -> None:
    """This machine is a proxy here that is named, so that a request may come from elsewhere."""
    proxies = {"GATEWAY_TRUSTED_PROXIES": "127.0.0.1", "FEED_TRUSTED_PROXIES": "127.0.0.1"}
    stack = await start_stack(
        services=(API_GATEWAY, BROADCAST_SERVICE),
        env={"AUTH_MODE": "jwt", "OPERATIONS_NETWORKS": "127.0.0.0/8, 10.7.0.0/16", **proxies},
    )
    key = signing_key(stack.data_dir)
    outside, inside = {"x-forwarded-for": "10.7.0.1, 192.0.2.1"}, {"x-forwarded-for": "10.7.0.1"}
    for url in (stack.urls.gateway_url, stack.urls.broadcast_url):
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            told = (await client.get("/ready", headers=outside)).json()
            assert told.keys() == {"status", "service"}, told
            assert "degraded" in (await client.get("/ready", headers=inside)).json()
            assert "degraded" in (await client.get("/ready")).json()
            refused = await client.get("/metrics", headers=outside)
            assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")
            for headers in (inside, {}):
                assert "process_cpu_seconds_total" in (await client.get("/metrics", headers=headers)).text
            assert (await client.get("/health", headers=outside)).status_code == 200
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as client:
        for role, status in (("operator", 200), ("auditor", 200), ("bidder", 403), ("seller", 403)):
            token = signed_token(key, "ann", [role], ttl_s=600, environment={})
            headers = outside | {"authorization": f"Bearer {token}"}
            assert (await client.get("/metrics", headers=headers)).status_code == status, role
            assert ("degraded" in (await client.get("/ready", headers=headers)).json()) is (status == 200)


async def test_only_over_tls_browsers_are_told_to_stay_with_it(start_stack: StackFactory) -> None:
    env = {"GATEWAY_TRUSTED_PROXIES": "127.0.0.1", "HSTS_S": "600"}
    stack = await start_stack(services=(API_GATEWAY,), env=env)
    hsts = "strict-transport-security"
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as client:
        for path in ("/", "/items/lot", "/api/v1/items", "/health", "/no-such-page"):
            over_tls = await client.get(path, headers={"x-forwarded-proto": "https"})
            assert over_tls.headers[hsts] == "max-age=600", path
            for headers in ({}, {"x-forwarded-proto": "http"}):
                assert hsts not in (await client.get(path, headers=headers)).headers


async def test_a_stranger_s_word_for_tls_is_not_taken(http: httpx.AsyncClient) -> None:
    answer = await http.get("/", headers={"x-forwarded-proto": "https"})
    assert "strict-transport-security" not in answer.headers
