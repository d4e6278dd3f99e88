"""A whole story with all services, on servers that let nobody in without a password."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect

from infrastructure.local.services import ARCHIVAL_WORKER
from shared.permissions.accounts import Account
from shared.redis_layout.keys import item_key
from tests.integration.loss.recover_world import House, house_of
from tests.preforked import run_forked
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63600000000200"
    "0148afa4710000000049454e44ae426082"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    """The stack fails the test in the end if a server refused a service anything."""
    factory = StackFactory()
    try:
        env = {"CLOSED_SERVERS": "true", "CLOSED_KEEP_S": "0", "API_KEY_SECRET": "k" * 32}
        stack = await factory(env=env, cache_nodes=1)
        async with house_of(stack) as house:
            yield house
    finally:
        await factory.close()


async def shown(viewer: ClientConnection, text: str) -> None:
    """Return once a frame has this."""
    async with asyncio.timeout(60):
        while text not in str(await viewer.recv()):
            pass


async def test_from_the_first_bid_to_the_archive_and_back(house: House) -> None:
    await house.create("lot", start_price=1, buy_now_price=500, reserve_price=500, seller_id="sam")
    feed = house.stack.urls.broadcast_url.replace("http", "ws")
    async with connect(f"{feed}/ws/items/lot") as viewer:
        await house.accepted("lot", "ann", "b1", amount=10, max_amount=50)
        await house.accepted("lot", "bob", "b2", amount=60)
        await shown(viewer, '"current_bid":60')
    blocked = await house.http.put("/api/v1/items/lot/bidders/eve/block", json={"reason": "x", "by": "sam"})
    assert blocked.status_code == 200, blocked.text
    refused = await house.bid("lot", "eve", "b3", amount=100)
    assert refused.json()["code"] == "BLOCKED"
    limit = await house.http.put("/api/v1/bidders/cat/limit", json={"amount": 5000, "currency": "USD", "reason": "x"})
    assert limit.status_code == 200, limit.text
    await house.operate("lot/bids/b2/void")
    await house.operate("lot/pause")
    await house.operate("lot/resume")
    await house.accepted("lot", "cat", "b4", amount=500)
    assert (await house.item("lot"))["status"] in ("sold", "closed")

    async def has_left() -> bool:
        return not await house.redis.exists(item_key("lot"))

    await eventually(has_left, "the closed item left Redis", seconds=90)
    assert (await house.history("lot"))[0]["amount"] == 500
    assert (await house.item("lot"))["current_bid"] == 500
    again = await house.bid("lot", "cat", "b4", amount=500)
    assert again.json()["current_bid"] == 500, "its verdict comes out of the archive"
    async with connect(f"{feed}/ws/items/lot") as viewer:
        await shown(viewer, '"current_bid":500')


async def test_an_image_and_an_api_key(house: House) -> None:
    sent = await house.http.post("/api/v1/images", content=PNG, headers={"content-type": "image/png"})
    assert sent.status_code == 201, sent.text
    env = house.stack.env_of(Account.OPERATOR)
    code, text = await run_forked(
        ARCHIVAL_WORKER, "api-keys", "create", "a service", "--user", "house", "--role", "seller", env=env
    )
    assert code == 0, text
    code, text = await run_forked(ARCHIVAL_WORKER, "api-keys", "list", env=env)
    assert (code, "house" in text) == (0, True), text
    code, text = await run_forked(ARCHIVAL_WORKER, "dead-letters", "list", env=env)
    assert code == 0, text


async def test_what_redis_lost_is_rebuilt_by_an_operator(house: House) -> None:
    await house.create("kept", start_price=1)
    await house.accepted("kept", "ann", "k1", amount=10, max_amount=90)
    await house.all_archived()
    await house.lose_redis()
    await eventually(house.is_degraded, seconds=60)
    code, text = await house.recover()
    assert code == 0, text
    await eventually(house.is_ready, seconds=60)
    assert (await house.maxima("kept"))[b"ann"] == b"9000"
    await house.accepted("kept", "bob", "k2", amount=100)
    await house.all_archived()
    rows = await house.query("SELECT count(*) FROM bids WHERE item_id = 'kept'")
    assert rows[0][0] >= 2


async def test_the_status_of_servers_that_ask_for_passwords(house: House) -> None:
    code, text = await house.bidding("status")
    assert code == 0, text
    assert "NOAUTH" not in text


async def test_a_second_start_finds_everything_with_the_same_passwords(house: House) -> None:
    for name in house.stack.servers:
        await house.stack.restart(name)

    async def made() -> bool:
        # A gateway has to find NATS again before it believes a Redis that was started anew.
        answer = await house.http.post("/api/v1/items", json={"id": "later", "name": "later", "start_price": 1})
        return answer.status_code == 201

    async def taken() -> bool:
        return (await house.bid("later", "ann", "l1", amount=5)).status_code in (200, 201)

    await eventually(made, "an item after the servers came back", seconds=60)
    await eventually(taken, "a bid after the servers came back", seconds=60)
