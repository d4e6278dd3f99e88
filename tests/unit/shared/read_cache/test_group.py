"""Groups in one process: what is kept, for how long, and what a removal does to what is under way."""

from __future__ import annotations

import asyncio

import pytest

from shared.read_cache.errors import OriginSlow, Overloaded
from shared.read_cache.groups.group import KEYS_MAX, MISSING, Group, GroupLimits
from shared.read_cache.groups.shedding import Gate
from tests.unit.shared.read_cache.origins import Origin, new_cache, settle


@pytest.fixture
def origin() -> Origin:
    origin = Origin()
    origin.rows = {f"k{number}": b"value %d" % number for number in range(10)}
    return origin


async def test_what_was_loaded_is_kept(origin: Origin) -> None:
    cache, group = new_cache(origin)
    assert group.cached("k1") is MISSING
    assert await group.get("k1") == b"value 1"
    assert await group.get("k1") == b"value 1"
    assert group.cached("k1") == b"value 1"
    assert origin.loads == ["k1"]
    assert (cache.stats.gets, cache.stats.hits, cache.stats.loads) == (2, 2, 1)


async def test_a_thousand_concurrent_gets_are_one_load(origin: Origin) -> None:
    cache, group = new_cache(origin)
    assert await asyncio.gather(*(group.get("k1") for _ in range(1_000))) == [b"value 1"] * 1_000
    assert origin.loads == ["k1"]
    assert cache.stats.joined == 999


async def test_that_there_is_none_is_kept_too_and_shorter(origin: Origin) -> None:
    _, group = new_cache(origin, GroupLimits(ttl_s=100, negative_ttl_s=1.0))
    assert await group.get("nothing") is None
    assert await group.get("k1") == b"value 1"
    assert group.cached("nothing") is None
    await asyncio.sleep(1.05)
    origin.rows["nothing"] = b"something"
    assert group.cached("nothing") is MISSING
    assert await group.get("nothing") == b"something"
    assert origin.loads == ["nothing", "k1", "nothing"]
    assert group.cached("k1") == b"value 1"


async def test_a_value_expires(origin: Origin) -> None:
    _, group = new_cache(origin, GroupLimits(ttl_s=1.0))
    await group.get("k1")
    origin.rows["k1"] = b"later"
    await asyncio.sleep(0.02)
    assert await group.get("k1") == b"value 1"
    await asyncio.sleep(1.05)
    assert await group.get("k1") == b"later"


async def test_a_value_over_the_bound_is_served_and_not_kept(origin: Origin) -> None:
    cache, group = new_cache(origin, GroupLimits(value_bytes_max=100))
    origin.rows |= {"large": b"x" * 101, "fits": b"x" * 100}
    for _ in range(2):
        assert await group.get("large") == b"x" * 101
        assert await group.get("fits") == b"x" * 100
    assert origin.loads == ["large", "fits", "large"]
    assert cache.stats.too_big == 2


async def test_an_error_is_told_to_all_who_waited_and_not_kept(origin: Origin) -> None:
    cache, group = new_cache(origin)
    origin.error = ConnectionError("the origin is away")
    results = await asyncio.gather(*(group.get("k1") for _ in range(5)), return_exceptions=True)
    assert [str(result) for result in results] == ["the origin is away"] * 5
    assert origin.loads == ["k1"]
    origin.error = None
    assert await group.get("k1") == b"value 1"
    assert (cache.stats.loads, cache.stats.load_errors) == (2, 1)


async def test_an_origin_that_does_not_answer_is_given_up(origin: Origin) -> None:
    _, group = new_cache(origin, GroupLimits(load_timeout_s=0.02))
    origin.open.clear()
    with pytest.raises(OriginSlow, match=r"did not answer for k1 within 0\.02 s"):
        await group.get("k1")
    origin.open.set()
    assert await group.get("k1") == b"value 1"


async def test_an_origins_own_timeout_stays_its_own(origin: Origin) -> None:
    _, group = new_cache(origin)
    origin.error = TimeoutError("of the driver")
    with pytest.raises(TimeoutError, match="of the driver") as caught:
        await group.get("k1")
    assert not isinstance(caught.value, OriginSlow)


