"""The private channel without a network: connections, tokens, and reads that fail or come late."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from broadcast_service.core.outgoing import OutgoingLimits
from broadcast_service.core.standings import Facts
from broadcast_service.endpoints import private
from broadcast_service.endpoints.private import NotAuthenticated, PrivateChannel
from broadcast_service.metrics import Metrics
from broadcast_service.transport.connection import Connection
from shared.feed_tokens import Identity
from shared.redis_layout.item_hash import ItemState
from tests.unit.broadcast_service.builders import ITEM, item
from tests.unit.broadcast_service.transport.test_connection import Clock, Pipe
from tests.waiting import eventually

FOREVER = 4_000_000_000


class FakeItems:
    """A hub in which every connection follows the same items."""

    def __init__(self) -> None:
        self.state: ItemState | None = item(5)
        self.followed: list[str] = [ITEM]

    def state_of(self, item_id: str) -> ItemState | None:
        return self.state

    def items_of(self, viewer: Connection) -> Collection[str]:
        return self.followed


class FakeReader:
    """Answers at once, unless it is held up or fails."""

    def __init__(self) -> None:
        self.maxima: dict[str, int] = {}
        self.failures = 0
        self.reads: list[set[str]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def read(self, item_id: str, users: Collection[str]) -> dict[str, Facts]:
        self.reads.append(set(users))
        answer = {user: Facts(user in self.maxima, self.maxima.get(user)) for user in users}
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise RedisConnectionError("away")
        return answer


class World:
    def __init__(self) -> None:
        self.items = FakeItems()
        self.reader = FakeReader()
        self.revoked: set[int | None] = set()
        self.channel = PrivateChannel(
            self.items, self.reader, rate_max=0, is_revoked=lambda identity: identity.issued_s in self.revoked
        )

    def connect(self) -> tuple[Connection, Pipe]:
        pipe = Pipe()
        connection = Connection(pipe, "c", single=True, limits=OutgoingLimits(), metrics=Metrics(), clock=Clock())
        return connection, pipe


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    task = asyncio.create_task(made.channel.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def shown(pipe: Pipe) -> list[Any]:
    """Standings, and the types or codes of everything else."""
    frames = []
    for data in pipe.written:
        body = json.loads(data[data.index(b"{") :])
        frames.append(body.get("standing") or body.get("code") or body["type"])
    return frames


async def until_shown(pipe: Pipe, *expected: str) -> None:
    async def is_shown() -> bool:
        return len(shown(pipe)) >= len(expected)

    await eventually(is_shown)
    assert shown(pipe) == list(expected)


async def test_a_bidder_is_told_after_authenticating_and_after_each_change(world: World) -> None:
    connection, pipe = world.connect()
    world.reader.maxima["ann"] = 700
    world.channel.authenticate(connection, Identity("ann", FOREVER))
    await until_shown(pipe, "authenticated", "outbid")
    world.items.state = item(6)
    world.channel.standing_changed(ITEM, frozenset({"bob"}))
    world.channel.joined(ITEM, [connection])
    await until_shown(pipe, "authenticated", "outbid", "outbid")


async def test_who_did_not_authenticate_is_told_nothing(world: World) -> None:
    connection, pipe = world.connect()
    world.channel.joined(ITEM, [connection])
    world.channel.standing_changed(ITEM, frozenset())
    with pytest.raises(NotAuthenticated):
        world.channel.ask(connection, ITEM)
    assert pipe.written == []
    assert world.reader.reads == []


async def test_all_connections_of_a_bidder_are_told_by_one_read(world: World) -> None:
    pipes = []
    world.reader.open.clear()
    for _ in range(5):
        connection, pipe = world.connect()
        world.channel.authenticate(connection, Identity("user-5", FOREVER))
        pipes.append(pipe)
    world.reader.open.set()
    for pipe in pipes:
        await until_shown(pipe, "authenticated", "leading")
    assert world.reader.reads == [{"user-5"}]


async def test_redis_is_never_asked_for_many_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of an auction all its bidders are read, while bidding on other items goes on."""
    monkeypatch.setattr(private, "USERS_PER_READ", 2)
    world.reader.open.clear()
    pipes = []
    for number in range(5):
        connection, pipe = world.connect()
        world.channel.authenticate(connection, Identity(f"bidder-{number}", FOREVER))
        pipes.append(pipe)
    world.reader.open.set()
    for pipe in pipes:
        await until_shown(pipe, "authenticated", "none")
    assert sorted(map(len, world.reader.reads)) == [1, 2, 2]
    assert len(set().union(*world.reader.reads)) == 5


