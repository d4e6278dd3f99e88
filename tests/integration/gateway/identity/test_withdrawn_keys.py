"""A key that is withdrawn ends what was given for its tokens: an API key at once and everywhere, a key of the issuer as
soon as a gateway knows of it. On the live feed too, whose broadcasters have no keys.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from infrastructure.local.services import API_GATEWAY, BROADCAST_SERVICE
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from shared.identity.once import put_once
from shared.redis_layout.keys import REVOCATIONS_KEY
from tests.integration.feed.test_private_channel import Bidder
from tests.programs import bidding_apart
from tests.stack import StackFactory
from tests.unit.shared.identity.issuing import AUDIENCE, ISSUER, claims, jwk_of, jwks
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SERVICES = (API_GATEWAY, BROADCAST_SERVICE)
FEED = "/ws"


class Callers:
    """Those who call with tokens."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.stack, self.http = stack, http

    async def call(self, token: str, path: str, body: Any = None) -> httpx.Response:
        return await self.http.post(f"/api/v1/{path}", json=body or {}, headers={"authorization": f"Bearer {token}"})

    async def ticket(self, token: str) -> str:
        answer = await self.call(token, "feed-ticket")
        assert answer.status_code == 201, answer.text
        return str(answer.json()["ticket"])

    async def feed_token(self, token: str) -> str:
        answer = await self.call(token, "feed-token")
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def refuses(self, token: str) -> bool:
        answer = await self.http.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
        return answer.status_code == 401


@asynccontextmanager
async def callers_of(stack: Stack) -> AsyncIterator[Callers]:
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
        yield Callers(stack, http)


