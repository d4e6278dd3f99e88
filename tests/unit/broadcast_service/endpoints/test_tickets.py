"""Tickets of many connections, taken together, where a part of Redis is away."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from redis.exceptions import ConnectionError as RedisConnectionError

from broadcast_service.endpoints.tickets import Tickets
from shared.feed_tokens import Identity
from tests.waiting import eventually


class Pipeline:
    """The pipeline of a cluster of which one node is away: that node has the second ticket."""

    def __init__(self) -> None:
        self._answers: list[Any] = []

    def getdel(self, key: str) -> None:
        known = b'{"user_id":"ann","expires_s":99}'
        self._answers.append(RedisConnectionError("away") if len(self._answers) == 1 else known)

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        if raise_on_error:
            raise RedisConnectionError("away")
        return self._answers


class Redis:
    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert not transaction
        return Pipeline()


class Private:
    def __init__(self) -> None:
        self.told: dict[Any, Identity] = {}

    def authenticate(self, connection: Any, identity: Identity) -> None:
        self.told[connection] = identity


class Connection:
    def __init__(self) -> None:
        self.frames: list[Any] = []

    def send(self, frames: tuple[Any, ...]) -> None:
        self.frames += frames


async def test_a_node_that_is_away_costs_nobody_else_a_ticket() -> None:
    """What is taken is gone: it has to reach whoever said it."""
    private, connections = Private(), [Connection() for _ in range(3)]
    tickets = Tickets(cast(Any, Redis()), cast(Any, private), cast(Any, connections))
    for each in connections:
        tickets.say(cast(Any, each), "0123456789012345678901")
    work = asyncio.create_task(tickets.run())
    await eventually(lambda: bool(connections[1].frames))
    work.cancel()
    assert set(private.told) == {connections[0], connections[2]}
    assert b"TICKET_NOT_CHECKED" in connections[1].frames[0].text
