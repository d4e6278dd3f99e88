"""One question for all who ask at one time, whoever of them goes away."""

from __future__ import annotations

import asyncio
import gc

import pytest

from shared.read_cache.errors import Overloaded
from shared.read_cache.groups import singleflight as module
from shared.read_cache.groups.singleflight import Flight, Singleflight


class World:
    """Flights that begin when they are asked for, and land when the test says so."""

    def __init__(self, flights_max: int = 100, waiters_max: int = 100) -> None:
        self.flights: Singleflight[str] = Singleflight(flights_max=flights_max, waiters_max=waiters_max)
        self.begun: list[Flight[str]] = []

    def ask(self, key: str) -> asyncio.Future[str]:
        return self.flights.join(key, self.begun.append)


async def test_concurrent_callers_share_one_flight() -> None:
    world = World()
    asked = [world.ask("a") for _ in range(50)]
    other = world.ask("b")
    assert [flight.key for flight in world.begun] == ["a", "b"]
    world.begun[0].land("value")
    assert await asyncio.gather(*asked) == ["value"] * 50
    assert not other.done()
    world.begun[1].land("of b")
    assert await other == "of b"
    assert len(world.flights) == 0


async def test_a_cancelled_leader_or_waiter_cancels_nobody_else() -> None:
    world = World()

    async def reader() -> str:
        return await world.ask("a")

    tasks = [asyncio.create_task(reader()) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.wait(tasks[:2])
    world.begun[0].land("value")
    assert await tasks[2] == "value"
    assert tasks[0].cancelled()
    assert tasks[1].cancelled()


async def test_a_flight_whose_waiters_are_all_gone_still_ends() -> None:
    world = World()
    world.ask("a").cancel()
    assert len(world.flights) == 1
    world.begun[0].crash(RuntimeError("nobody hears this"))
    assert len(world.flights) == 0
    gc.collect()


async def test_an_error_is_shared_once_and_not_kept() -> None:
    world = World()
    asked = [world.ask("a") for _ in range(3)]
    world.begun[0].crash(RuntimeError("the origin is away"))
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(result) for result in results] == ["the origin is away"] * 3
    again = world.ask("a")
    assert len(world.begun) == 2
    world.begun[1].land("value")
    assert await again == "value"


async def test_who_asks_after_a_forget_does_not_get_what_began_before_it() -> None:
    world = World()
    early = world.ask("a")
    assert world.begun[0].is_current
    assert world.flights.forget("a")
    late = world.ask("a")
    assert not world.begun[0].is_current
    assert world.begun[1].is_current
    world.begun[0].land("old")
    assert await early == "old"
    assert not late.done()
    assert world.begun[1].is_current
    world.begun[1].land("new")
    assert await late == "new"
    assert not world.flights.forget("a")


async def test_forgetting_all_holds_for_every_key() -> None:
    world = World()
    early = [world.ask("a"), world.ask("b")]
    world.flights.forget_all()
    late = world.ask("a")
    world.begun[0].land("old")
    world.begun[1].land("old")
    assert await asyncio.gather(*early) == ["old", "old"]
    assert not late.done()
    world.begun[2].land("new")
    assert await late == "new"
    assert len(world.flights) == 0


async def test_flights_in_the_air_are_bounded_forgotten_ones_among_them() -> None:
    world = World(flights_max=2)
    first = world.ask("a")
    world.flights.forget("a")
    second = world.ask("a")
    with pytest.raises(Overloaded, match="2 values are being loaded"):
        world.ask("b")
    joined = world.ask("a")
    for flight in list(world.begun):
        flight.land("value")
    assert await asyncio.gather(*[first, second, joined]) == ["value"] * 3
    world.ask("b")
    world.begun[-1].land("value")


async def test_waiters_are_bounded_and_counted_down() -> None:
    world = World(waiters_max=3)
    for _ in range(3):
        asked = [world.ask("a") for _ in range(3)]
        with pytest.raises(Overloaded, match="3 readers wait"):
            world.ask("a")
        world.begun[-1].land("value")
        await asyncio.gather(*asked)


async def test_a_flight_that_cannot_begin_leaves_nothing_behind() -> None:
    world = World()

    def fails(flight: Flight[str]) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        world.flights.join("a", fails)
    assert len(world.flights) == 0
    asked = world.ask("a")
    world.begun[0].land("value")
    assert await asked == "value"


async def test_a_flight_may_land_while_it_begins() -> None:
    flights: Singleflight[str] = Singleflight(flights_max=1, waiters_max=1)
    for _ in range(3):
        assert await flights.join("a", lambda flight: flight.land("at once")) == "at once"


async def test_an_old_flight_is_joined_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where this process was stopped in the middle of it."""
    clock_s = 100.0
    monkeypatch.setattr(module, "now_s", lambda: clock_s)
    flights: Singleflight[str] = Singleflight(flights_max=10, waiters_max=10, joined_for_s=1.0)
    begun: list[Flight[str]] = []
    first, second = flights.join("a", begun.append), flights.join("a", begun.append)
    clock_s += 0.9
    third = flights.join("a", begun.append)
    assert (len(begun), flights.has("a")) == (1, True)
    clock_s += 0.2
    assert not flights.has("a")
    late = flights.join("a", begun.append)
    assert [flight.is_current for flight in begun] == [False, True]
    begun[0].land("old")
    assert flights.has("a")
    begun[1].land("new")
    assert [await asked for asked in (first, second, third, late)] == ["old", "old", "old", "new"]
    assert len(flights) == 0
