"""How old a value may be: everything counts from the moment before it was asked for. And several values in one
question."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from typing_extensions import override

from shared.read_cache.cache import GroupSpec, ReadCache
from shared.read_cache.errors import PeerFailed
from shared.read_cache.groups import kept as kept_module
from shared.read_cache.groups import singleflight as singleflight_module
from shared.read_cache.groups.group import MISSING, Group, GroupLimits, Shelf
from shared.read_cache.groups.shedding import Gate
from shared.read_cache.remote import Fetched
from shared.read_cache.stats import Stats
from shared.read_cache.store.lru import LruStore
from tests.unit.shared.read_cache.origins import MIB, Origin, Peers, new_cache, settle


class Clock:
    """The clock of everything that is kept."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(kept_module, "clock_s", made)
    monkeypatch.setattr(singleflight_module, "now_s", made)
    return made


async def loading(origin: Origin, group: Group, key: str = "k") -> asyncio.Task[bytes | None]:
    """A get whose load has asked the origin, and is not answered."""
    origin.open.clear()
    task = asyncio.create_task(group.get(key))
    await settle()
    return task


async def test_a_load_that_takes_long_does_not_make_its_value_last_longer(clock: Clock) -> None:
    origin = Origin()
    origin.rows = {"k": b"value"}
    _, group = new_cache(origin, GroupLimits(ttl_s=10.0))
    task = await loading(origin, group)
    clock.now_s += 8.0
    origin.open.set()
    assert await task == b"value"
    assert group.cached("k") == b"value"
    clock.now_s += 2.0
    assert group.cached("k") is MISSING


async def test_a_load_that_takes_longer_than_its_value_would_last_is_told_and_not_kept(clock: Clock) -> None:
    origin = Origin()
    origin.rows = {"k": b"value"}
    cache, group = new_cache(origin, GroupLimits(ttl_s=10.0))
    task = await loading(origin, group)
    clock.now_s += 10.0
    origin.open.set()
    assert await task == b"value"
    assert (group.cached("k"), cache.entries) == (MISSING, 0)


async def test_a_question_that_is_old_is_answered_to_those_who_waited(clock: Clock) -> None:
    origin = Origin()
    origin.rows = {"k": b"old"}
    _, group = new_cache(origin, GroupLimits(joined_for_s=5.0))
    first = await loading(origin, group)
    clock.now_s += 4.0
    second = await loading(origin, group)
    clock.now_s += 1.0
    origin.rows = {"k": b"new"}
    third = await loading(origin, group)
    assert origin.loads == ["k", "k"]
    origin.open.set()
    assert [await task for task in (first, second, third)] == [b"old", b"old", b"new"]
    assert group.cached("k") == b"new"


async def test_a_mirror_lasts_no_longer_than_what_it_was_made_of(clock: Clock) -> None:
    origin, peers = Origin(), Peers("b")
    _, group = new_cache(origin, GroupLimits(mirror_ttl_s=60.0), remote=peers)
    task = asyncio.create_task(group.get("b/k"))
    await settle()
    clock.now_s += 1.0  # the answer is on its way
    peers.waiting[0](Fetched(b"value", 3.0))
    assert await task == b"value"
    clock.now_s += 1.9
    assert group.cached("b/k") == b"value"
    clock.now_s += 0.2
    assert group.cached("b/k") is MISSING


async def test_what_is_loaded_in_the_place_of_its_owner_is_a_mirror_from_the_question_on(clock: Clock) -> None:
    origin, peers = Origin(), Peers("b")
    origin.rows = {"b/k": b"value"}
    peers.answer = lambda key: PeerFailed("b", "is dead")
    _, group = new_cache(origin, GroupLimits(mirror_ttl_s=2.0), remote=peers)
    task = await loading(origin, group, "b/k")
    clock.now_s += 1.0
    origin.open.set()
    assert await task == b"value"
    assert group.cached("b/k") == b"value"
    clock.now_s += 1.0
    assert group.cached("b/k") is MISSING


class UnaskedPeers(Peers):
    """A node that failed is given one try after its pause. To ask who owns a key uses it up."""

    @override
    def owner(self, key: str) -> str | None:
        raise AssertionError("nobody was to be asked")


