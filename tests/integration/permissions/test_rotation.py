"""Passwords of services at Redis, NATS and PostgreSQL are replaced while bids go on, as docs/security.md says."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx2 as httpx
import nats.errors
import pytest
from redis.exceptions import AuthenticationError

from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared.clients.nats import NatsLink
from shared.clients.redis import open_redis
from shared.permissions.accounts import Account, Login
from shared.permissions.nats_users import users_of_nats
from shared.server_urls import credentials_of, password_of, with_credentials
from tests.integration.loss.recover_world import house_of
from tests.preforked import run_forked
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

CHANGED = (Account.GATEWAY, Account.ARCHIVER)
ITEMS = [f"lot-{number}" for number in range(8)]
NEXT = "_b"
URLS = ("REDIS_URL", "NATS_URL", "POSTGRES_URL")
BEFORE, AFTER = 40, 40


@dataclass
class Bidders:
    """They bid all the while, each up to a hundred times a second, at whatever gateway is in service, and repeat
    nothing."""

    url: str
    accepted: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def run(self, item_id: str) -> None:
        async with httpx.AsyncClient(timeout=60) as http:
            for number in range(1, 100_000):
                await asyncio.sleep(0.01)
                bid_id = f"{item_id}-{number}"
                body = {"user_id": f"u{number % 7}", "bid_id": bid_id, "amount": number}
                try:
                    answer = await http.post(f"{self.url}/api/v1/items/{item_id}/bid", json=body)
                except httpx.HTTPError as error:
                    self.failed.append(f"{bid_id}: {error!r}")
                    continue
                (self.accepted if answer.status_code == 201 else self.failed).append(
                    bid_id if answer.status_code == 201 else f"{bid_id}: {answer.status_code} {answer.text}"
                )

    async def so_many_more(self, count: int) -> None:
        wanted = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= wanted or bool(self.failed), "more bids", seconds=60)
        assert self.failed == []


@asynccontextmanager
async def bidding_at(url: str) -> AsyncIterator[Bidders]:
    bidders = Bidders(url)
    tasks = [asyncio.create_task(bidders.run(item_id)) for item_id in ITEMS]
    try:
        yield bidders
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def logins_at_nats(stack: Stack, passwords: dict[Account, str], *, with_old: bool) -> dict[Account, list[Login]]:
    """All accounts, those that change under a second name too."""
    found: dict[Account, list[Login]] = {}
    for account in Account:
        old = Login(account.value, [password_of(stack.env_of(account)["NATS_URL"])])
        new = [Login(account.value + NEXT, [passwords[account]])] if account in passwords else []
        found[account] = ([old] if with_old or not new else []) + new
    return found


def reload_nats(stack: Stack, passwords: dict[Account, str], *, with_old: bool) -> None:
    path = stack.data_dir / "config" / "nats.conf"
    owner = credentials_of(stack.urls.nats_url)
    assert owner is not None
    users = users_of_nats(
        logins_at_nats(stack, passwords, with_old=with_old),
        open_to_all=False,
        owners=[Login(owner[0], [owner[1]])],
    )
    path.write_text(path.read_text().partition("authorization {")[0] + users)
    stack.kill("nats", signal.SIGHUP)


async def login_at_postgres(stack: Stack, account: Account, user: str, *options: str, password: str = "") -> None:
    env = stack.service_env | {"LOGIN_PASSWORD": password}
    code, text = await run_forked(ARCHIVAL_WORKER, "login", account.value, user, *options, env=env)
    assert code == 0, text


def urls_with(stack: Stack, account: Account, password: str) -> dict[str, str]:
    """Redis keeps the user and has two passwords; the others have a second user."""
    plain = {name: without_login(stack.env_of(account)[name]) for name in URLS}
    users = {"REDIS_URL": account.value, "NATS_URL": account.value + NEXT, "POSTGRES_URL": account.value + NEXT}
    return {name: with_credentials(url, user=users[name], password=password) for name, url in plain.items()}


def without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def may_log_in(urls: dict[str, str]) -> list[bool]:
    """At Redis, NATS and PostgreSQL."""
    found = []
    async with open_redis(urls["REDIS_URL"]) as redis:
        try:
            await redis.ping()
            found.append(True)
        except AuthenticationError:
            found.append(False)
    link = NatsLink(urls["NATS_URL"], name="test", timeout_s=3)
    with contextlib.suppress(ConnectionError, nats.errors.Error):
        await link.connected()
    found.append(link.is_connected)
    await link.close()
    try:
        await (await asyncpg.connect(urls["POSTGRES_URL"], timeout=30)).close()
        found.append(True)
    except asyncpg.InvalidAuthorizationSpecificationError:
        found.append(False)
    return found


async def test_all_passwords_are_replaced_and_no_bid_notices(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env={"CLOSED_SERVERS": "true"})
    old = {
        account: {k: stack.env_of(account)[k] for k in ("REDIS_URL", "NATS_URL", "POSTGRES_URL")} for account in CHANGED
    }
    passwords = {account: secrets.token_hex(16) for account in CHANGED}
    new = {account: urls_with(stack, account, passwords[account]) for account in CHANGED}
    gateway_port, archiver_port = free_ports(2)
    async with house_of(stack) as house, bidding_at(stack.urls.gateway_url) as bidders:
        redis: Any = house.redis
        await bidders.so_many_more(BEFORE)

        # 1. The servers take both.
        for account, password in passwords.items():
            await redis.execute_command("ACL", "SETUSER", account.value, f">{password}")
            await login_at_postgres(stack, account, account.value + NEXT, password=password)
        await redis.execute_command("ACL", "SAVE")
        reload_nats(stack, passwords, with_old=True)
        await bidders.so_many_more(BEFORE)

        # 2. The services change over, one after the other. Whatever sends requests to gateways names the new one first.
        port = {"GATEWAY_PORT": str(gateway_port)}
        await stack.add_service("new gateway", API_GATEWAY, gateway_port, new[Account.GATEWAY] | port)
        bidders.url = f"http://127.0.0.1:{gateway_port}"
        await bidders.so_many_more(BEFORE)
        await stack.stop_process(API_GATEWAY)
        port = {"ARCHIVER_PORT": str(archiver_port)}
        await stack.add_service("new archiver", ARCHIVAL_WORKER, archiver_port, new[Account.ARCHIVER] | port)
        await stack.stop_process(ARCHIVAL_WORKER)

        # 3. The old ones are taken away.
        for account, urls in old.items():
            await redis.execute_command("ACL", "SETUSER", account.value, f"<{password_of(urls['REDIS_URL'])}")
            await login_at_postgres(stack, account, account.value, "--remove")
        await redis.execute_command("ACL", "SAVE")
        reload_nats(stack, passwords, with_old=False)
        await bidders.so_many_more(AFTER)
        for account in CHANGED:

            async def are_out(urls: dict[str, str] = old[account]) -> bool:
                return await may_log_in(urls) == [False, False, False]

            await eventually(are_out, "the old passwords are refused", seconds=60)
            assert await may_log_in(new[account]) == [True, True, True]
        await bidders.so_many_more(AFTER)
        # A server that is started again has the new ones alone.
        acl = (stack.data_dir / "config" / "redis-users.acl").read_text()
        assert acl.count("user gateway on") == 1

    assert bidders.failed == []
    async with house_of(stack) as house:
        await house.all_archived()
        rows = await house.query("SELECT bid_id FROM bids WHERE kind <> 'proxy'")
        assert set(bidders.accepted) <= {row["bid_id"] for row in rows}
