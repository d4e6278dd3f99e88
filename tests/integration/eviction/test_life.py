"""A closed item leaves Redis, and nobody who asks for it is told anything else than before."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from websockets.asyncio.client import connect

from archival_worker.eviction.evictor import EvictionOptions
from infrastructure.local.services import ALL_SERVICES
from shared.archive_cache.reads import CATALOGUE_OLD_S
from shared.feed_tokens import Identity, mint
from shared.redis_layout.keys import item_key, older_refusals_key, refusals_key, verdicts_key
from tests.acceptance.test_one_bid_end_to_end import feed_url
from tests.integration.eviction.eviction_world import Auction, auction_of, sold
from tests.integration.feed.feed_world import greeted, receive, receive_type, receive_until_seq
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

REASON = {"reason": "a test"}
KEY = {"Idempotency-Key": "the-same-key"}
ITEM = "/api/v1/items/{item}"
BID = f"{ITEM}/bid"


def requests_of(item_id: str) -> dict[str, Any]:
    """Everything that may be asked of a closed item, or done to it, without a change of it."""
    return {
        "read": ("GET", ITEM, None, None),
        "history": ("GET", f"{ITEM}/bids", None, None),
        "history_page": ("GET", f"{ITEM}/bids?limit=1", None, None),
        "history_wrong": ("GET", f"{ITEM}/bids?cursor=x", None, None),
        "list": ("GET", "/api/v1/items", None, None),
        "list_closed": ("GET", "/api/v1/items?status=sold&sort=price&limit=2", None, None),
        "by_key": ("GET", f"/api/v1/bids/by-key/{item_id}-bob?item_id={item_id}", None, None),
        "by_key_of": ("GET", f"/api/v1/bids/by-key/{item_id}-bob?item_id={item_id}&user_id=bob", None, None),
        "by_key_of_other": ("GET", f"/api/v1/bids/by-key/{item_id}-bob?item_id={item_id}&user_id=ann", None, None),
        "by_header": ("GET", f"/api/v1/bids/by-key/the-same-key?item_id={item_id}", None, None),
        "by_header_of_bob": ("GET", f"/api/v1/bids/by-key/the-same-key?item_id={item_id}&user_id=bob", None, None),
        "by_header_of_cyd": ("GET", f"/api/v1/bids/by-key/the-same-key?item_id={item_id}&user_id=cyd", None, None),
        "by_unknown_key": ("GET", f"/api/v1/bids/by-key/nothing?item_id={item_id}", None, None),
        "bid": ("POST", BID, {"user_id": "eve", "amount": 1000}, None),
        "bid_of_winner": ("POST", BID, {"user_id": "ann", "amount": 1000}, None),
        "bid_of_seller": ("POST", BID, {"user_id": "sam", "amount": 1000}, None),
        "bid_malformed": ("POST", BID, {"user_id": "eve", "amount": 1.001}, None),
        "repeat": ("POST", BID, {"user_id": "bob", "bid_id": f"{item_id}-bob", "amount": 1}, None),
        "repeat_of_buyer": ("POST", BID, {"user_id": "ann", "bid_id": f"{item_id}-ann", "amount": 50}, None),
        "repeat_of_maximum": ("POST", BID, {"user_id": "cyd", "bid_id": f"{item_id}-max", "max_amount": 9}, None),
        "repeat_by_header": ("POST", BID, {"user_id": "bob", "amount": 10}, KEY),
        "repeat_by_header_of_cyd": ("POST", BID, {"user_id": "cyd", "max_amount": 11}, KEY),
        "same_key_as_header": ("POST", BID, {"user_id": "dee", "amount": 10}, KEY),
        "reused": ("POST", BID, {"user_id": "bob", "bid_id": f"{item_id}-bob", "amount": 2}, None),
        "reused_by_other": ("POST", BID, {"user_id": "eve", "bid_id": f"{item_id}-bob", "amount": 1}, None),
        "reused_header": ("POST", BID, {"user_id": "bob", "amount": 12}, KEY),
        "pause": ("POST", f"{ITEM}/pause", REASON, None),
        "extend": ("POST", f"{ITEM}/extend", REASON | {"by_s": 60}, None),
        "resume": ("POST", f"{ITEM}/resume", REASON, None),
        "cancel": ("POST", f"{ITEM}/cancel", REASON, None),
        "void_unknown": ("POST", f"{ITEM}/bids/nothing/void", REASON, None),
        "void_struck": ("POST", f"{ITEM}/bids/{item_id}-struck/void", REASON, None),
        "create": ("POST", "/api/v1/items", {"id": item_id, "name": "Once more"}, None),
        "ruled": ("GET", f"{ITEM}/bidders", None, None),
        "ruled_on_cyd": ("GET", f"{ITEM}/bidders/cyd", None, None),
    }


async def close_in_three_ways(auction: Auction) -> list[str]:
    house = auction.house
    for item_id, currency in (("bought", "USD"), ("withdrawn", "KWD"), ("ended", "USD")):
        await house.create(
            item_id,
            currency=currency,
            seller_id="sam",
            buy_now_price=50,
            reserve_price=50,
            duration_s=4 if item_id == "ended" else 600,
            soft_close={"trigger_s": 1, "extend_s": 1},
        )
        await house.accepted(item_id, "bob", f"{item_id}-struck", amount=1)
        await house.operate(f"{item_id}/bids/{item_id}-struck/void")
        await house.accepted(item_id, "bob", f"{item_id}-bob", amount=1)
        await house.accepted(item_id, "cyd", f"{item_id}-max", max_amount=9)
        for body in ({"user_id": "bob", "amount": 10}, {"user_id": "cyd", "max_amount": 11}):
            answer = await house.http.post(BID.format(item=item_id), json=body, headers=KEY)
            assert answer.status_code == 201, answer.text
        for what, said in (("bob/approval", {}), ("cyd/limit", {"amount": 40})):
            answer = await house.http.put(f"{ITEM.format(item=item_id)}/bidders/{what}", json=said)
            assert answer.status_code == 200, answer.text
    await house.accepted("bought", "ann", "bought-ann", amount=50)
    await house.operate("withdrawn/pause")
    await house.operate("withdrawn/cancel")

    async def is_over() -> bool:
        return bool((await house.item("ended"))["status"] == "unsold")

    await eventually(is_over)
    return ["bought", "withdrawn", "ended"]


@pytest.mark.parametrize("open_catalogue", ["true", "false"])
async def test_everybody_is_told_the_same_as_before(start_stack: StackFactory, open_catalogue: str) -> None:
    stack = await start_stack(services=ALL_SERVICES, env={"OPEN_CATALOGUE": open_catalogue})
    async with auction_of(stack) as auction:
        house = auction.house
        items = await close_in_three_ways(auction)
        await house.create("live", increment={"kind": "flat", "value": 1})
        await auction.exported(*items)
        before = {item_id: await auction.answers(item_id, **requests_of(item_id)) for item_id in items}
        assert before["bought"]["bid"][0] == 200
        assert b'"SOLD"' in before["bought"]["bid"][1]
        assert before["bought"]["cancel"][0] == 409

        await auction.evicted(*items)
        assert auction.metrics.evicted == 3
        for item_id in items:
            assert await auction.traces(item_id) == []
        after = {item_id: await auction.answers(item_id, **requests_of(item_id)) for item_id in items}
        for item_id in items:
            for asked, told in before[item_id].items():
                assert after[item_id][asked] == told, (item_id, asked)
        ruled: list[str] = []
        query = {"limit": "1"}
        while len(ruled) < 3 and query["limit"]:
            page = (await house.http.get("/api/v1/items/bought/bidders", params=query)).json()
            ruled += [each["user_id"] for each in page["bidders"]]
            query = {"limit": "1", "cursor": page["next_cursor"]} if page["next_cursor"] else {"limit": ""}
        assert ruled == ["bob", "cyd"], "out of the archive, page by page"
        for item_id in items:
            assert await auction.traces(item_id) == [], "nothing of it came back"
        assert (await house.accepted("live", "eve", "live-1", amount=1))["seq"] == 1
        page = (await house.http.get("/api/v1/items")).json()
        assert (len(page["items"]), page["being_rebuilt"]) == (4, [])


async def test_viewers_and_bidders_are_told_the_same_as_before(start_stack: StackFactory) -> None:
    stack = await start_stack(services=ALL_SERVICES)
    async with auction_of(stack) as auction:
        await close_in_three_ways(auction)
        await auction.exported("bought")
        newest = (await auction.house.item("bought"))["seq"]
        before = await frames_of(auction, "bought", newest)
        await auction.evicted("bought")
        # Another broadcaster, which has nothing of it in memory.
        await stack.restart("broadcast_service")
        after = await frames_of(auction, "bought", newest)
        assert after == before
        assert [standing["standing"] for standing in after["standings"]] == ["won", "lost", "none"]
        assert [frame["seq"] for frame in after["missed"]][-1] == newest


async def frames_of(auction: Auction, item_id: str, newest: int) -> dict[str, Any]:
    feed, secret = feed_url(auction.stack), auction.stack.service_env["FEED_TOKEN_SECRET"]
    async with connect(f"{feed}/ws/items/{item_id}") as viewer:
        snapshot = await greeted(viewer)
    async with connect(f"{feed}/ws/items/{item_id}?since=1:1&feed=full") as viewer:
        resumed = await greeted(viewer)
        missed = await receive_until_seq(viewer, newest)
    async with connect(f"{feed}/ws/items/{item_id}?since=1:{newest}") as viewer:
        current = await greeted(viewer)
    standings = []
    for user in ("ann", "bob", "eve"):
        token = mint(secret, Identity(user, int(time.time() + 600), sees_maximum=False))
        async with connect(f"{feed}/ws/items/{item_id}?token={token}") as viewer:
            struck = await receive_type(viewer, "struck") if user == "bob" else None
            standings.append({"struck": struck} | await receive_type(viewer, "standing"))
    assert (resumed["type"], current["type"]) == ("resumed", "resumed")
    return {"snapshot": snapshot, "missed": missed, "standings": standings}


async def test_a_void_brings_it_back_and_it_leaves_again(start_stack: StackFactory) -> None:
    stack = await start_stack(services=ALL_SERVICES)
    async with auction_of(stack) as auction:
        house = auction.house
        items = await close_in_three_ways(auction)
        await auction.exported(*items)
        kept = {item_id: await auction.contents(item_id) for item_id in items}
        ttl = await auction.redis.pttl(verdicts_key("bought"))
        await auction.evicted(*items)
        async with connect(f"{feed_url(stack)}/ws/items/bought") as viewer:
            assert (await greeted(viewer))["status"] == "sold"

            # All of it is back as it was, but for refusals.
            for item_id in items:
                assert await auction.returns().bring_back(item_id)
                back = await auction.contents(item_id)
                assert int(back[item_key(item_id)].pop(b"returned_us")) > 0
                refusals = (refusals_key(item_id), older_refusals_key(item_id))
                assert back == {key: value for key, value in kept[item_id].items() if key not in refusals}
            assert abs(await auction.redis.pttl(verdicts_key("bought")) - ttl) < 60_000
            assert await auction.evictor.look() == 0, "a void may be on its way"

            answer = await house.http.post("/api/v1/items/bought/bids/bought-ann/void", json=REASON)
            assert (answer.status_code, answer.json()["status"]) == (200, "unsold")
            event = await receive(viewer)
            assert (event["type"], event["bid_id"], event["status"]) == ("voided", "bought-ann", "unsold")

        again = await house.http.post("/api/v1/items/bought/bids/bought-ann/void", json=REASON)
        assert (again.status_code, again.json()["code"]) == (409, "BID_STRUCK")
        await auction.exported("bought")
        # Lists come from the archive, and may be as old as that.
        await asyncio.sleep(CATALOGUE_OLD_S)
        before = await auction.answers("bought", **requests_of("bought"))
        await no_longer_returned(auction, *items)
        await auction.evicted(*items)
        after = await auction.answers("bought", **requests_of("bought"))
        for asked, told in before.items():
            assert after[asked] == told, asked

        # And once more, in one request.
        answer = await house.http.post("/api/v1/items/bought/bids/bought-bob/void", json=REASON)
        assert answer.status_code == 200, answer.text
        assert answer.json()["seq"] == json.loads(before["read"][1])["seq"] + 1
        assert (
            await house.http.post("/api/v1/items/withdrawn/bids/withdrawn-bob/void", json=REASON)
        ).status_code == 409
        assert await auction.traces("withdrawn") == [], "a cancelled item need not come back"


async def no_longer_returned(auction: Auction, *item_ids: str) -> None:
    """Let these items leave, as if the minute for which a void keeps them was over."""
    for item_id in item_ids:
        await auction.redis.hdel(item_key(item_id), "returned_us")


async def test_an_item_of_many_bids_comes_back_whole(start_stack: StackFactory) -> None:
    """More events than Redis keeps, more bids than its log has, and more verdicts than one command takes."""
    stack = await start_stack(services=ALL_SERVICES, redis_appendfsync="no")
    async with auction_of(stack) as auction:
        house = auction.house
        await house.create("long", increment={"kind": "flat", "value": 1}, buy_now_price=5_000, reserve_price=5_000)
        for number in range(1, 1_301):
            await house.accepted("long", f"u{number % 7}", f"b-{number}", amount=number)
        await house.accepted("long", "ann", "last", amount=5_000)
        await auction.exported("long")
        kept = await auction.contents("long")
        await auction.evicted("long")
        assert await auction.returns().bring_back("long")
        back = await auction.contents("long")
        del back[item_key("long")][b"returned_us"]
        assert back == kept
        answer = await house.http.post("/api/v1/items/long/bids/b-1/void", json=REASON)
        assert answer.status_code == 200, answer.text


async def test_it_leaves_when_its_time_has_come_and_not_before(start_stack: StackFactory) -> None:
    stack = await start_stack(services=("api_gateway", "archival_worker"))
    async with auction_of(stack, EvictionOptions(keep_s=3)) as auction:
        await sold(auction.house, "soon")
        await auction.exported("soon")
        closed_s = time.monotonic()
        early = 0
        while await auction.redis.exists(item_key("soon")):
            early += time.monotonic() - closed_s < 1
            await auction.evictor.look()
            assert time.monotonic() - closed_s < 20
        assert early, "it was looked at before its time"
        assert time.monotonic() - closed_s >= 1
        await sold(auction.house, "stays")
        await auction.exported("stays")
    async with auction_of(stack, EvictionOptions(keep_s=-1)) as auction:
        await auction.evictor.run()
        assert await auction.redis.exists(item_key("stays"))
