"""Pages of other origins: only those that are named, and bids as well."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOP = "https://shop.example.com"
ALLOW = "access-control-allow-origin"


async def test_pages_of_named_origins_may_bid_and_no_others(gateway_stack: Stack, http: httpx.AsyncClient) -> None:
    [port] = free_ports(1)
    env = {"GATEWAY_PORT": str(port), "GATEWAY_ORIGINS": f"{SHOP}, https://other.example.com"}
    await gateway_stack.add_service("gateway-origins", API_GATEWAY, port, env)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            asked = {"access-control-request-method": "POST", "access-control-request-headers": "idempotency-key"}
            path = "/api/v1/items/origins/bid"
            preflight = await client.options(path, headers={"origin": SHOP, **asked})
            assert (preflight.status_code, preflight.headers[ALLOW]) == (200, SHOP)
            content = b'{"user_id":"ada","amount":5}'
            bid = await client.post(path, content=content, headers={"origin": SHOP, "idempotency-key": "one"})
            assert (bid.status_code, bid.headers[ALLOW]) == (201, SHOP)
            read = await client.get("/api/v1/items/origins", headers={"origin": SHOP})
            assert (read.status_code, read.headers[ALLOW]) == (200, SHOP)
            stranger = {"origin": "https://evil.example.com"}
            assert (await client.options(path, headers=stranger | asked)).status_code == 400
            assert ALLOW not in (await client.get("/api/v1/items/origins", headers=stranger)).headers
            # Whoever is no page of elsewhere is answered as ever.
            assert ALLOW not in (await client.get("/api/v1/items/origins")).headers
    finally:
        await gateway_stack.stop_process("gateway-origins")
    assert ALLOW not in (await http.get("/api/v1/items/origins", headers={"origin": SHOP})).headers
