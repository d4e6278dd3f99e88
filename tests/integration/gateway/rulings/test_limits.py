"""What a spending limit leaves a bidder on a running gateway: over several items, after voids, by many bids."""

from __future__ import annotations

import asyncio

import httpx2 as httpx
import pytest

from api_gateway.routes.batches import PATH
from shared import names
from tests.integration.gateway.rulings.calls import API, code, create, rule
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


async def spending(http: httpx.AsyncClient, user_id: str) -> tuple[float | None, float | None, float | None]:
    told = await rule(http, "GET", f"/bidders/{user_id}/limit")
    return told["limit"], told["committed"], told["remaining"]


async def test_a_spending_limit_across_items(http: httpx.AsyncClient) -> None:
    """Items in many shards; credit that is released, by every way in which it is, is there for the next bid."""
    items = [f"spent-{n}" for n in range(12)]
    assert len({names.shard_of(item) for item in items}) > 7
    for item in items:
        await create(http, item)
    euros = "spent-euros"
    await create(http, euros, currency="EUR")
    # What is led with before there is a limit counts.
    assert await code(http, items[0], "max", amount=10, max_amount=100) is None
    assert await spending(http, "max") == (None, None, None), "what nobody counts is not told as nothing"
    told = await rule(http, "PUT", "/bidders/max/limit", {"amount": 400})
    assert (told["limit"], told["committed"], told["remaining"]) == (400, 100, 300)
    assert await code(http, items[1], "max", amount=5, max_amount=301, bid_id="max-1") == "LIMIT_EXCEEDED"
    assert await code(http, items[1], "max", amount=5, max_amount=300, bid_id="max-2") is None
    assert await spending(http, "max") == (400, 400, 0)
    assert await code(http, items[2], "max", amount=1) == "LIMIT_EXCEEDED"
    assert await code(http, euros, "max", amount=1_000) is None, "it is in another currency"
    # A leader may show more of what stands, and raise nothing.
    assert await code(http, items[0], "max", amount=50) is None
    assert await code(http, items[0], "max", max_amount=101) == "LIMIT_EXCEEDED"
    # Outbid: the credit is back, and used in another shard.
    assert await code(http, items[1], "noa", amount=350) is None
    assert await spending(http, "max") == (400, 100, 300)
    for item in items[2:5]:
        assert await code(http, item, "max", amount=100) is None
    assert await code(http, items[5], "max", amount=1) == "LIMIT_EXCEEDED"
    # Cancelled, voided, closed.
    assert (await http.post(f"{API}/items/{items[2]}/cancel", json={"reason": "a test"})).status_code == 200
    assert await code(http, items[5], "max", amount=100, bid_id="max-3") is None
    void = await http.post(f"{API}/items/{items[5]}/bids/max-3/void", json={"reason": "a test"})
    assert void.status_code == 200
    assert await spending(http, "max") == (400, 300, 100)
    await create(http, "spent-closing", duration_s=2)
    assert await code(http, "spent-closing", "max", amount=100) is None
    assert (await spending(http, "max"))[1] == 400

    async def is_released() -> bool:
        return (await spending(http, "max"))[1] == 300

    await eventually(is_released, "the credit of an item that is sold")
    # A pause changes nothing.
    assert (await http.post(f"{API}/items/{items[3]}/pause", json={"reason": "a test"})).status_code == 200
    assert (await spending(http, "max"))[1] == 300
    # The same bid under its key, which was refused for want of credit.
    await rule(http, "PUT", "/bidders/max/limit", {"amount": 2_000})
    assert await code(http, items[6], "max", amount=5, max_amount=1_700, bid_id="max-4") is None
    assert await code(http, items[7], "max", amount=5, bid_id="max-5") == "LIMIT_EXCEEDED"
    await rule(http, "DELETE", "/bidders/max/limit")
    assert await code(http, items[7], "max", amount=5, bid_id="max-5") is None
    assert await spending(http, "max") == (None, 2_005, None)


async def test_what_a_void_brings_back_is_not_there_for_bids_elsewhere(http: httpx.AsyncClient) -> None:
    here, elsewhere, *_ = {names.shard_of(item): item for item in (f"brought-back-{n}" for n in range(12))}.values()
    for item in (here, elsewhere):
        await create(http, item)
    await rule(http, "PUT", "/bidders/vic/limit", {"amount": 400})
    assert await code(http, here, "vic", max_amount=300) is None
    assert await code(http, here, "noa", max_amount=350, bid_id="noa-1") is None
    # All of it is collected, and given back.
    assert await code(http, elsewhere, "vic", max_amount=401) == "LIMIT_EXCEEDED"
    back = await http.post(f"{API}/items/{here}/bids/noa-1/void", json={"reason": "a test"})
    assert back.status_code == 200
    assert await spending(http, "vic") == (400, 300, 100)
    assert await code(http, elsewhere, "vic", max_amount=101) == "LIMIT_EXCEEDED"
    assert await code(http, elsewhere, "vic", max_amount=100) is None


