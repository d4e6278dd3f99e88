"""A gateway is killed at each point at which credit is in nobody's hand: the limit holds, and nothing of it is lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import httpx2 as httpx
import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.redis_layout.keys import cursors_key
from tests.integration.loss.recover_world import House, house_of
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

ITEMS = tuple(f"lot-{number}" for number in range(6))
LIMIT = 200


async def revive(house: House) -> None:
    stack = house.stack
    assert await stack.wait_ended(API_GATEWAY)
    gateway = stack.processes[API_GATEWAY]
    gateway.spec = replace(gateway.spec, env={**gateway.spec.env, "CRASH_AT": ""})
    await stack.start_process(API_GATEWAY)
    await eventually(house.is_ready, seconds=60)


async def spending(house: House) -> dict[str, Any]:
    answer = await house.http.get("/api/v1/bidders/ann/limit")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def limit(house: House, amount: int) -> None:
    answer = await house.http.put("/api/v1/bidders/ann/limit", json={"amount": amount})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("point", ["accounts.begun", "accounts.charged", "accounts.leased", "accounts.collected"])
async def test_a_gateway_that_dies_between_two_steps(start_stack: StackFactory, point: str) -> None:
    assert len({names.shard_of(item) for item in ITEMS}) > 3
    env = {"CRASH_AT": point, "OPEN_CATALOGUE": "false"}
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env=env)
    async with house_of(stack) as house:
        for item in ITEMS:
            await house.create(item)
        await house.accepted(ITEMS[0], "ann", "ann-0", amount=10, max_amount=100)
        if point in ("accounts.begun", "accounts.charged"):
            with pytest.raises(httpx.TransportError):
                await limit(house, LIMIT)
            await revive(house)

            async def is_in_force() -> bool:
                return bool((await spending(house))["committed"] == 100)

            await eventually(is_in_force, "the account that somebody else opens", seconds=30)
        else:
            await limit(house, LIMIT)
        # Each of the next two asks the account; the second one finds too little there, and asks the other shards.
        for item, amount in ((ITEMS[1], 60), (ITEMS[2], 36)):
            try:
                await house.accepted(item, "ann", f"ann-{item}", amount=amount)
            except httpx.TransportError:
                await revive(house)
                await house.accepted(item, "ann", f"ann-{item}", amount=amount)
        told = await spending(house)
        assert (told["committed"], told["remaining"]) == (196, 4)
        for amount, code in ((5, "LIMIT_EXCEEDED"), (4, None)):
            answer = await house.bid(ITEMS[3], "ann", f"last-{amount}", amount=amount)
            assert answer.json().get("code") == code, answer.text
        # All of it comes back, and can be used elsewhere.
        await house.accepted(ITEMS[0], "bob", "bob-0", amount=150)
        await house.accepted(ITEMS[4], "ann", "ann-4", amount=100)
        assert (await house.bid(ITEMS[5], "ann", "ann-5", amount=1)).json()["code"] == "LIMIT_EXCEEDED"
        assert (await spending(house))["committed"] == LIMIT


async def test_a_gateway_that_dies_with_the_credit_for_a_void(start_stack: StackFactory) -> None:
    """What is free elsewhere is in the item's shard, and the bid is not struck yet."""
    here, elsewhere, third, *_ = {names.shard_of(item): item for item in ITEMS}.values()
    env = {"CRASH_AT": "voids.secured", "OPEN_CATALOGUE": "false"}
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env=env)
    async with house_of(stack) as house:

        async def void(item: str, bid_id: str) -> int:
            path = f"/api/v1/items/{item}/bids/{bid_id}/void"
            return (await house.http.post(path, json={"reason": "a test"})).status_code

        for item in (here, elsewhere, third):
            await house.create(item)
        await limit(house, LIMIT)
        await house.accepted(here, "ann", "ann-0", amount=10, max_amount=100)
        await house.accepted(here, "bob", "bob-0", amount=150)
        await house.accepted(elsewhere, "ann", "ann-1", amount=10, max_amount=LIMIT)
        await house.accepted(elsewhere, "bob", "bob-1", amount=LIMIT + 50)
        with pytest.raises(httpx.TransportError):
            await void(here, "bob-0")
        await revive(house)
        assert (await spending(house))["committed"] == 0, "nothing was struck"
        assert await void(here, "bob-0") == 200
        assert await void(elsewhere, "bob-1") == 409
        assert (await house.bid(third, "ann", "ann-3", amount=101)).json()["code"] == "LIMIT_EXCEEDED"
        await house.accepted(third, "ann", "ann-4", amount=100)
        told = await spending(house)
        assert (told["committed"], told["remaining"]) == (LIMIT, 0)


async def test_redis_is_killed_and_what_is_free_goes_on_to_be_free(start_stack: StackFactory) -> None:
    """It has all of its data; nobody can know that, so each shard and the account are asked anew."""
    here, elsewhere, third, *_ = {names.shard_of(item): item for item in ITEMS}.values()
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env={"OPEN_CATALOGUE": "false"})
    async with house_of(stack) as house:
        for item in (here, elsewhere, third):
            await house.create(item)
        await limit(house, LIMIT)
        await house.accepted(here, "ann", "ann-0", amount=100)
        stack.kill("redis")
        assert await stack.wait_ended("redis")
        await stack.start_process("redis")

        async def is_answered() -> bool:
            """Bids are 503 until the gateway has admitted this run."""
            answer = await house.bid(elsewhere, "ann", "ann-1", amount=101)
            return answer.status_code == 200 and answer.json()["code"] == "LIMIT_EXCEEDED"

        await eventually(is_answered, "a Redis that is admitted", seconds=60)
        await house.accepted(elsewhere, "ann", "ann-2", amount=100)
        assert (await house.bid(third, "ann", "ann-3", amount=1)).json()["code"] == "LIMIT_EXCEEDED"
        admissions = await cast(Any, house.redis).hmget(cursors_key(names.shard_of(here)), "run", "admission")
        assert all(admissions), "another run has another admission"
        await house.accepted(here, "bob", "bob-0", amount=150)
        await house.accepted(third, "ann", "ann-4", amount=100)
        assert (await spending(house))["committed"] == LIMIT
