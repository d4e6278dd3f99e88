"""Revoked tokens, at two gateways: they are refused everywhere within seconds, whatever is away meanwhile."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import jwt
import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from infrastructure.local import cli
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from shared.clients.redis import open_redis
from shared.identity.errors import TooManyRevocations
from shared.identity.revocations import REVOCATIONS_MAX
from shared.redis_layout.keys import REVOCATIONS_KEY
from shared.redis_layout.revocations import RevocationStore
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

REVOCATIONS = "/api/v1/revocations"
NO_LEEWAY = {"AUTH_MODE": "jwt", "AUTH_LEEWAY_S": "0"}


class House:
    """Two gateways of one platform."""

    def __init__(self, stack: Stack, here: httpx.AsyncClient, there: httpx.AsyncClient) -> None:
        self.stack, self.here, self.there = stack, here, there
        self._key = signing_key(stack.data_dir)

    def token(self, user: str, *roles: str) -> str:
        return signed_token(self._key, user, roles or ["bidder"], ttl_s=600, environment={})

    async def revoke(self, **body: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token('oda', 'operator')}"}
        return await self.here.post(REVOCATIONS, json=body, headers=headers)

    async def status(self, gateway: httpx.AsyncClient, token: str) -> int:
        """The status of a call that every token allows."""
        headers = {"authorization": f"Bearer {token}"}
        return (await gateway.get("/api/v1/bids/by-key/none?item_id=none", headers=headers)).status_code

    async def refused_everywhere(self, token: str, *, within_s: float = 5.0) -> None:
        assert await self.status(self.here, token) == 401, "where it was revoked it is refused at once"

        async def is_refused() -> bool:
            return await self.status(self.there, token) == 401

        await eventually(is_refused, "the other gateway refuses it", seconds=within_s)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    factory = StackFactory()
    try:
        stack = await factory(services=(API_GATEWAY,), env=NO_LEEWAY)
        [port] = free_ports(1)
        await stack.add_service("gateway-there", API_GATEWAY, port, NO_LEEWAY | {"GATEWAY_PORT": str(port)})
        async with (
            httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as here,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as there,
        ):
            yield House(stack, here, there)
    finally:
        await factory.close()


async def test_all_tokens_of_a_user(house: House) -> None:
    before, other = house.token("ann"), house.token("ann-2")
    for gateway in (house.here, house.there):
        assert await house.status(gateway, before) == 404
    done = await house.revoke(user_id="ann")
    assert done.status_code == 201, done.text
    assert done.json()["user_id"] == "ann"
    began_s = time.monotonic()
    await house.refused_everywhere(before)
    assert time.monotonic() - began_s < 1.5, "NATS tells it, sooner than the next look"
    for gateway in (house.here, house.there):
        assert await house.status(gateway, other) == 404
    # A token that is issued later is a new one.
    await asyncio.sleep(1.1)
    assert await house.status(house.here, house.token("ann")) == 404
    assert await house.status(house.there, house.token("ann")) == 404


async def test_one_token(house: House) -> None:
    lost, kept = house.token("bea"), house.token("bea")
    token_id = jwt.decode(lost, options={"verify_signature": False})["jti"]
    assert (await house.revoke(token_id=token_id)).json()["token_id"] == token_id
    await house.refused_everywhere(lost)
    for gateway in (house.here, house.there):
        assert await house.status(gateway, kept) == 404


async def test_a_websocket_that_it_has_opened_is_closed(house: House) -> None:
    url = str(house.there.base_url).replace("http", "ws", 1) + "/api/v1/bids"
    async with connect(url, additional_headers={"authorization": f"Bearer {house.token('eve')}"}, proxy=None) as socket:
        await socket.send(json.dumps({"op": "bid", "id": 1, "item_id": "none", "amount": 5}))
        assert json.loads(await asyncio.wait_for(socket.recv(), 5))["status"] == 404
        await house.revoke(user_id="eve")
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 5)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_id": "ann", "token_id": "x"},
        {"user_id": "a b"},
        {"token_id": ""},
        {"token_id": "a=1:2"},
        {"who": "x"},
    ],
    ids=str,
)
async def test_what_names_nothing_is_refused(house: House, body: dict[str, str]) -> None:
    assert (await house.revoke(**body)).status_code == 422


async def test_without_nats_it_takes_a_look(house: House) -> None:
    token = house.token("fay")
    await house.stack.stop_process("nats")
    try:
        assert (await house.revoke(user_id="fay")).status_code == 201
        await house.refused_everywhere(token)
    finally:
        await house.stack.start_process("nats")


async def test_a_redis_that_was_wiped_is_told_again(house: House) -> None:
    token = house.token("gus")
    await house.revoke(user_id="gus")
    await house.refused_everywhere(token)
    async with Redis.from_url(house.stack.urls.redis_url, protocol=2, decode_responses=True) as redis:
        await redis.delete(REVOCATIONS_KEY)

        async def is_back() -> bool:
            return bool(await redis.hexists(REVOCATIONS_KEY, "u:gus"))

        await eventually(is_back, "a gateway tells it again")
        before = await redis.hgetall(REVOCATIONS_KEY)
        await asyncio.sleep(3)
        assert await redis.hgetall(REVOCATIONS_KEY) == before, "two gateways do not tell each other for ever"
    assert await house.status(house.here, token) == 401


async def test_there_is_a_bound_and_what_holds_no_more_makes_room(house: House) -> None:
    redis: Any = open_redis(house.stack.urls.redis_url, timeout_s=5)
    store = RevocationStore(redis)
    saved = await redis.hgetall(REVOCATIONS_KEY)
    try:
        await redis.hset(REVOCATIONS_KEY, mapping={f"t:{n}": "1:99999999999" for n in range(REVOCATIONS_MAX)})
        with pytest.raises(TooManyRevocations):
            await store.revoke("u:one-more")
        assert not await redis.hexists(REVOCATIONS_KEY, "u:one-more")
        await redis.hset(REVOCATIONS_KEY, mapping={f"t:{n}": "1:2" for n in range(5_000)})
        await store.revoke("u:one-more")
        assert await redis.hlen(REVOCATIONS_KEY) < REVOCATIONS_MAX
        assert "u:one-more" in await store.read()
    finally:
        await redis.delete(REVOCATIONS_KEY)
        if saved:
            await redis.hset(REVOCATIONS_KEY, mapping=saved)
        await redis.aclose()


async def test_open_has_nothing_to_revoke(http: httpx.AsyncClient) -> None:
    answer = await http.post(REVOCATIONS, json={"user_id": "ann"})
    assert (answer.status_code, answer.json()["code"]) == (409, "NO_TOKENS")


async def test_from_the_command_line(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the data directory's key, and with somebody's token."""
    where = ["--data-dir", str(house.stack.data_dir), "--gateway-url", house.stack.urls.gateway_url]
    monkeypatch.delenv("BIDDING_TOKEN", raising=False)

    async def bidding(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, cli.main, [*arguments, *where])

    whole, single = house.token("hal"), house.token("ida")
    done = await bidding("token", "revoke", "hal")
    assert done.exit_code == 0, done.output
    assert "All tokens of hal" in done.output
    await house.refused_everywhere(whole)
    assert (await bidding("token", "revoke", "--token", single)).exit_code == 0
    await house.refused_everywhere(single)
    monkeypatch.setenv("BIDDING_TOKEN", house.token("bea", "bidder", "seller"))
    refused = await bidding("token", "revoke", "jim")
    assert (refused.exit_code, "FORBIDDEN" in refused.output) == (1, True)
    for wrong in (["revoke"], ["revoke", "jim", "--token", single], ["revoke", "--token", "nonsense"]):
        assert (await bidding("token", *wrong)).exit_code != 0