async def test_what_is_free_elsewhere_is_given_back_when_a_void_brings_a_lead_back(http: httpx.AsyncClient) -> None:
    here, elsewhere, *_ = {names.shard_of(item): item for item in (f"free-again-{n}" for n in range(12))}.values()
    for item in (here, elsewhere):
        await create(http, item, increment={"kind": "flat", "value": 0.01})
    await rule(http, "PUT", "/bidders/wim/limit", {"amount": 100})
    assert await code(http, here, "wim", max_amount=60) is None
    assert await code(http, here, "noa", max_amount=70, bid_id="noa-2") is None
    # The whole limit is elsewhere, used and then free.
    assert await code(http, elsewhere, "wim", max_amount=100, bid_id="wim-3") is None
    gone = await http.post(f"{API}/items/{elsewhere}/bids/wim-3/void", json={"reason": "a test"})
    assert gone.status_code == 200
    back = await http.post(f"{API}/items/{here}/bids/noa-2/void", json={"reason": "a test"})
    assert back.status_code == 200
    assert await code(http, elsewhere, "wim", max_amount=100) == "LIMIT_EXCEEDED"
    assert await spending(http, "wim") == (100, 60, 40)


async def test_a_void_never_lets_somebody_lead_beyond_their_limit(http: httpx.AsyncClient) -> None:
    here, elsewhere, *_ = {names.shard_of(item): item for item in (f"beyond-{n}" for n in range(12))}.values()
    for item in (here, elsewhere):
        await create(http, item)
    await rule(http, "PUT", "/bidders/xan/limit", {"amount": 100})
    assert await code(http, here, "noa", max_amount=900, bid_id="noa-3") is None
    # A bid that is beaten at once uses no credit, so it can be used elsewhere.
    assert await code(http, here, "xan", max_amount=800) == "LIMIT_EXCEEDED"
    assert await code(http, here, "xan", max_amount=80, bid_id="xan-1") is None
    assert await code(http, elsewhere, "xan", max_amount=60) is None
    before = (await http.get(f"{API}/items/{here}")).json()

    async def void(bid_id: str) -> httpx.Response:
        return await http.post(f"{API}/items/{here}/bids/{bid_id}/void", json={"reason": "a test"})

    for _ in range(2):
        refused = await void("noa-3")
        assert (refused.status_code, refused.json()["code"]) == (409, "LEAD_LACKS_CREDIT")
        assert "'xan'" in refused.json()["detail"]
    assert (await http.get(f"{API}/items/{here}")).json() == before
    assert await code(http, elsewhere, "xan", max_amount=100) is None
    assert (await void("xan-1")).status_code == 200
    back = await void("noa-3")
    assert back.status_code == 200
    assert back.json()["highest_bidder_id"] is None
    assert await spending(http, "xan") == (100, 100, 0)


async def test_a_limit_below_what_one_leads_with_takes_nothing_away(http: httpx.AsyncClient) -> None:
    await create(http, "below-1")
    await create(http, "below-2")
    assert await code(http, "below-1", "oz", amount=100) is None
    assert (await rule(http, "PUT", "/bidders/oz/limit", {"amount": 60}))["remaining"] == 0
    assert (await http.get(f"{API}/items/below-1")).json()["highest_bidder_id"] == "oz"
    assert await code(http, "below-2", "oz", amount=1) == "LIMIT_EXCEEDED"
    assert await code(http, "below-1", "pam", amount=101) is None
    assert await code(http, "below-2", "oz", amount=60) is None


async def test_many_bids_of_one_bidder_at_one_moment(http: httpx.AsyncClient) -> None:
    """On items in many shards, for three times as much as there is: what is accepted never passes the limit."""
    items = [f"storm-{n}" for n in range(30)]
    for item in items:
        await create(http, item)
    await rule(http, "PUT", "/bidders/quin/limit", {"amount": 100})
    codes = await asyncio.gather(*(code(http, item, "quin", amount=10) for item in items))
    leads = [(await http.get(f"{API}/items/{item}")).json()["highest_bidder_id"] for item in items]
    assert set(codes) <= {None, "LIMIT_EXCEEDED", "UNAVAILABLE"}
    assert codes.count(None) == leads.count("quin") == 10
    assert await spending(http, "quin") == (100, 100, 0)
    await rule(http, "DELETE", "/bidders/quin/limit")


@pytest.mark.parametrize("are_raised", [True, False])
async def test_bids_of_one_batch_take_no_more_of_a_limit_than_they_lead_with(
    http: httpx.AsyncClient, are_raised: bool
) -> None:
    """All of them were decided before the first one had credit: what each lacked then is not what it lacks later."""
    user, item = f"many-{are_raised}".lower(), f"once-{are_raised}".lower()
    await create(http, item)
    assert await code(http, item, "somebody", amount=1) is None  # the gateway knows the item
    await rule(http, "PUT", f"/bidders/{user}/limit", {"amount": 1_500})
    kind = "max_amount" if are_raised else "amount"
    bids = [{"item_id": item, "user_id": user, kind: 10 * number} for number in range(1, 41)]
    answer = await http.post(PATH, json={"bids": bids})
    codes = [one["answer"].get("code") for one in answer.json()["results"]]
    assert codes == [None] * 40
    assert await spending(http, user) == (1_500, 400, 1_100)