class Service(Callers):
    """A service with an API key, and the command line."""

    async def command(self, *arguments: str, redis_url: str | None = None) -> subprocess.CompletedProcess[str]:
        urls = self.stack.urls
        where = ("--postgres-url", urls.postgres_url, "--redis-url", redis_url or urls.redis_url)
        place = ("--data-dir", str(self.stack.data_dir))
        return await bidding_apart("api-keys", *arguments, *place, *where)

    async def key(self, user: str) -> str:
        done = await self.command("create", "A service", "--user", user, "--role", "bidder")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def token(self, key: str) -> str:
        given = await self.http.post("/api/v1/token", headers={"authorization": f"ApiKey {key}"})
        assert given.status_code == 201, given.text
        return str(given.json()["access_token"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[Service]:
    factory = StackFactory()
    try:
        stack = await factory(services=SERVICES, env={"AUTH_MODE": "jwt"})
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
            yield Service(stack, http)
    finally:
        await factory.close()


async def authenticated(bidder: Bidder, **by: str) -> None:
    await bidder.say(op="authenticate", **by)
    await bidder.next_of("authenticated")


async def test_what_was_given_for_a_revoked_api_key_ends_everywhere(service: Service) -> None:
    key, kept = await service.key("house"), await service.key("house")
    token, other = await service.token(key), await service.token(kept)
    ticket, late_ticket, feed_token = (
        await service.ticket(token),
        await service.ticket(token),
        await service.feed_token(token),
    )
    bids = service.stack.urls.gateway_url.replace("http", "ws", 1) + "/api/v1/bids"
    async with (
        Bidder.at(service.stack, FEED) as by_ticket,
        Bidder.at(service.stack, FEED) as by_token,
        Bidder.at(service.stack, FEED) as of_another_key,
        connect(bids, additional_headers={"authorization": f"Bearer {token}"}, proxy=None) as socket,
    ):
        await authenticated(by_ticket, ticket=ticket)
        await authenticated(by_token, token=feed_token)
        await authenticated(of_another_key, ticket=await service.ticket(other))
        done = await service.command("revoke", key.split("_")[1])
        assert done.returncode == 0, done.stderr
        for each in (by_ticket, by_token):
            assert (await each.next_of("error"))["code"] == "TOKEN_EXPIRED"
        # Neither what was given before begins a session.
        for by in ({"ticket": late_ticket}, {"token": feed_token}):
            await by_ticket.say(op="authenticate", **by)
            assert (await by_ticket.next_of("error"))["code"] == "TOKEN_EXPIRED"
        await of_another_key.pong()
        assert "TOKEN_EXPIRED" not in "".join(of_another_key.texts), "the same user by another key"
        await eventually(lambda: service.refuses(token))
        await asyncio.wait_for(socket.wait_closed(), 10)
        assert socket.close_code == 4401
    assert not await service.refuses(other)


async def test_a_redis_that_cannot_be_told_is_told_the_next_time(service: Service) -> None:
    key = await service.key("house")
    token, key_id = await service.token(key), key.split("_")[1]
    done = await service.command("revoke", key_id, redis_url="redis://127.0.0.1:1/0")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"The key {key_id} is revoked, and the tokens that were given for it are not: " in done.stderr
    again = await service.http.post("/api/v1/token", headers={"authorization": f"ApiKey {key}"})
    assert again.status_code == 401
    assert not await service.refuses(token)
    done = await service.command("revoke", key_id)
    assert (done.returncode, "revoked already" in done.stderr) == (1, True)
    await eventually(lambda: service.refuses(token))


async def test_a_damaged_revocation_ends_no_service_and_hides_no_other_one(service: Service) -> None:
    key = await service.key("house")
    token = await service.token(key)
    async with Redis.from_url(service.stack.urls.redis_url) as redis, Bidder.at(service.stack, FEED) as house:
        await authenticated(house, ticket=await service.ticket(token))
        damaged: dict[Any, Any] = {b"\xff\xfe": "1:99999999999", "u:house": "not:two numbers", "a:": "5:99999999999"}
        await redis.hset(REVOCATIONS_KEY, mapping=damaged | {"epoch": b"\xff"})
        done = await service.command("revoke", key.split("_")[1])
        assert done.returncode == 0, done.stderr
        assert (await house.next_of("error"))["code"] == "TOKEN_EXPIRED"
        await eventually(lambda: service.refuses(token))
        await house.pong()
        await redis.hdel(REVOCATIONS_KEY, *damaged)


async def test_a_ticket_of_a_gateway_of_the_version_before_is_taken(service: Service) -> None:
    """And one that has more than this broadcaster knows, of a later one."""
    told: dict[str, Any] = {"user_id": "ann", "expires_s": int(time.time()) + 600, "sees_maximum": True}
    told |= {"issued_s": int(time.time()), "token_id": "one"}
    async with Redis.from_url(service.stack.urls.redis_url) as redis:
        for members in (told, told | {"later": {"member": 1}}):
            ticket = await put_once(redis, "feed-ticket", json.dumps(members).encode(), ttl_ms=30_000)
            async with Bidder.at(service.stack, FEED) as ann:
                await authenticated(ann, ticket=ticket)


async def test_a_ticket_of_a_token_that_has_ended_meanwhile_begins_no_session(service: Service) -> None:
    told = {"user_id": "ann", "expires_s": int(time.time()) - 1, "sees_maximum": True}
    async with Redis.from_url(service.stack.urls.redis_url) as redis:
        ticket = await put_once(redis, "feed-ticket", json.dumps(told).encode(), ttl_ms=30_000)
    async with Bidder.at(service.stack, FEED) as ann:
        await ann.say(op="authenticate", ticket=ticket)
        assert (await ann.next_of("error"))["code"] == "TOKEN_EXPIRED"
        await ann.pong()
        assert "authenticated" not in "".join(ann.texts)


async def test_a_session_ends_with_the_token_behind_its_ticket(service: Service) -> None:
    signing = signing_key(service.stack.data_dir)
    short = signed_token(signing, "ann", ["bidder"], ttl_s=4, environment={})
    async with Bidder.at(service.stack, FEED) as ann:
        await authenticated(ann, ticket=await service.ticket(short))
        assert (await ann.next_of("error"))["code"] == "TOKEN_EXPIRED"


async def test_a_session_ends_when_the_key_of_its_token_is_withdrawn(start_stack: StackFactory, tmp_path: Any) -> None:
    former, lasting = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    published = tmp_path / "jwks.json"
    published.write_bytes(jwks(jwk_of(former, "former"), jwk_of(lasting, "lasting")))

    def token(key: Any, kid: str) -> str:
        return jwt.encode(claims(), key, algorithm="ES256", headers={"kid": kid})

    env = {"AUTH_MODE": "jwt", "AUTH_ISSUER": ISSUER, "AUTH_AUDIENCE": AUDIENCE, "AUTH_JWKS_FILE": str(published)}
    stack = await start_stack(services=SERVICES, env=env)
    async with (
        callers_of(stack) as callers,
        Bidder.at(stack, FEED) as ends,
        Bidder.at(stack, FEED) as stays,
        Redis.from_url(stack.urls.redis_url) as redis,
    ):
        good = token(former, "former")
        await authenticated(ends, ticket=await callers.ticket(good))
        await authenticated(stays, ticket=await callers.ticket(token(lasting, "lasting")))
        late_ticket = await callers.ticket(good)
        published.write_bytes(jwks(jwk_of(lasting, "lasting")))

        async def is_withdrawn() -> bool:
            # A key that is not known has the gateway look for it, at most every ten seconds.
            await callers.refuses(token(former, secrets.token_hex(8)))
            return await callers.refuses(good)

        await eventually(is_withdrawn, seconds=60)
        assert (await ends.next_of("error"))["code"] == "TOKEN_EXPIRED"
        await ends.say(op="authenticate", ticket=late_ticket)
        assert (await ends.next_of("error"))["code"] in ("TOKEN_EXPIRED", "TICKET_INVALID")
        await stays.pong()
        assert "TOKEN_EXPIRED" not in "".join(stays.texts)
        kept: Any = await redis.hgetall(REVOCATIONS_KEY)
        assert sum(name.startswith(b"k:") for name in kept) == 1
