"""Revoked tokens are kept on a cluster too, where a key is on one of the nodes."""

from __future__ import annotations

import httpx2 as httpx
import pytest

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.signing_key import signed_token, signing_key
from shared.clients.redis import open_redis
from shared.redis_layout.revocations import RevocationStore
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def test_a_token_is_revoked_on_a_cluster(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"AUTH_MODE": "jwt"}, valkey_nodes=3)
    key = signing_key(stack.data_dir)
    lost = signed_token(key, "ann", ["bidder"], ttl_s=600, environment={})
    operator = signed_token(key, "oda", ["operator"], ttl_s=600, environment={})
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:

        async def status() -> int:
            path = "/api/v1/bids/by-key/none?item_id=none"
            return (await http.get(path, headers={"authorization": f"Bearer {lost}"})).status_code

        async def is_believed() -> bool:
            return await status() == 404

        await eventually(is_believed, "the revocations are read")
        headers = {"authorization": f"Bearer {operator}"}
        done = await http.post("/api/v1/revocations", json={"user_id": "ann"}, headers=headers)
        assert done.status_code == 201, done.text
        assert await status() == 401
    redis = open_redis(stack.urls.redis_url, timeout_s=5)
    try:
        store = RevocationStore(redis)
        assert set(await store.read()) == {"u:ann"}
        assert await store.epoch()
    finally:
        await redis.aclose()
