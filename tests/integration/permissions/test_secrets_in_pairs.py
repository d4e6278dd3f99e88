"""The platform's own secrets are replaced while bids, feeds and services go on, as docs/security.md says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2 as httpx
import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE
from infrastructure.local.stack import Stack
from shared.feed_tokens import Identity, mint
from shared.timefmt import to_rfc3339
from tests.preforked import run_forked
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

NAMES = ("ALIAS_SECRET", "API_KEY_SECRET", "AUTH_HS256_SECRET", "FEED_TOKEN_SECRET")
OLD = {name: f"old {name}".ljust(32, "o") for name in NAMES}
NEW = {name: f"new {name}".ljust(32, "n") for name in NAMES}
WHO = {"AUTH_MODE": "jwt", "AUTH_ISSUER": "a site", "AUTH_AUDIENCE": "bidding"}
UNBOUNDED = {"GATEWAY_CALLER_RATE_MAX": "0", "GATEWAY_ADDRESS_RATE_MAX": "0"}
LATER = "2100-01-01T00:00:00Z"
MORE = 20


def pairs(since: str) -> dict[str, str]:
    return NEW | {f"{name}_ALSO": old for name, old in OLD.items()} | {f"{name}_SINCE": since for name in NAMES}


def token(secrets: dict[str, str], user: str, *roles: str) -> dict[str, str]:
    """The header with a token of the issuer, who has these secrets."""
    now_s = int(time.time())
    claims = {"iss": "a site", "aud": "bidding", "sub": user, "roles": roles, "iat": now_s, "exp": now_s + 600}
    return {"authorization": f"Bearer {jwt.encode(claims, secrets['AUTH_HS256_SECRET'], algorithm='HS256')}"}


def feed_token(secrets: dict[str, str], user: str) -> str:
    return mint(secrets["FEED_TOKEN_SECRET"], Identity(user, int(time.time()) + 600))


@dataclass
class Side:
    """A gateway and a broadcaster with the same settings."""

    api: str
    feed: str

    @classmethod
    async def start(cls, stack: Stack, name: str, env: dict[str, str]) -> Side:
        gateway, feed = free_ports(2)
        await stack.add_service(f"{name} gateway", API_GATEWAY, gateway, env | {"GATEWAY_PORT": str(gateway)})
        await stack.add_service(f"{name} feed", BROADCAST_SERVICE, feed, env | {"BROADCAST_PORT": str(feed)})
        return cls(f"http://127.0.0.1:{gateway}", f"ws://127.0.0.1:{feed}")

    async def also_used(self) -> dict[str, float]:
        """How often each secret that is being replaced was needed."""
        found: dict[str, float] = {}
        async with httpx.AsyncClient() as http:
            for address in (self.api, self.feed.replace("ws:", "http:")):
                text = (await http.get(f"{address}/metrics")).text
                told = re.findall(r'^[a-z]+_secret_also_used_total\{secret="(\w+)"\} (\S+)$', text, re.MULTILINE)
                for name, total in told:
                    found[name] = found.get(name, 0) + float(total)
        return found


@dataclass
class Traffic:
    """Bidders, viewers and a service, who go on without a pause on whatever side is in front.

    ``secrets``: what issuer and site sign with. Whoever is refused stands in ``refused``.
    """

    side: Side
    item: str
    key: str
    secrets: dict[str, str]
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("bids", "viewers", "exchanges"), 0))
    refused: list[str] = field(default_factory=list)

    async def bid(self, http: httpx.AsyncClient) -> None:
        number = self.done["bids"] + 1
        headers = token(self.secrets, f"u{number % 3}", "bidder")
        path = f"{self.side.api}/api/v1/items/{self.item}/bid"
        answer = await http.post(path, json={"amount": number, "bid_id": f"b-{number}"}, headers=headers)
        self.judge("bids", answer.status_code == 201, answer.text)

    async def view(self, http: httpx.AsyncClient) -> None:
        with contextlib.suppress(ConnectionClosed):  # a broadcaster that stops sends its viewers to another one
            async with connect(f"{self.side.feed}/ws/items/{self.item}") as socket:
                await socket.send(json.dumps({"op": "authenticate", "token": feed_token(self.secrets, "u1")}))
                while (frame := json.loads(await socket.recv()))["type"] not in ("authenticated", "error"):
                    pass
                self.judge("viewers", frame["type"] == "authenticated", str(frame))

    async def exchange(self, http: httpx.AsyncClient) -> None:
        given = await http.post(f"{self.side.api}/api/v1/token", headers={"authorization": f"ApiKey {self.key}"})
        headers = {"authorization": f"Bearer {given.json().get('access_token')}"}
        me = await http.get(f"{self.side.api}/api/v1/me", headers=headers)
        self.judge("exchanges", (given.status_code, me.status_code) == (201, 200), given.text + me.text)

    def judge(self, what: str, is_good: bool, text: str) -> None:
        if is_good:
            self.done[what] += 1
        else:
            self.refused.append(f"{what}: {text}")

    async def goes_on(self) -> None:
        """Some more of each, and nobody was refused."""
        wanted = {what: count + MORE for what, count in self.done.items()}
        await eventually(
            lambda: bool(self.refused) or all(self.done[what] >= count for what, count in wanted.items()),
            "more bids, viewers and exchanges",
            seconds=60,
        )
        assert self.refused == []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def forever(one: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
            async with httpx.AsyncClient(timeout=60) as http:
                while not self.refused:
                    await one(http)
                    await asyncio.sleep(0.05)

        tasks = [asyncio.create_task(forever(one)) for one in (self.bid, self.view, self.exchange)]
        try:
            yield
            assert [task for task in tasks if task.done()] == [], "none gave up"
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def new_item(side: Side, secrets: dict[str, str]) -> str:
    async with httpx.AsyncClient() as http:
        made = await http.post(
            f"{side.api}/api/v1/items", json={"name": "A vase"}, headers=token(secrets, "oda", "operator")
        )
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def new_api_key(stack: Stack, env: dict[str, str]) -> str:
    arguments = ("api-keys", "create", "A service", "--user", "house", "--role", "seller")
    code, text = await run_forked(ARCHIVAL_WORKER, *arguments, env=stack.service_env | env)
    assert code == 0, text
    return text.split()[-1]


async def alias_of_u1(side: Side, item: str, secrets: dict[str, str]) -> set[str]:
    """The alias as everybody sees it in the history and in the feed, and as u1 is told it."""
    async with httpx.AsyncClient() as http:
        page = (await http.get(f"{side.api}/api/v1/items/{item}/bids", params={"limit": 200})).json()
        named = await http.get(
            f"{side.api}/api/v1/items/{item}/named-bids",
            params={"limit": 200},
            headers=token(secrets, "oda", "operator"),
        )
    mine = {bid["bid_id"] for bid in named.json()["bids"] if bid["user_id"] == "u1"}
    found = {bid["bidder"] for bid in page["bids"] if bid["bid_id"] in mine}
    async with connect(f"{side.feed}/ws/items/{item}?feed=full&since=1:0") as socket:
        await socket.send(json.dumps({"op": "authenticate", "token": feed_token(secrets, "u1")}))
        while (frame := json.loads(await socket.recv()))["type"] != "standing":
            if frame.get("bid_id") in mine:
                found |= {frame["bidder"], frame["user_id"]}
        found.add(frame["alias"])
    return found


async def statuses(side: Side, secrets: dict[str, str], key: str) -> list[object]:
    """What becomes of a token of the issuer, an API key, and a feed token."""
    async with httpx.AsyncClient() as http:
        me = await http.get(f"{side.api}/api/v1/me", headers=token(secrets, "ann", "bidder"))
        given = await http.post(f"{side.api}/api/v1/token", headers={"authorization": f"ApiKey {key}"})
    async with connect(f"{side.feed}/ws") as socket:
        await socket.send(json.dumps({"op": "authenticate", "token": feed_token(secrets, "ann")}))
        while (frame := json.loads(await socket.recv()))["type"] not in ("authenticated", "error"):
            pass
    return [me.status_code, given.status_code, frame.get("code", frame["type"])]


async def test_all_secrets_are_replaced_and_nobody_is_refused(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY, BROADCAST_SERVICE), env=WHO | UNBOUNDED | OLD)
    before = Side(stack.urls.gateway_url, f"ws://127.0.0.1:{stack.ports.broadcast}")
    old_key = await new_api_key(stack, {})
    item = await new_item(before, OLD)
    traffic = Traffic(before, item, old_key, OLD)
    async with traffic.running():
        await traffic.goes_on()
        [alias] = await alias_of_u1(before, item, OLD)

        # 1. Services change over one after the other. Until the instant, both sorts believe each other.
        both = await Side.start(stack, "both", pairs(LATER))
        traffic.side = Side(both.api, before.feed)
        await traffic.goes_on()
        async with httpx.AsyncClient() as http:
            given = await http.post(f"{both.api}/api/v1/token", headers={"authorization": f"ApiKey {old_key}"})
            of_both = {"authorization": f"Bearer {given.json()['access_token']}"}
            assert (await http.get(f"{before.api}/api/v1/me", headers=of_both)).status_code == 200
        traffic.side = Side(before.api, both.feed)
        await traffic.goes_on()
        assert await alias_of_u1(both, item, OLD) == {alias}
        traffic.side = both
        for name in (API_GATEWAY, BROADCAST_SERVICE):
            await stack.stop_process(name)
        await traffic.goes_on()

        # 2. The instant is past. (These processes have it behind them; those of before would have got there.)
        since = to_rfc3339(int(time.time() * 1_000_000))
        after = await Side.start(stack, "after", pairs(since))
        traffic.side = after
        for name in ("both gateway", "both feed"):
            await stack.stop_process(name)
        await traffic.goes_on()
        assert min((await after.also_used()).values()) > 0, "the old ones are in use still"
        assert await alias_of_u1(after, item, OLD) == {alias}, "an item keeps its names"
        code, text = await run_forked(ARCHIVAL_WORKER, "api-keys", "list", env=stack.service_env | pairs(since))
        assert (code, text.count("to be replaced")) == (0, 1), text

        # 3. Issuer, site and service take theirs.
        new_key = await new_api_key(stack, pairs(since))
        traffic.secrets, traffic.key = NEW, new_key
        await traffic.goes_on()
        assert await statuses(after, OLD, old_key) == [200, 201, "authenticated"]
        used = await after.also_used()
        await traffic.goes_on()
        still = await after.also_used()
        assert {name for name in NAMES if still[name] > used[name]} <= {"ALIAS_SECRET"}, "nobody needs the old ones"

        # 4. The old ones are taken away.
        alone = await Side.start(stack, "alone", NEW)
        traffic.side = alone
        for name in ("after gateway", "after feed"):
            await stack.stop_process(name)
        await traffic.goes_on()
        assert await statuses(alone, NEW, new_key) == [200, 201, "authenticated"]
        assert await statuses(alone, OLD, old_key) == [401, 401, "TOKEN_INVALID"]
        assert await alone.also_used() == {}
        renamed = await alias_of_u1(alone, item, NEW)
        assert len(renamed) == 1
        assert renamed != {alias}, "an item of before is named by the new one now"
