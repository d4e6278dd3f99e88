"""The one connection on which bids are decided: when another one is made, and what is never sent a second time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from redis.exceptions import NoScriptError

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import BidScripts, Decided, _in_parts
from api_gateway.engine.item_scripts import ScriptLimits
from shared.domain.errors import OutcomeUnknown, Unavailable

DECIDED = [[0, 1, 1, 1, b"A|one"]]
"""The replies of a command on one item."""


async def _at_once() -> None:
    return


class Connection:
    """Answers what the test says; its reader knows whether the other end has hung up."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._reader = self
        self.is_connected = False
        self.is_at_eof = False
        self.sent: list[bytes] = []

    def at_eof(self) -> bool:
        return self.is_at_eof

    def exception(self) -> None:
        return

    async def connect(self) -> None:
        await self._pool.on_connect()
        self.is_connected = True

    async def disconnect(self, *, nowait: bool) -> None:
        self.is_connected = False

    async def send_packed_command(self, packed: bytes, *, check_health: bool) -> None:
        self.sent.append(packed)

    async def read_response(self, **how: object) -> Any:
        return await self._pool.answer(self)


async def _decided(_: Connection) -> Any:
    return DECIDED


class Pool:
    """Makes connections, and is the client that has them."""

    def __init__(self) -> None:
        self.connection_pool = self
        self.made: list[Connection] = []
        self.on_connect: Callable[[], Awaitable[None]] = _at_once
        self.answer: Callable[[Connection], Awaitable[Any]] = _decided

    def make_connection(self) -> Connection:
        self.made.append(Connection(self))
        return self.made[-1]


def scripts_on(pool: Pool, *, timeout_s: float = 10, run: str = "") -> BidScripts:
    return BidScripts(cast(Any, pool), ScriptLimits(), timeout_s=timeout_s, run_of=lambda _: run)


def bids(count: int = 1, item: str = "lot") -> list[PendingBid]:
    return [PendingBid(item, "ann", f"b-{n}", 5, None, None, False, PendingVerdict()) for n in range(count)]


async def test_a_connection_that_redis_has_closed_is_not_sent_anything() -> None:
    """The outcome of every bid of the flush would be unknown."""
    pool = Pool()
    scripts = scripts_on(pool)
    await scripts.place([bids()])
    pool.made[0].is_at_eof = True
    [answer] = await scripts.place([bids()])
    assert isinstance(answer, Decided)
    assert [len(each.sent) for each in pool.made] == [1, 1]


async def test_a_connection_that_is_dropped_while_it_is_made_is_not_used() -> None:
    pool = Pool()
    scripts = scripts_on(pool)
    pool.on_connect = scripts.close
    with pytest.raises(Unavailable, match="was dropped"):
        await scripts.place([bids()])
    assert (pool.made[0].is_connected, pool.made[0].sent) == (False, [])


async def test_what_redis_has_not_loaded_is_sent_once_more_with_its_text() -> None:
    pool = Pool()

    async def answer(connection: Connection) -> Any:
        if len(connection.sent) == 1:
            raise NoScriptError
        return DECIDED

    pool.answer = answer
    [answered] = await scripts_on(pool).place([bids()])
    assert isinstance(answered, Decided)
    first, second = pool.made[0].sent
    assert (b"EVALSHA" in first, b"EVALSHA" in second) == (True, False)


async def test_it_is_not_sent_again_on_a_connection_that_was_dropped_meanwhile() -> None:
    """Sending would connect it again, to whatever is there by then."""
    pool = Pool()

    async def answer(connection: Connection) -> Any:
        await connection.disconnect(nowait=True)
        raise NoScriptError

    pool.answer = answer
    with pytest.raises(OutcomeUnknown):
        await scripts_on(pool).place([bids()])
    assert len(pool.made[0].sent) == 1


async def test_an_answer_that_does_not_come_is_given_up_with_its_connection() -> None:
    pool = Pool()

    async def never(_: Connection) -> Any:
        await asyncio.Event().wait()

    pool.answer = never
    scripts = scripts_on(pool, timeout_s=0.01)
    async with asyncio.timeout(10):
        with pytest.raises(OutcomeUnknown):
            await scripts.place([bids()])
    pool.answer = _decided
    await scripts.place([bids()])
    assert [each.is_connected for each in pool.made] == [False, True]


@pytest.mark.parametrize(("run", "made"), [("a", 2), ("", 1)])
async def test_only_a_connection_that_was_admitted_is_left(run: str, made: int) -> None:
    """One that is not yet is checked anyway."""
    pool = Pool()
    scripts = scripts_on(pool, run=run)
    await scripts.place([bids()])
    await scripts.leave()
    await scripts.place([bids()])
    assert len(pool.made) == made


@pytest.mark.parametrize(
    ("calls", "parts"),
    [
        ([1] * 70, [64, 6]),
        ([200, 56, 1], [2, 1]),
        ([200, 100, 100, 100], [1, 2, 1]),
        ([256, 1], [1, 1]),
        ([], []),
    ],
)
async def test_a_command_is_bounded_in_items_and_in_bids(calls: list[int], parts: list[int]) -> None:
    each = [bids(count, f"lot-{n}") for n, count in enumerate(calls)]
    found = list(_in_parts(each))
    assert [len(part) for part in found] == parts
    assert [call for part in found for call in part] == each