async def test_a_reader_that_is_cancelled_cancels_no_load(origin: Origin) -> None:
    _, group = new_cache(origin)
    origin.open.clear()
    leader, other = asyncio.create_task(group.get("k1")), asyncio.create_task(group.get("k1"))
    await settle()
    leader.cancel()
    await settle()
    origin.open.set()
    assert await other == b"value 1"
    assert leader.cancelled()
    assert origin.loads == ["k1"]


async def test_a_load_goes_on_when_all_its_readers_are_gone(origin: Origin) -> None:
    _, group = new_cache(origin)
    origin.open.clear()
    reader = asyncio.create_task(group.get("k1"))
    await settle()
    reader.cancel()
    origin.open.set()
    await settle()
    assert group.cached("k1") == b"value 1"


async def test_a_load_that_began_before_a_removal_is_not_kept(origin: Origin) -> None:
    """1. a load reads the old value; 2. the change and its removal; 3. the load ends."""
    cache, group = new_cache(origin)
    origin.open.clear()
    early = asyncio.create_task(group.get("k1"))
    await settle()
    origin.rows["k1"] = b"new"
    assert await group.remove("k1") == []
    late = asyncio.create_task(group.get("k1"))
    await settle()
    assert origin.loads == ["k1", "k1"]
    origin.open.set()
    assert await early == b"value 1"
    assert await late == b"new"
    assert group.cached("k1") == b"new"
    assert cache.stats.forgotten == 1


@pytest.mark.parametrize("old_one_ends_last", [True, False])
async def test_whichever_load_ends_last_only_the_newer_one_is_kept(origin: Origin, old_one_ends_last: bool) -> None:
    _, group = new_cache(origin)
    gates = [asyncio.Event(), asyncio.Event()]
    values = iter([b"old", b"new"])

    async def load(key: str) -> bytes:
        number = len(origin.loads)
        origin.loads.append(key)
        value = next(values)
        await gates[number].wait()
        return value

    group._questions._load = load
    early = asyncio.create_task(group.get("k1"))
    await settle()
    group.forget("k1")
    late = asyncio.create_task(group.get("k1"))
    await settle()
    order = [1, 0] if old_one_ends_last else [0, 1]
    for number in order:
        gates[number].set()
        await settle()
        assert group.cached("k1") == (b"new" if gates[1].is_set() else MISSING)
    assert (await early, await late) == (b"old", b"new")


@pytest.mark.parametrize("how", ["reset", "forget_all", "of the cache"])
async def test_a_load_that_began_before_a_reset_is_not_kept(origin: Origin, how: str) -> None:
    cache, group = new_cache(origin)
    await group.get("k2")
    origin.open.clear()
    early = asyncio.create_task(group.get("k1"))
    await settle()
    origin.rows["k1"] = b"new"
    if how == "reset":
        assert await group.reset() == []
    elif how == "forget_all":
        group.forget_all()
    else:
        cache.reset()
    assert group.cached("k2") is MISSING
    origin.open.set()
    assert await early == b"value 1"
    assert group.cached("k1") is MISSING
    assert await group.get("k1") == b"new"


async def test_a_removal_of_one_key_leaves_the_loads_of_others_alone(origin: Origin) -> None:
    _, group = new_cache(origin)
    origin.open.clear()
    other = asyncio.create_task(group.get("k2"))
    await settle()
    group.forget("k1")
    origin.open.set()
    await other
    assert group.cached("k2") == b"value 2"


async def test_a_reset_takes_the_same_time_however_much_is_kept(origin: Origin) -> None:
    """It touches no entry."""
    cache, group = new_cache(origin)
    origin.rows |= {f"m{number}": b"x" for number in range(500)}
    await group.get_many(f"m{number}" for number in range(500))
    before = cache.bytes_used
    group.forget_all()
    assert cache.bytes_used == before
    assert [group.cached(f"m{number}") for number in range(500)] == [MISSING] * 500
    await group.get_many(f"m{number}" for number in range(500))
    assert cache.bytes_used == before


async def test_get_many(origin: Origin) -> None:
    cache, group = new_cache(origin)
    await group.get("k2")
    found = await group.get_many(["k3", "k2", "none", "k3"])
    assert list(found.items()) == [("k3", b"value 3"), ("k2", b"value 2"), ("none", None)]
    assert origin.loads == ["k2", "k3", "none"]
    assert await group.get_many([]) == {}
    with pytest.raises(ValueError, match="at most 1000 keys at a time, not 1001"):
        await group.get_many(map(str, range(KEYS_MAX + 1)))
    assert cache.stats.gets == 1 + 3