async def test_who_would_begin_a_question_of_its_own(clock: Clock) -> None:
    origin = Origin()
    origin.rows = {"k": b"value"}
    _, group = new_cache(origin, GroupLimits(ttl_s=10.0, negative_ttl_s=10.0))
    assert group.begins_anew("k")
    task = await loading(origin, group)
    assert not group.begins_anew("k")
    origin.open.set()
    await task
    assert await group.get("none") is None
    assert not group.begins_anew("k")
    assert not group.begins_anew("none")
    clock.now_s += 10.0
    assert group.begins_anew("k")
    assert group.begins_anew("none")
    peers = UnaskedPeers("b")
    _, shared = new_cache(origin, remote=peers)
    assert not shared.begins_anew("b/k"), "its owner may have kept something"
    peers.sure = False
    assert shared.begins_anew("b/k")
    _, off = new_cache(origin, shares_loads=False)
    task = await loading(origin, off)
    assert off.begins_anew("k")
    origin.open.set()
    await task


class ManyAtATime(Origin):
    """An origin that is asked for several values in one question."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[list[str]] = []

    async def load_many(self, keys: Sequence[str]) -> Mapping[str, bytes | None]:
        self.questions.append(list(keys))
        found = {key: self.rows[key] for key in keys if key in self.rows}
        await asyncio.sleep(0)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return found


def many_at_a_time(origin: ManyAtATime, gate: Gate | None = None) -> tuple[ReadCache, Group]:
    shelf = Shelf(gate or Gate(running_max=10, waiting_max=10), Stats(), LruStore(MIB))
    spec = GroupSpec("items", origin.load, may_keep=lambda key: key != "moving", load_many=origin.load_many)
    cache = ReadCache([spec], shelf, flights_max=100)
    return cache, cache["items"]


async def test_several_values_are_one_question() -> None:
    origin = ManyAtATime()
    origin.rows = {"a": b"1", "b": b"2", "c": b"3", "moving": b"4"}
    cache, group = many_at_a_time(origin, Gate(running_max=1, waiting_max=0))
    assert await group.get("a") == b"1"
    asked = ["c", "a", "none", "b", "moving"]
    found = await group.get_many(asked)
    assert list(found) == asked
    assert found == {"c": b"3", "a": b"1", "none": None, "b": b"2", "moving": b"4"}
    assert origin.questions == [["c", "none", "b", "moving"]]
    assert (group.cached("b"), group.cached("none"), group.cached("moving")) == (b"2", None, MISSING)
    assert (cache.stats.loads, origin.loads) == (2, ["a"])
    assert await group.get_many(["a", "b"]) == {"a": b"1", "b": b"2"}
    assert len(origin.questions) == 1


async def test_several_readers_of_overlapping_values_ask_for_each_once() -> None:
    origin = ManyAtATime()
    origin.rows = {key: key.encode() for key in "abcd"}
    origin.open.clear()
    _, group = many_at_a_time(origin)
    readers = [asyncio.create_task(group.get_many(keys)) for keys in ("abc", "bcd", "abcd")]
    single = asyncio.create_task(group.get("b"))
    await settle()
    group.forget("c")
    origin.rows["c"] = b"changed"
    late = asyncio.create_task(group.get_many("cd"))
    await settle()
    origin.open.set()
    told = await asyncio.gather(*readers)
    assert [list(one.values()) for one in told] == [[b"a", b"b", b"c"], [b"b", b"c", b"d"], [b"a", b"b", b"c", b"d"]]
    assert await late == {"c": b"changed", "d": b"d"}
    assert await single == b"b"
    # One value alone is asked for as such.
    assert (origin.questions, origin.loads) == ([["a", "b", "c"]], ["d", "c"])
    assert group.cached("c") == b"changed"


async def test_an_error_of_one_question_for_several_is_told_to_all_who_wait() -> None:
    origin = ManyAtATime()
    origin.error = ConnectionError("the origin is away")
    origin.open.clear()
    cache, group = many_at_a_time(origin)
    readers = [asyncio.create_task(group.get_many("ab")), asyncio.create_task(group.get("b"))]
    await settle()
    origin.open.set()
    told = await asyncio.gather(*readers, return_exceptions=True)
    assert [str(one) for one in told] == ["the origin is away"] * 2
    assert (cache.stats.loads, cache.stats.load_errors, cache.entries) == (1, 1, 0)
    await cache.close()
