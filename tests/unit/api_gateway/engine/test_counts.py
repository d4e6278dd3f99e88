"""Accounts that wait to be counted share one look at all items."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from api_gateway.engine.accounts.counts import Bidder, Counts


class Redis:
    """Looks take until the test lets them go on."""

    def __init__(self) -> None:
        self.looks: list[set[Bidder]] = []
        self.let = asyncio.Semaphore(0)
        self.error: Exception | None = None

    async def look(self, bidders: Collection[Bidder]) -> None:
        self.looks.append(set(bidders))
        await self.let.acquire()
        if self.error is not None:
            raise self.error


def ask(counts: Counts, *users: str) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(counts.charge(user, "USD")) for user in users]


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_waits_shares_the_next_look_and_never_one_that_began_before() -> None:
    redis = Redis()
    counts = Counts(redis.look)
    first = ask(counts, "ann")
    await turns()
    later = ask(counts, "ann", "bob", "bob", "cyd")
    await turns()
    assert redis.looks == [{("ann", "USD")}]
    redis.let.release()
    await turns()
    assert first[0].done()
    assert not any(each.done() for each in later)
    redis.let.release()
    await asyncio.gather(*later)
    assert redis.looks[1:] == [{("ann", "USD"), ("bob", "USD"), ("cyd", "USD")}]


async def test_a_look_that_fails_fails_for_all_and_the_next_one_is_another() -> None:
    redis = Redis()
    counts = Counts(redis.look)
    first = ask(counts, "zoe")
    await turns()
    asked = ask(counts, "ann", "bob")
    await turns()
    redis.let.release()
    await first[0]
    redis.error = ConnectionError("away")
    redis.let.release()
    assert all(isinstance(error, ConnectionError) for error in await asyncio.gather(*asked, return_exceptions=True))
    redis.error = None
    redis.let.release()
    await counts.charge("ann", "USD")
    assert len(redis.looks) == 3


async def test_who_is_cancelled_leaves_the_look_to_the_next() -> None:
    redis = Redis()
    counts = Counts(redis.look)
    first = ask(counts, "zoe")
    await turns()
    asked = ask(counts, "ann", "bob")
    await turns()
    redis.let.release()
    await first[0]
    await turns()
    asked[0].cancel()
    await turns()
    with pytest.raises(asyncio.CancelledError):
        await asked[0]
    redis.let.release()
    await asked[1]
    assert redis.looks[1:] == [{("ann", "USD"), ("bob", "USD")}] * 2
