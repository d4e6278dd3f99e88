"""The private channel with the whole platform: tokens of the gateway, bids over HTTP, standings on the feed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any, Self, cast

import httpx2 as httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from infrastructure.local.services import BROADCAST_SERVICE
from infrastructure.local.stack import Stack
from shared.feed_tokens import Identity, mint
from shared.redis_layout.keys import bidders_key, item_key, recent_key
from tests.integration.feed.feed_world import PATIENCE_S, Json, another_feed, ws_url
from tests.integration.feed.test_sse import stream
from tests.stack import StackFactory

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[Stack]:
    factory = StackFactory()
    try:
        yield await factory()
    finally:
        await factory.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(world: Stack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.urls.gateway_url, timeout=30) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def redis(world: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(world.urls.redis_url) as client:
        yield client


def token(world: Stack, user: str, *, seconds: float = 600, sees_maximum: bool = False) -> str:
    """A token as the operator's own site signs it."""
    identity = Identity(user, int(time.time() + seconds), sees_maximum=sees_maximum)
    return mint(world.service_env["FEED_TOKEN_SECRET"], identity)


async def open_item(http: httpx.AsyncClient, **terms: Any) -> str:
    item = f"private-{uuid.uuid4().hex[:12]}"
    answer = await http.post("/api/v1/items", json={"id": item, "name": "A vase", **terms})
    assert answer.status_code == 201, answer.text
    return item


async def bid(http: httpx.AsyncClient, item: str, user: str, **amounts: float) -> Json:
    answer = await http.post(f"/api/v1/items/{item}/bid", json={"user_id": user, **amounts})
    assert answer.status_code == 201, answer.text
    body: Json = answer.json()
    return body


