"""API keys of services: made and revoked from the command line, and exchanged for tokens."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator

import asyncpg
import httpx2 as httpx
import jwt
import pytest
import pytest_asyncio

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.signing_key import API_KEY_SECRET
from infrastructure.local.stack import Stack
from shared.identity.api_keys import make_key
from tests.programs import bidding_apart
from tests.stack import StackFactory

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "/api/v1/token"


class House:
    """A platform with tokens, and its command line."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.stack, self.http = stack, http
        self.secret = stack.service_env[API_KEY_SECRET]

    async def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        urls = self.stack.urls
        where = ("--postgres-url", urls.postgres_url, "--redis-url", urls.redis_url)
        return await bidding_apart("api-keys", *arguments, "--data-dir", str(self.stack.data_dir), *where)

    async def new_key(self, *arguments: str, user: str = "house", role: str = "seller") -> str:
        done = await self.command("create", "A service", "--user", user, "--role", role, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    async def exchange(self, key: str) -> httpx.Response:
        return await self.http.post(TOKEN, headers={"authorization": f"ApiKey {key}"})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    factory = StackFactory()
    try:
        stack = await factory(services=(API_GATEWAY,), env={"AUTH_MODE": "jwt"})
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
            yield House(stack, http)
    finally:
        await factory.close()


async def test_a_key_is_exchanged_for_a_token_of_its_user_and_roles(house: House) -> None:
    key = await house.new_key()
    given = await house.exchange(key)
    assert given.status_code == 201, given.text
    told = given.json()
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 600)
    assert given.headers["cache-control"] == "no-store"
    claims = jwt.decode(told["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["roles"]) == ("house", ["seller"])
    headers = {"authorization": f"Bearer {told['access_token']}"}
    made = await house.http.post("/api/v1/items", json={"name": "x"}, headers=headers)
    assert (made.status_code, made.json()["seller_id"]) == (201, "house")
    bid = await house.http.post(f"/api/v1/items/{made.json()['id']}/bid", json={"amount": 1}, headers=headers)
    assert bid.status_code == 403, "it is no bidder"


async def test_a_key_is_no_token_and_a_token_is_no_key(house: House) -> None:
    key = await house.new_key()
    token = (await house.exchange(key)).json()["access_token"]
    for authorization in (f"Bearer {key}", f"ApiKey {key}", f"Basic {key}"):
        refused = await house.http.post("/api/v1/items", json={"name": "x"}, headers={"authorization": authorization})
        assert refused.status_code == 401, authorization
    for authorization in (f"ApiKey {token}", f"Bearer {token}", f"Bearer {key}", "ApiKey", ""):
        refused = await house.http.post(TOKEN, headers={"authorization": authorization} if authorization else {})
        assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED"), authorization
    in_address = await house.http.post(f"{TOKEN}?key={key}&api_key={key}")
    assert in_address.status_code == 401


async def test_a_key_that_is_revoked_is_worthless(house: House) -> None:
    key = await house.new_key()
    key_id = key.split("_")[1]
    assert (await house.exchange(key)).status_code == 201
    assert key_id in (await house.command("list")).stdout
    done = await house.command("revoke", key_id)
    assert done.returncode == 0, done.stderr
    refused = await house.exchange(key)
    assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED")
    assert (await house.command("revoke", key_id)).returncode == 1
    assert key_id not in (await house.command("list")).stdout
    listed = [json.loads(line) for line in (await house.command("list", "--all", "--json")).stdout.splitlines()]
    assert next(row for row in listed if row["key_id"] == key_id)["revoked_at"] is not None


async def test_a_key_of_before_all_tokens_of_its_user_were_revoked_gives_none(house: House) -> None:
    key = await house.new_key(user="gone")
    token = (await house.exchange(key)).json()["access_token"]
    operator = await house.exchange(await house.new_key(user="oda", role="operator"))
    headers = {"authorization": f"Bearer {operator.json()['access_token']}"}
    done = await house.http.post("/api/v1/revocations", json={"user_id": "gone"}, headers=headers)
    assert done.status_code == 201, done.text
    refused = await house.exchange(key)
    assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED")
    said = await house.http.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
    assert said.status_code == 401
    # A key that is made afterwards is good; PostgreSQL says when it was made.
    connection = await asyncpg.connect(house.stack.urls.postgres_url)
    try:
        later = await house.new_key(user="gone")
        made = "UPDATE api_keys SET created_at = now() + interval '2 seconds' WHERE key_id = $1"
        await connection.execute(made, later.split("_")[1])
    finally:
        await connection.close()
    assert (await house.exchange(later)).status_code == 201


async def test_a_key_has_an_end_and_no_token_is_good_for_longer(house: House) -> None:
    key = await house.new_key("--days", "1")
    key_id = key.split("_")[1]
    connection = await asyncpg.connect(house.stack.urls.postgres_url)
    try:
        end = "UPDATE api_keys SET expires_at = now() + $2::interval WHERE key_id = $1"
        await connection.execute(end.replace("$2", "'90 seconds'"), key_id)
        told = (await house.exchange(key)).json()
        assert 80 <= told["expires_in"] <= 90
        claims = jwt.decode(told["access_token"], options={"verify_signature": False})
        assert claims["exp"] <= time.time() + 91
        await connection.execute(end.replace("$2", "'-1 second'"), key_id)
        assert (await house.exchange(key)).status_code == 401
    finally:
        await connection.close()


async def test_of_what_is_stored_nobody_can_make_a_key(house: House) -> None:
    key = await house.new_key()
    connection = await asyncpg.connect(house.stack.urls.postgres_url)
    try:
        row = await connection.fetchrow("SELECT * FROM api_keys WHERE key_id = $1", key.split("_")[1])
    finally:
        await connection.close()
    assert row is not None
    stored = " ".join(str(value) for value in row.values())
    assert key not in stored
    assert key.rpartition("_")[2] not in stored
    # With the digest as the secret of a key, and a key of the platform whose row is another's.
    for text in (
        f"bk_{row['key_id']}_{row['digest'].hex()[:59]}",
        make_key(house.secret).text,
        make_key("x" * 32).text,
    ):
        assert (await house.exchange(text)).status_code == 401


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "x", "--user", "a b", "--role", "bidder"),
        ("create", "x" * 101, "--user", "ann", "--role", "bidder"),
        ("create", "x", "--user", "ann"),
        ("create", "x", "--user", "ann", "--role", "king"),
        ("revoke", "../../etc"),
    ],
    ids=["user", "name", "no role", "role", "id"],
)
async def test_what_makes_no_sense_is_refused(house: House, arguments: tuple[str, ...]) -> None:
    done = await house.command(*arguments)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


async def test_without_tokens_there_are_no_keys(http: httpx.AsyncClient) -> None:
    answer = await http.post(TOKEN, headers={"authorization": f"ApiKey {make_key('k' * 32).text}"})
    assert (answer.status_code, answer.json()["code"]) == (503, "API_KEYS_OFF")