async def test_get_many_ends_all_before_it_tells_of_an_error(origin: Origin) -> None:
    _, group = new_cache(origin)
    origin.error = ConnectionError("away")
    with pytest.raises(ConnectionError, match="away"):
        await group.get_many(["k1", "k2"])
    assert len(group._loads) == 0


async def test_a_slow_origin_sheds(origin: Origin) -> None:
    cache, group = new_cache(origin, gate=Gate(running_max=2, waiting_max=3))
    origin.open.clear()
    tasks = [asyncio.create_task(group.get(f"k{number}")) for number in range(8)]
    await settle()
    assert [task.done() for task in tasks] == [False] * 5 + [True] * 3
    for task in tasks[5:]:
        with pytest.raises(Overloaded):
            await task
    assert len(origin.loads) == 2
    assert (cache.waiting, cache.stats.shed) == (3, 3)
    origin.open.set()
    assert await asyncio.gather(*tasks[:5]) == [b"value %d" % number for number in range(5)]
    assert await group.get("k7") == b"value 7"


async def test_flights_are_bounded_for_get_many_too(origin: Origin) -> None:
    _, group = new_cache(origin, gate=Gate(running_max=2, waiting_max=0))
    group._loads._flights_max = 5
    origin.open.clear()
    first = asyncio.create_task(group.get_many([f"k{number}" for number in range(8)]))
    await settle()
    origin.open.set()
    with pytest.raises(Overloaded):
        await first
    assert len(group._loads) == 0


async def test_nothing_is_kept_or_told_while_nobody_follows_the_changes(origin: Origin) -> None:
    cache, group = new_cache(origin)
    await group.get("k1")
    origin.open.clear()
    before = asyncio.create_task(group.get("k2"))
    await settle()
    cache.suspend()
    assert group.cached("k1") is MISSING
    meanwhile = [asyncio.create_task(group.get("k3")) for _ in range(3)]
    await settle()
    cache.resume()
    origin.open.set()
    await asyncio.gather(before, *meanwhile)
    assert origin.loads == ["k1", "k2", "k3"]
    assert [group.cached(key) for key in ("k1", "k2", "k3")] == [MISSING] * 3
    assert await group.get("k1") == b"value 1"
    assert group.cached("k1") == b"value 1"


async def test_off_asks_the_origin_each_time_and_shares_nothing(origin: Origin) -> None:
    """Nobody tells of changes there, so a get may not be answered by a question that began before it."""
    cache, group = new_cache(origin, reader=True, shares_loads=False, gate=Gate(running_max=2, waiting_max=1))
    origin.open.clear()
    early = asyncio.create_task(group.get("k1"))
    await settle()
    origin.rows["k1"] = b"new"
    late = asyncio.create_task(group.get("k1"))
    third, fourth = (asyncio.create_task(group.get("k1")) for _ in range(2))
    await settle()
    with pytest.raises(Overloaded):
        await fourth
    origin.open.set()
    assert await asyncio.gather(*[early, late, third]) == [b"value 1", b"new", b"new"]
    assert cache.entries == 0


async def test_closing_tells_those_who_wait(origin: Origin) -> None:
    cache, group = new_cache(origin)
    origin.open.clear()
    reader = asyncio.create_task(group.get("k1"))
    await settle()
    await cache.close()
    with pytest.raises(Overloaded, match="was cancelled"):
        await reader


async def test_what_may_not_be_kept_is_told_and_not_kept(origin: Origin) -> None:
    """Its change is known, and the origin may not have it yet."""
    allowed = False
    shelf = new_cache(origin)[0]._shelf
    group = Group("items", origin.load, GroupLimits(), shelf, flights_max=10, may_keep=lambda key: allowed)
    origin.open.clear()
    asked = asyncio.create_task(group.get("k1"))
    await settle()
    allowed = True
    origin.open.set()
    assert await asked == b"value 1"
    assert group.cached("k1") is MISSING, "the origin was asked before that was allowed"
    await group.get("k1")
    assert group.cached("k1") == b"value 1"
    assert shelf.stats.forgotten == 1