class Bidder:
    """One connection, which keeps all texts that it got."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.texts: list[str] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, world: Stack, path: str, port: int | None = None) -> AsyncIterator[Self]:
        async with connect(ws_url(world, path, port)) as socket:
            yield cls(socket)

    async def next_of(self, *kinds: str) -> Json:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                text = await self.socket.recv()
                assert isinstance(text, str)
                self.texts.append(text)
                frame: Json = json.loads(text)
                if frame["type"] in kinds:
                    return frame

    async def standing(self) -> str:
        standing: str = (await self.next_of("standing"))["standing"]
        return standing

    async def say(self, **operation: Any) -> None:
        await self.socket.send(json.dumps(operation))

    async def pong(self) -> None:
        """Read everything that was sent up to now."""
        await self.say(op="ping")
        await self.next_of("pong")


def watch(item: str, bearer: str | None = None) -> str:
    return f"/ws/items/{item}" + (f"?token={bearer}" if bearer else "")


# ---------------------------------------------------------------------------------------------- tokens of the gateway


async def test_the_gateway_gives_tokens_that_the_feed_believes(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    answer = await http.post("/api/v1/feed-token", json={"user_id": "ann"})
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["expires_in"] == 3600
    async with Bidder.at(world, watch(item, body["token"])) as ann:
        authenticated = await ann.next_of("authenticated")
        assert (authenticated["user_id"], authenticated["expires"]) == ("ann", body["expires"])
        standing = await ann.next_of("standing")
        assert standing.items() >= {"item_id": item, "standing": "none", "your_maximum": None, "seq": 0}.items()
        kinds = [json.loads(text)["type"] for text in ann.texts]
        assert kinds.index("snapshot") < kinds.index("standing"), "after the first frame about the item"


@pytest.mark.parametrize("body", [{}, {"user_id": "white space"}, {"user_id": 7}, {"user_id": "a", "maximum": True}])
async def test_a_token_needs_a_user_id_and_nothing_else(http: httpx.AsyncClient, body: Json) -> None:
    answer = await http.post("/api/v1/feed-token", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID")


async def test_a_gateway_that_does_not_know_who_asks_gives_no_token(start_stack: StackFactory) -> None:
    stack = await start_stack(services=("api_gateway",), env={"OPEN_IDENTITY": "false"})
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http:
        answer = await http.post("/api/v1/feed-token", json={"user_id": "ann"})
    assert (answer.status_code, answer.json()["code"]) == (403, "IDENTITY_REQUIRED")


# ----------------------------------------------------------------------------------------------------- standings


async def test_from_nothing_to_leading_to_outbid_to_won(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http, reserve_price=90, buy_now_price=100)
    async with (
        Bidder.at(world, watch(item, token(world, "ann"))) as ann,
        Bidder.at(world, watch(item, token(world, "bob"))) as bob,
    ):
        assert [await ann.standing(), await bob.standing()] == ["none", "none"]
        await bid(http, item, "ann", amount=10)
        leading = await ann.next_of("standing")
        assert leading.items() >= {"standing": "leading", "current_bid": 10.0, "min_next_bid": 10.01}.items()
        await bid(http, item, "bob", amount=20)
        assert [await ann.standing(), await bob.standing()] == ["outbid", "leading"]
        await bid(http, item, "ann", amount=100)
        assert [await ann.standing(), await bob.standing()] == ["won", "lost"]


async def assert_newcomers(world: Stack, item: str, **standings: str) -> None:
    """The standings of these users on new connections."""
    for user, standing in standings.items():
        async with Bidder.at(world, watch(item, token(world, user))) as bidder:
            assert await bidder.standing() == standing, user


async def test_who_bid_earlier_is_outbid_at_once_on_a_new_connection(
    world: Stack, http: httpx.AsyncClient, redis: Redis
) -> None:
    """Also a bidder who never left a maximum, however long ago the bid was."""
    item = await open_item(http, reserve_price=90, buy_now_price=100)
    await bid(http, item, "ann", amount=10)
    await bid(http, item, "bob", max_amount=50)
    await bid(http, item, "cyd", max_amount=70)
    await redis.delete(recent_key(item))
    await assert_newcomers(world, item, ann="outbid", bob="outbid", cyd="leading", dan="none")
    await bid(http, item, "eve", amount=100)
    await redis.delete(recent_key(item))
    await assert_newcomers(world, item, ann="lost", bob="lost", cyd="lost", dan="none", eve="won")


async def test_who_has_no_bid_any_more_stands_nowhere(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    struck = (await bid(http, item, "ann", amount=10))["bid_id"]
    await bid(http, item, "bob", amount=20)
    async with Bidder.at(world, watch(item, token(world, "ann"))) as ann:
        assert await ann.standing() == "outbid"
        answer = await http.post(f"/api/v1/items/{item}/bids/{struck}/void", json={"reason": "a test"})
        assert answer.status_code == 200, answer.text
        assert await ann.standing() == "none"
        await assert_newcomers(world, item, ann="none", bob="leading")
        await bid(http, item, "ann", amount=30)
        assert await ann.standing() == "leading"


async def test_a_bidder_is_told_what_was_struck_and_why_and_nobody_else(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    struck = (await bid(http, item, "ann", amount=12))["bid_id"]
    raised = (await bid(http, item, "ann", max_amount=30))["bid_id"]
    await bid(http, item, "bob", amount=20)
    async with (
        Bidder.at(world, watch(item, token(world, "ann"))) as ann,
        Bidder.at(world, watch(item, token(world, "bob"))) as bob,
    ):
        await ann.standing()
        await bob.standing()
        answer = await http.post(f"/api/v1/items/{item}/bids/{struck}/void", json={"reason": "a test"})
        told = await ann.next_of("struck")
        assert told.items() >= {"bid_id": struck, "amount": 12.0, "reason": "a test", "item_id": item}.items()
        await http.post(f"/api/v1/items/{item}/bids/{raised}/void", json={"reason": "another"})
        told = await ann.next_of("struck")
        assert told.items() >= {"bid_id": raised, "amount": None, "reason": "another"}.items()
        assert told["seq"] > answer.json()["seq"]
        assert await ann.standing() == "none"
        await bob.next_of("voided")
        await bob.next_of("voided")
        await bob.pong()
        assert '"struck"' not in "".join(bob.texts)
    async with Bidder.at(world, watch(item, token(world, "ann"))) as ann:
        again = [await ann.next_of("struck") for _ in range(2)]
        assert [each["bid_id"] for each in again] == [struck, raised], "whoever comes back is told as well"


async def test_an_item_from_before_bids_were_counted_by_bidder(
    world: Stack, http: httpx.AsyncClient, redis: Redis
) -> None:
    """For an item from before there was the hash, its recent events tell who bid."""
    item = await open_item(http)
    struck = (await bid(http, item, "ann", amount=10))["bid_id"]
    await bid(http, item, "bob", amount=20)
    await redis.delete(bidders_key(item))
    await cast(Any, redis.hdel(item_key(item), "bids_counted"))
    await assert_newcomers(world, item, ann="outbid", bob="leading", cyd="none")
    await bid(http, item, "cyd", amount=30)
    await assert_newcomers(world, item, ann="outbid", bob="outbid", cyd="leading", dan="none")
    await http.post(f"/api/v1/items/{item}/bids/{struck}/void", json={"reason": "a test"})
    await bid(http, item, "ann", amount=40)
    await bid(http, item, "bob", amount=50)
    await redis.delete(recent_key(item))
    await assert_newcomers(world, item, ann="outbid", bob="leading", cyd="outbid", dan="none")


async def test_all_connections_of_a_bidder_are_told_and_nobody_elses(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    async with (
        Bidder.at(world, watch(item, token(world, "ann"))) as first,
        Bidder.at(world, watch(item, token(world, "ann"))) as second,
        Bidder.at(world, watch(item)) as stranger,
        stream(world, f"/sse/items/{item}?token={token(world, 'ann')}") as third,
    ):
        await first.standing()
        await second.standing()
        assert (await third.next_of("standing")).data["standing"] == "none"
        await bid(http, item, "ann", amount=10)
        assert [await first.standing(), await second.standing()] == ["leading", "leading"]
        event = await third.next_of("standing")
        assert (event.id, event.data["standing"]) == (None, "leading")
        await stranger.next_of("bid")
        assert "standing" not in "".join(stranger.texts)


async def test_many_items_on_one_connection_authenticated_later(world: Stack, http: httpx.AsyncClient) -> None:
    first, second, third = [await open_item(http) for _ in range(3)]
    await bid(http, first, "ann", amount=10)
    async with Bidder.at(world, "/ws") as ann:
        await ann.say(op="standing", items=[first])
        assert (await ann.next_of("error"))["code"] == "NOT_AUTHENTICATED"
        await ann.say(op="subscribe", items=[first, second])
        for _ in range(2):
            await ann.next_of("snapshot")
        await ann.say(op="authenticate", token=token(world, "ann"))
        await ann.next_of("authenticated")
        standings = [await ann.next_of("standing") for _ in range(2)]
        assert {each["item_id"]: each["standing"] for each in standings} == {first: "leading", second: "none"}
        await ann.say(op="subscribe", items=[third])
        assert (await ann.next_of("standing"))["item_id"] == third
        await ann.say(op="standing", items=[second, "never-followed"])
        refusal = await ann.next_of("error")
        assert (refusal["code"], refusal["item_id"]) == ("NOT_FOLLOWED", "never-followed")
        assert (await ann.next_of("standing"))["item_id"] == second
        await ann.say(op="unsubscribe", items=[first])
        await ann.next_of("unsubscribed")
        await bid(http, first, "bob", amount=20)
        await bid(http, second, "ann", amount=10)
        assert (await ann.next_of("standing")).items() >= {"item_id": second, "standing": "leading"}.items()


# ------------------------------------------------------------------------------------------------------- maxima


async def test_a_maximum_reaches_its_owner_and_nobody_else_whatever_happens(
    world: Stack, http: httpx.AsyncClient
) -> None:
    item = await open_item(http)
    secret, raised = 987.65, 1_987.64
    async with contextlib.AsyncExitStack() as open_connections:

        async def come(path: str) -> Bidder:
            return await open_connections.enter_async_context(Bidder.at(world, path))

        allowed = await come(watch(item, token(world, "ann", sees_maximum=True)))
        plain = await come(watch(item, token(world, "ann")))
        others = [
            await come(watch(item, token(world, "bob", sees_maximum=True))),
            await come(watch(item)),
            await come(watch(item) + "?feed=full"),
        ]
        many = await come("/ws")
        await many.say(op="subscribe", items=[item])
        assert (await allowed.next_of("standing"))["your_maximum"] is None
        await bid(http, item, "ann", max_amount=secret)
        told = await allowed.next_of("standing")
        assert (told["standing"], told["your_maximum"]) == ("leading", secret)
        assert (await plain.next_of("standing"))["your_maximum"] is None
        # A rival, whom the maximum answers at once.
        await bid(http, item, "bob", amount=500)
        await bid(http, item, "ann", max_amount=raised)
        await allowed.say(op="standing", items=[item])
        # The feed may have told of Bob's bid before Ann raised her maximum.
        while (maximum := (await allowed.next_of("standing"))["your_maximum"]) != raised:
            assert maximum == secret
        for bidder in (plain, others[0]):
            await bidder.say(op="standing", items=[item])
            assert (await bidder.next_of("standing"))["your_maximum"] is None
        newcomer = await come(watch(item) + "?since=1:0&feed=full")
        await http.post(f"/api/v1/items/{item}/cancel", json={"reason": "test", "by": "operator"})
        for bidder in (plain, *others, many, newcomer):
            await bidder.next_of("cancelled")
            await bidder.pong()
            for text in bidder.texts:
                assert "987.6" not in text
                assert "98765" not in text
                assert "198764" not in text
        assert str(raised) in "".join(allowed.texts)
        async with httpx.AsyncClient(timeout=30) as client:
            for path in ("metrics", f"stats/items/{item}"):
                assert "987.6" not in (await client.get(f"{world.urls.broadcast_url}/{path}")).text


async def test_a_raised_maximum_is_told_at_once_though_it_has_no_event(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    async with contextlib.AsyncExitStack() as open_connections:

        async def come(user: str, path: str = "", *, sees_maximum: bool = True) -> Bidder:
            at = path or watch(item, token(world, user, sees_maximum=sees_maximum))
            return await open_connections.enter_async_context(Bidder.at(world, at))

        allowed, plain, other = await come("ann"), await come("ann", sees_maximum=False), await come("bob")
        many = await come("ann", "/ws")
        await many.say(op="authenticate", token=token(world, "ann", sees_maximum=True))
        await many.say(op="subscribe", items=[item])
        for bidder in (allowed, plain, other, many):
            assert await bidder.standing() == "none"
        before = await bid(http, item, "ann", max_amount=50)
        for bidder in (allowed, many):
            assert (await bidder.next_of("standing"))["your_maximum"] == 50
        assert await plain.standing() == "leading"
        raised = await bid(http, item, "ann", max_amount=80)
        assert raised["seq"] == before["seq"]
        for bidder in (allowed, many):
            told = await bidder.next_of("standing")
            assert (told["standing"], told["seq"], told["your_maximum"]) == ("leading", before["seq"], 80)
        for bidder in (plain, other):
            bidder.texts.clear()
            await bidder.pong()
            assert "standing" not in "".join(bidder.texts)


# ------------------------------------------------------------------------------------------------- bad tokens


async def test_a_bad_token_is_refused_before_the_upgrade(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    for bad in ("nonsense", token(world, "ann", seconds=-10), mint("o" * 32, Identity("ann", 4_000_000_000))):
        with pytest.raises(InvalidStatus) as refused:
            await connect(ws_url(world, watch(item, bad)))
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["code"] == "TOKEN_INVALID"
        async with Bidder.at(world, watch(item)) as viewer:
            await viewer.say(op="authenticate", token=bad)
            assert (await viewer.next_of("error"))["code"] == "TOKEN_INVALID"


async def test_a_token_that_expires_ends_the_standings_but_not_the_feed(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    async with Bidder.at(world, watch(item, token(world, "ann", seconds=8))) as ann:
        assert await ann.standing() == "none"
        assert (await ann.next_of("error"))["code"] == "TOKEN_EXPIRED"
        await bid(http, item, "ann", amount=10)
        await ann.next_of("bid")
        assert "leading" not in "".join(ann.texts)
        await ann.say(op="authenticate", token=token(world, "ann"))
        assert await ann.standing() == "leading"


async def test_without_a_secret_the_private_channel_is_off_and_says_so(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    # `docker compose` passes an empty value for a variable that is not set.
    async with another_feed(world, "feed-public", FEED_TOKEN_SECRET="") as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(ws_url(world, watch(item, token(world, "ann")), port))
        assert refused.value.response.status_code == 401
        assert "FEED_TOKEN_SECRET" in json.loads(refused.value.response.body)["detail"]
        async with Bidder.at(world, watch(item), port) as viewer:
            await viewer.next_of("snapshot")


async def test_standings_wait_for_a_redis_that_is_away(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    await bid(http, item, "ann", amount=10)
    async with Bidder.at(world, watch(item)) as ann:
        await ann.next_of("snapshot")
        world.kill("redis")
        assert await world.wait_ended("redis")
        await ann.say(op="authenticate", token=token(world, "ann"))
        await ann.next_of("authenticated")
        await world.start_process("redis")
        assert await ann.standing() == "leading"


async def test_the_secret_survives_a_restart_of_the_feed(world: Stack, http: httpx.AsyncClient) -> None:
    item = await open_item(http)
    bearer = token(world, "ann")
    async with Bidder.at(world, watch(item, bearer)) as ann:
        await ann.standing()
        await world.restart(BROADCAST_SERVICE)
        with pytest.raises(ConnectionClosed):
            await ann.next_of("never")
    async with Bidder.at(world, watch(item, bearer)) as ann:
        assert await ann.standing() == "none"