async def test_an_older_answer_never_replaces_a_newer_one(world: World) -> None:
    connection, pipe = world.connect()
    world.reader.open.clear()
    world.reader.maxima["user-5"] = 10_000
    world.channel.authenticate(connection, Identity("user-5", FOREVER, sees_maximum=True))

    async def read_began() -> bool:
        return len(world.reader.reads) == 1

    await eventually(read_began)
    world.reader.maxima["user-5"] = 20_000
    world.channel.ask(connection, ITEM)
    await asyncio.sleep(0)
    assert len(world.reader.reads) == 1, "one at a time"
    world.reader.open.set()
    await until_shown(pipe, "authenticated", "leading", "leading")
    assert b'"your_maximum":200.00' in pipe.written[-1]


async def test_redis_away_delays_the_standing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "RETRY_S", 0.01)
    world.reader.failures = 3
    connection, pipe = world.connect()
    world.channel.authenticate(connection, Identity("user-5", FOREVER))
    await until_shown(pipe, "authenticated", "leading")
    assert len(world.reader.reads) == 4


async def test_an_expired_token_is_said_once_and_ends_the_standings(world: World) -> None:
    connection, pipe = world.connect()
    expires_s = int(time.time()) + 1_000
    world.channel.authenticate(connection, Identity("user-5", expires_s))
    await until_shown(pipe, "authenticated", "leading")
    world.channel.expire(expires_s - 0.1)
    assert len(world.channel) == 1
    for now_s in (expires_s, expires_s + 1):
        world.channel.expire(now_s)
    world.channel.standing_changed(ITEM, frozenset())
    assert shown(pipe) == ["authenticated", "leading", "TOKEN_EXPIRED"]
    with pytest.raises(NotAuthenticated):
        world.channel.ask(connection, ITEM)
    world.channel.authenticate(connection, Identity("user-5", FOREVER))
    await until_shown(pipe, "authenticated", "leading", "TOKEN_EXPIRED", "authenticated", "leading")


async def test_the_session_of_a_revoked_token_ends(world: World) -> None:
    connection, pipe = world.connect()
    world.channel.authenticate(connection, Identity("user-5", FOREVER, issued_s=7))
    await until_shown(pipe, "authenticated", "leading")
    world.revoked = {8}
    world.channel.expire(1)
    assert len(world.channel) == 1
    world.revoked = {7}
    world.channel.expire(1)
    assert len(world.channel) == 0
    assert shown(pipe) == ["authenticated", "leading", "TOKEN_EXPIRED"]


async def test_a_revoked_token_begins_no_session_and_ends_the_one_there_is(world: World) -> None:
    """Otherwise who says it again and again is told all the time, up to the next look."""
    world.revoked = {7}
    connection, pipe = world.connect()
    world.channel.authenticate(connection, Identity("ann", FOREVER, issued_s=8))
    await until_shown(pipe, "authenticated", "none")
    world.channel.authenticate(connection, Identity("user-5", FOREVER, issued_s=7))
    assert len(world.channel) == 0
    world.channel.standing_changed(ITEM, frozenset({"user-5", "ann"}))
    assert shown(pipe)[2:] == ["TOKEN_EXPIRED"]


async def test_another_token_makes_another_bidder_of_the_connection(world: World) -> None:
    connection, pipe = world.connect()
    world.channel.authenticate(connection, Identity("user-5", FOREVER, sees_maximum=True))
    await until_shown(pipe, "authenticated", "leading")
    world.channel.authenticate(connection, Identity("ann", FOREVER))
    await until_shown(pipe, "authenticated", "leading", "authenticated", "none")
    world.channel.standing_changed(ITEM, frozenset({"user-5"}))
    assert shown(pipe)[4:] == []


async def test_nothing_is_kept_of_who_left(world: World) -> None:
    connection, pipe = world.connect()
    world.channel.authenticate(connection, Identity("ann", FOREVER))
    await until_shown(pipe, "authenticated", "none")
    assert world.channel.ask(connection, "another-item") is False
    world.channel.unfollow(connection, ITEM)
    assert world.channel.ask(connection, ITEM) is False
    world.channel.joined(ITEM, [connection])
    world.channel.leave(connection)
    world.channel.leave(connection)
    assert len(world.channel) == 0
    assert not world.channel._standings
