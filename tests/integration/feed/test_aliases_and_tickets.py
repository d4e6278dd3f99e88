"""With ``AUTH_MODE=jwt``: nobody is told who bids, bidders are told which alias is theirs, and a ticket says who
somebody is on the feed."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from infrastructure.local.demo.bidders import Offer
from infrastructure.local.demo.gateway import Gateway
from infrastructure.local.demo.lots import LotPlanner
from infrastructure.local.demo.tokens import Tokens
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from shared.feed_client.client import FeedClient
from shared.feed_client.updates import Authenticated, ItemUpdate, Refused, Standing
from shared.identity.once import once_key
from shared.identity.tokens import Role
from tests.integration.feed.feed_world import Json, ws_url
from tests.integration.feed.test_private_channel import Bidder
from tests.integration.feed.test_sse import stream
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ANN, BOB = "ann.of-the-mill", "bob.of-the-well"
"""Names that are found wherever they appear."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    factory = StackFactory()
    try:
        yield await factory(env={"AUTH_MODE": "jwt"})
    finally:
        await factory.close()


class Api:
    """The gateway, as different people reach it."""

    def __init__(self, http: httpx.AsyncClient, key: Any) -> None:
        self.http = http
        self._key = key

    async def call(self, user: str, role: Role, method: str, path: str, body: Any = None, ttl_s: int = 600) -> Json:
        token = signed_token(self._key, user, [role.value], ttl_s=ttl_s, environment={})
        headers = {"authorization": f"Bearer {token}"}
        answer = await self.http.request(method, f"/api/v1/{path}", json=body, headers=headers)
        assert answer.status_code in (200, 201), answer.text
        told: Json = answer.json()
        return told

    async def item(self, **terms: Any) -> str:
        made = await self.call("oda", Role.OPERATOR, "POST", "items", {"name": "A vase", **terms})
        return str(made["id"])

    async def bid(self, item: str, user: str, **content: Any) -> Json:
        return await self.call(user, Role.BIDDER, "POST", f"items/{item}/bid", content)

    async def ticket(self, user: str, ttl_s: int = 600) -> str:
        told = await self.call(user, Role.BIDDER, "POST", "feed-ticket", {}, ttl_s)
        assert told["expires_in"] == 30
        return str(told["ticket"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(stack: Stack) -> AsyncIterator[Api]:
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
        yield Api(http, signing_key(stack.data_dir))


async def test_what_everybody_sees_names_nobody(stack: Stack, api: Api) -> None:
    item = await api.item(buy_now_price=1_000, reserve_price=900)
    async with (
        Bidder.at(stack, f"/ws/items/{item}?feed=full") as full,
        Bidder.at(stack, f"/ws/items/{item}") as plain,
        stream(stack, f"/sse/items/{item}?feed=full") as events,
        Bidder.at(stack, "/ws") as ann,
    ):
        await ann.say(op="authenticate", ticket=await api.ticket(ANN))
        assert (await ann.next_of("authenticated"))["user_id"] == ANN
        await ann.say(op="subscribe", items=[item])
        assert await ann.standing() == "none"
        for viewer in (full, plain, events):
            await viewer.next_of("snapshot")
        await api.bid(item, ANN, max_amount=50)
        struck = await api.bid(item, BOB, amount=60)
        await api.call("oda", Role.OPERATOR, "POST", f"items/{item}/bids/{struck['bid_id']}/void", {"reason": "a test"})
        await api.call("oda", Role.OPERATOR, "POST", f"items/{item}/pause", {"reason": "a test"})
        await api.call("oda", Role.OPERATOR, "POST", f"items/{item}/resume", {"reason": "a test"})
        await api.bid(item, BOB, amount=1_000)
        closed = await full.next_of("closed")
        await plain.next_of("closed")
        told = [await events.next()]
        while told[-1].kind != "closed":
            told.append(await events.next())
        while (mine := await ann.next_of("standing"))["standing"] != "lost":
            assert mine["standing"] in ("none", "leading", "outbid")

    frames = [json.loads(text) for text in full.texts]
    alias_of_ann, alias_of_bob = mine["alias"], closed["winner"]
    assert alias_of_ann != alias_of_bob
    bids = [frame for frame in frames if frame["type"] == "bid"]
    assert {frame["user_id"] for frame in bids} == {alias_of_ann, alias_of_bob}
    assert all(frame["user_id"] == frame["bidder"] for frame in bids)
    assert all(frame["highest_bidder_id"] == frame["highest_bidder"] for frame in bids)
    [void] = [frame for frame in frames if frame["type"] == "voided"]
    assert (void["user_id"], void["bidder"]) == (alias_of_bob, alias_of_bob)
    assert (closed["winner_id"], closed["highest_bidder_id"]) == (alias_of_bob, alias_of_bob)

    async def is_archived() -> bool:
        listed = (await api.http.get("/api/v1/items", params={"status": "sold"})).json()["items"]
        return any(each["id"] == item for each in listed)

    await eventually(is_archived)
    read = [
        (await api.http.get(path)).text
        for path in (
            f"/api/v1/items/{item}",
            f"/api/v1/items/{item}?may_open=false&x=1",  # not by the direct road
            f"/api/v1/items/{item}/bids",
            "/api/v1/items?status=sold",
            "/metrics",
            "/ready",
        )
    ]
    said = [*full.texts, *plain.texts, *(json.dumps(each.data) for each in told), *read]
    assert [text for text in said if ANN in text or BOB in text] == []
    assert [text for text in ann.texts if BOB in text] == []
    assert [json.loads(text)["type"] for text in ann.texts if ANN in text] == ["authenticated"]


async def test_operators_and_auditors_are_told_the_names(api: Api) -> None:
    item = await api.item(buy_now_price=100)
    await api.bid(item, ANN, max_amount=50)
    await api.bid(item, BOB, amount=100)
    for user, role in (("oda", Role.OPERATOR), ("aud", Role.AUDITOR)):
        page = await api.call(user, role, "GET", f"items/{item}/named-bids?limit=1")
        assert [bid["user_id"] for bid in page["bids"]] == [BOB]
        rest = await api.call(user, role, "GET", f"items/{item}/named-bids?cursor={page['next_cursor']}")
        assert [bid["user_id"] for bid in rest["bids"]] == [ANN]
    public = (await api.http.get(f"/api/v1/items/{item}/bids")).json()["bids"]
    assert public == [{name: bid[name] for name in public[0]} for bid in (*page["bids"], *rest["bids"])]


async def test_a_ticket_is_good_once_and_for_half_a_minute(stack: Stack, api: Api) -> None:
    item = await api.item()
    ticket = await api.ticket(ANN)
    assert len(ticket) == 22
    async with Redis.from_url(stack.urls.redis_url) as redis:
        left_ms = await redis.pttl(once_key("feed-ticket", ticket))
        assert 20_000 < left_ms <= 30_000
        keys = [key async for key in redis.scan_iter(match="*:once:*")]
        assert keys
        assert ticket.encode() not in b" ".join(keys), "who reads Redis' keys has no ticket"
    async with Bidder.at(stack, f"/ws/items/{item}") as ann, Bidder.at(stack, f"/ws/items/{item}") as thief:
        await ann.say(op="authenticate", ticket=ticket)
        assert (await ann.next_of("authenticated"))["user_id"] == ANN
        for said in (ticket, secrets.token_urlsafe(16), "short", "feed-ticket:*"):
            await thief.say(op="authenticate", ticket=said)
            assert (await thief.next_of("error"))["code"] == "TICKET_INVALID"
        await thief.say(op="authenticate", ticket=await api.ticket(BOB), token="x")
        assert (await thief.next_of("error"))["code"] == "OPERATION_INVALID"
        await thief.say(op="standing", items=[item])
        assert (await thief.next_of("error"))["code"] == "NOT_AUTHENTICATED"
        # Its owner is told the maximum, and nobody else.
        await api.bid(item, ANN, max_amount=70)
        while (told := await ann.next_of("standing"))["your_maximum"] is None:
            pass
        assert (told["standing"], told["your_maximum"]) == ("leading", 70)
        await thief.pong()
        assert '"standing"' not in "".join(thief.texts)


async def test_a_session_ends_with_the_token_that_the_ticket_was_asked_for_with(stack: Stack, api: Api) -> None:
    item = await api.item()
    async with Bidder.at(stack, f"/ws/items/{item}") as ann:
        await ann.say(op="authenticate", ticket=await api.ticket(ANN, ttl_s=4))
        await ann.next_of("authenticated")
        assert (await ann.next_of("error"))["code"] == "TOKEN_EXPIRED"


async def test_a_session_ends_when_the_tokens_of_its_user_are_revoked(stack: Stack, api: Api) -> None:
    """Whether it was begun by a ticket or by a feed token; what others are told goes on."""
    item = await api.item()
    zoe, yan = "zoe-who-is-revoked", "yan-who-is-not"
    token = await api.call(zoe, Role.BIDDER, "POST", "feed-token", {})
    async with (
        Bidder.at(stack, f"/ws/items/{item}") as by_ticket,
        Bidder.at(stack, f"/ws/items/{item}") as by_token,
        Bidder.at(stack, f"/ws/items/{item}") as other,
    ):
        await by_ticket.say(op="authenticate", ticket=await api.ticket(zoe))
        await by_token.say(op="authenticate", token=token["token"])
        await other.say(op="authenticate", ticket=await api.ticket(yan))
        for each in (by_ticket, by_token, other):
            await each.next_of("authenticated")
        await api.call("oda", Role.OPERATOR, "POST", "revocations", {"user_id": zoe})
        for each in (by_ticket, by_token):
            assert (await each.next_of("error"))["code"] == "TOKEN_EXPIRED"
        # The feed token is good for another hour by itself, and begins no session that lasts.
        await by_token.say(op="authenticate", token=token["token"])
        assert (await by_token.next_of("error"))["code"] == "TOKEN_EXPIRED"
        await other.pong()
        assert "TOKEN_EXPIRED" not in "".join(other.texts)


async def test_no_token_is_taken_in_an_address(stack: Stack, api: Api) -> None:
    item = await api.item()
    told = await api.call(ANN, Role.BIDDER, "POST", "feed-token", {})
    for path in (f"/ws/items/{item}", "/ws"):
        with pytest.raises(InvalidStatus) as refused:
            await connect(ws_url(stack, f"{path}?token={told['token']}"), proxy=None)
        answer = refused.value.response
        assert (answer.status_code, json.loads(answer.body or b"")["code"]) == (422, "TOKEN_IN_ADDRESS")
    async with httpx.AsyncClient(base_url=stack.urls.broadcast_url) as http:
        events = await http.get(f"/sse/items/{item}", params={"token": told["token"]})
        assert (events.status_code, events.json()["code"]) == (422, "TOKEN_IN_ADDRESS")
    async with Bidder.at(stack, f"/ws/items/{item}") as ann:
        await ann.say(op="authenticate", token=told["token"])
        assert (await ann.next_of("authenticated"))["user_id"] == ANN


async def test_nobody_fills_redis_with_tickets(api: Api) -> None:
    async def ask() -> int:
        token = signed_token(api._key, "greedy", ["bidder"], ttl_s=600, environment={})
        answer = await api.http.post("/api/v1/feed-ticket", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 201 or answer.headers["retry-after"] == "1", answer.text
        return answer.status_code

    began_s = time.monotonic()
    statuses = [await ask() for _ in range(80)]
    most = 40 + 2 * (time.monotonic() - began_s) + 1
    assert 40 <= statuses.count(201) <= most
    assert set(statuses) == {201, 503}
    assert await api.ticket(ANN), "others are not refused"


async def test_the_python_client_gets_a_ticket_for_each_connection(stack: Stack, api: Api) -> None:
    item = await api.item()
    given: list[str] = []

    async def new_ticket() -> str:
        if given:
            raise OSError("the house does not answer")
        given.append(await api.ticket(ANN, ttl_s=4))
        return given[0]

    client = FeedClient(stack.urls.broadcast_url, [item], new_ticket=new_ticket)
    async with client as feed, asyncio.timeout(60):
        seen: list[Any] = []
        async for update in feed:
            seen.append(update)
            if isinstance(update, Standing) and update.standing == "none":
                await api.bid(item, ANN, amount=5)
            if isinstance(update, Refused) and update.code == "NO_TICKET":
                break
    assert [each.user_id for each in seen if isinstance(each, Authenticated)] == [ANN]
    [leading] = [each for each in seen if isinstance(each, Standing) and each.standing == "leading"]
    [shown] = [each for each in seen if isinstance(each, ItemUpdate) and each.version[1] == 1]
    assert shown.item["highest_bidder"] == leading.alias
    codes = [each.code for each in seen if isinstance(each, Refused)]
    assert codes == ["TOKEN_EXPIRED", "NO_TICKET"]


async def test_the_demo_s_bidders_know_who_leads(stack: Stack, api: Api) -> None:
    """Or they would bid against themselves: everybody else is told an alias."""
    [lot] = LotPlanner(random.Random(1), secrets.token_hex(4)).first(1)
    demo = Gateway(api.http, Tokens(api._key, {}))
    view = await demo.open(lot)
    assert (await demo.look(lot)).leader is None
    await demo.bid(lot, ANN, Offer(amount=view.minimum))
    assert (await demo.look(lot)).leader == ANN
    await demo.bid(lot, BOB, Offer(maximum=view.minimum * 3))
    assert (await demo.look(lot)).leader == BOB
