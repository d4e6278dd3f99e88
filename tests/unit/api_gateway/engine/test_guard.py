"""Which runs of Redis are admitted, and which shards are closed, without a network."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from api_gateway.engine.guard import Guard
from api_gateway.engine.lost_items import LostItems
from api_gateway.engine.past import Known, Past, Place
from api_gateway.engine.scripts import ItemScripts
from api_gateway.engine.shards import Shards
from shared import names
from shared.domain.errors import Unavailable


class FakeConnection:
    """A new connection to the run of Redis that a test names."""

    def __init__(self, run: str) -> None:
        self._answer = f"# Server\r\nredis_version:8\r\nrun_id:{run}\r\n".encode()
        self.shaken_hands = False
        self.is_closed = False

    async def disconnect(self, *, nowait: bool) -> None:
        self.is_closed = True

    async def on_connect(self) -> None:
        self.shaken_hands = True

    async def send_command(self, *words: str) -> None:
        assert words == ("INFO", "server")

    async def read_response(self) -> bytes:
        return self._answer


class Comparison:
    """What the guard has asked for; it lasts until it is let go, and fails where the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.fails = False
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self) -> None:
        self.begun += 1
        await self.may_end.wait()
        if self.fails:
            raise Unavailable("nobody to be asked")


async def connect(guard: Guard, run: str) -> None:
    connection = FakeConnection(run)
    is_admitted = False
    try:
        await guard.on_connect(cast(Any, connection))
        is_admitted = True
    finally:
        assert connection.shaken_hands
        assert connection.is_closed is not is_admitted, "who is not admitted must not be used"


async def test_each_run_of_redis_is_compared_once_and_all_its_connections_wait_for_that() -> None:
    comparison = Comparison()
    guard = Guard(comparison)
    comparison.may_end.clear()
    waiting = [asyncio.create_task(connect(guard, "a")) for _ in range(5)]
    done, _ = await asyncio.wait(waiting, timeout=0.05)
    assert (done, comparison.begun) == (set(), 1)
    comparison.may_end.set()
    await asyncio.gather(*waiting)
    await connect(guard, "a")
    assert comparison.begun == 1
    await connect(guard, "b")
    assert comparison.begun == 2


async def test_a_run_that_cannot_be_compared_is_not_admitted_but_asked_about_again() -> None:
    comparison = Comparison()
    guard = Guard(comparison)
    comparison.fails = True
    for _ in range(2):
        with pytest.raises(RedisConnectionError, match="nobody to be asked"):
            await connect(guard, "a")
    comparison.fails = False
    await connect(guard, "a")
    assert comparison.begun == 3


class FakeRedis:
    """The cursors of all shards, as a pipeline finds them, and that none has lost an item; also that pipeline."""

    def __init__(self) -> None:
        self.places = {shard: Place(1, 0) for shard in names.SHARDS}

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        return self

    def hmget(self, key: str, fields: list[str]) -> None:
        return

    def scard(self, key: str) -> None:
        return

    async def execute(self) -> list[list[bytes | None] | int]:
        found: list[list[bytes | None] | int] = []
        for place in self.places.values():
            found += ([b"%d" % place.epoch, b"%d" % place.n, b"0", None], 0)
        return found


class FakeScripts:
    """Notes what is closed."""

    def __init__(self) -> None:
        self.closed: dict[str, Place] = {}

    async def close_shard(self, shard: str, *, epoch: int, n: int) -> bool:
        self.closed[shard] = Place(epoch, n)
        return True


class FakePast:
    """What a test wants to be known."""

    def __init__(self) -> None:
        self.known = Known({}, archive_asked=True, stream_asked=True)

    async def shards(self) -> Known:
        return self.known


class Bench:
    def __init__(self) -> None:
        self.redis, self.scripts, self.past = FakeRedis(), FakeScripts(), FakePast()
        self.shards = Shards(
            cast(Any, self.redis),
            cast(ItemScripts, self.scripts),
            cast(Past, self.past),
            LostItems(cast(Any, self.redis)),
            on_initialised=lambda: None,
            outbox_alarm_entries=10,
        )


@pytest.mark.parametrize(
    ("place", "is_closed"),
    [
        (Place(1, 7), False),
        (Place(1, 8), True),
        (Place(2, 0), True),
        (Place(0, 99), False),
        (Place(0, 0), False),
    ],
)
async def test_a_shard_is_closed_where_more_of_it_is_known_elsewhere(place: Place, is_closed: bool) -> None:
    bench = Bench()
    bench.redis.places["s07"] = Place(1, 7)
    bench.past.known = Known({"s07": place}, archive_asked=True, stream_asked=False)
    await bench.shards.compare()
    assert bench.scripts.closed == ({"s07": place} if is_closed else {})


async def test_where_nobody_can_be_asked_what_was_seen_counts() -> None:
    bench = Bench()
    bench.redis.places["s07"] = Place(1, 7)
    nobody = Known({}, archive_asked=False, stream_asked=False)
    bench.past.known = nobody
    with pytest.raises(Unavailable):
        await bench.shards.compare()
    bench.past.known = Known({}, archive_asked=True, stream_asked=True)
    await bench.shards.look()
    bench.past.known = nobody
    await bench.shards.compare()
    assert bench.scripts.closed == {}, "the same Redis as before"
    bench.redis.places["s07"] = Place(1, 6)
    await bench.shards.compare()
    assert bench.scripts.closed == {"s07": Place(1, 7)}
