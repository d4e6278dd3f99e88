"""The record of what operators did to the platform: who, when, what, why; and never a secret."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from shared.names import SHARDS
from shared.redis_layout.keys import REVOCATIONS_KEY, cursors_key, shard_of_key
from tests.programs import bidding_apart
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

REASON = 'lost: a "laptop" \\ it\'s gone'


class House:
    """A platform with tokens, an archive and its command line."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.stack, self.http = stack, http
        self._key = signing_key(stack.data_dir)

    def headers(self, user: str, role: str) -> dict[str, str]:
        token = signed_token(self._key, user, [role], ttl_s=600, environment={})
        return {"authorization": f"Bearer {token}"}

    async def acts(self, **query: Any) -> dict[str, Any]:
        answer = await self.http.get("/api/v1/ops/acts", params=query, headers=self.headers("ava", "auditor"))
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    async def newest(self) -> list[tuple[str, ...]]:
        return [tuple(act[name] for name in ("act", "target", "by", "reason")) for act in (await self.acts())["acts"]]

    async def bidding(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        urls = self.stack.urls
        where = ["--data-dir", str(self.stack.data_dir), "--postgres-url", urls.postgres_url]
        where += ["--redis-url", urls.redis_url, "--nats-url", urls.nats_url]
        return await bidding_apart(*arguments, *where)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house() -> AsyncIterator[House]:
    factory = StackFactory()
    try:
        stack = await factory(services=(API_GATEWAY, ARCHIVAL_WORKER), env={"AUTH_MODE": "jwt"})
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
            yield House(stack, http)
    finally:
        await factory.close()


async def test_who_revoked_tokens_and_why_comes_through_the_stream(house: House) -> None:
    headers = house.headers("oda", "operator")
    bodies = [{"user_id": "ann", "reason": REASON}, {"token_id": "a.jti:1"}]
    for body in bodies:
        done = await house.http.post("/api/v1/revocations", json=body, headers=headers)
        assert (done.status_code, done.json()["recorded"]) == (201, True), done.text

    async def are_archived() -> bool:
        return len(await house.newest()) == 2

    await eventually(are_archived)
    assert await house.newest() == [
        ("revoke_token", "a.jti:1", "oda", ""),
        ("revoke_tokens", "ann", "oda", REASON),
    ]
    done = await house.http.post("/api/v1/revocations", json={"user_id": "a", "reason": "\0"}, headers=headers)
    assert done.status_code == 422


async def test_what_commands_did_is_recorded_with_it(house: House) -> None:
    before = len((await house.acts(limit=200))["acts"])
    made = await house.bidding("api-keys", "create", "x", "--user", "imp", "--role", "seller", "--by", "olga")
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    key_id = secret.split("_")[1]
    for code in (0, 1):
        revoked = await house.bidding("api-keys", "revoke", key_id, "--by", "olga", "--reason", REASON)
        assert revoked.returncode == code, revoked.stderr
    connection = await asyncpg.connect(house.stack.urls.postgres_url)
    try:
        letter = await connection.fetchval(
            "INSERT INTO dead_letters (reason, detail, subject, stream_seq, data) VALUES ('poison', '', 's', 1, 'x') "
            "RETURNING id"
        )
        retried = await house.bidding("dead-letters", "retry", str(letter))
        assert retried.returncode == 1, "it is no message"
        login = await connection.fetchval("SELECT session_user")
    finally:
        await connection.execute("DELETE FROM dead_letters")
        await connection.close()
    told = (await house.acts())["acts"]
    assert len(told) == before + 3, "what could not be revoked was not"
    assert [(act["act"], act["target"], act["reason"]) for act in told[:3]] == [
        ("retry_dead_letter", str(letter), ""),
        ("revoke_api_key", key_id, REASON),
        ("create_api_key", key_id, ""),
    ]
    assert [act["by"] for act in told[1:3]] == ["olga", "olga"]
    assert told[0]["by"], "who is signed in here"
    assert {act["login"] for act in told[:3]} == {login}
    shown = await house.bidding("acts", "--limit", "2")
    assert REASON in shown.stdout
    assert "create_api_key" not in shown.stdout
    assert f"--before {told[1]['id']}" in shown.stderr
    everything = await house.bidding("acts", "--json")
    assert [act["act_id"] for act in json.loads(everything.stdout)] == [act["id"] for act in told]
    assert secret not in everything.stdout


async def test_a_lost_shard_keeps_no_token_alive_and_who_rebuilds_is_recorded(house: House) -> None:
    seller = house.headers("sam", "seller")
    made = await house.http.post("/api/v1/items", json={"id": "lamp", "name": "A lamp"}, headers=seller)
    assert made.status_code == 201, made.text
    shard = shard_of_key(REVOCATIONS_KEY)
    assert shard is not None
    connection = await asyncpg.connect(house.stack.urls.postgres_url)
    redis = Redis.from_url(house.stack.urls.redis_url, protocol=2)
    try:

        async def is_archived() -> bool:
            return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM items WHERE item_id = 'lamp')"))

        await eventually(is_archived)
        await redis.flushall()
        assert not await redis.exists(cursors_key(shard))
        headers = house.headers("oda", "operator")
        done = await house.http.post("/api/v1/revocations", json={"user_id": "eve"}, headers=headers)
        assert (done.status_code, done.json()["recorded"]) == (201, False), done.text
        known = house.headers("eve", "bidder")
        assert (await house.http.get("/api/v1/me", headers=known)).status_code == 401
    finally:
        await redis.aclose()
        await connection.close()
    rebuilt = await house.bidding("recover", "--settle-s", "0", "--by", "olga", "--reason", "a test")
    assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
    page = await house.acts(limit=40)
    rest = await house.acts(limit=200, before=page["next_before"])
    assert rest["next_before"] is None
    made_by = [act for act in page["acts"] + rest["acts"] if act["act"] == "recover_shard"]
    assert {act["target"] for act in made_by} == set(SHARDS)
    assert {(act["by"], act["reason"]) for act in made_by} == {("olga", "a test")}
