"""A group in a cluster, whose peers answer when the test says so."""

from __future__ import annotations

import asyncio

import pytest

from shared.read_cache.errors import Overloaded, PeerFailed
from shared.read_cache.groups.group import MISSING, GroupLimits
from shared.read_cache.remote import Fetched, Heard
from tests.unit.shared.read_cache.origins import Origin, Peers, new_cache, settle


@pytest.fixture
def origin() -> Origin:
    origin = Origin()
    origin.rows = {"here/1": b"mine", "b/1": b"of b", "b/2": b"of b too"}
    return origin


async def test_the_owner_is_asked_and_nobody_else(origin: Origin) -> None:
    peers = Peers("b")
    peers.answer = lambda key: Fetched(b"from b", 60)
    cache, group = new_cache(origin, remote=peers, hot_from=100)
    assert await group.get("here/1") == b"mine"
    assert [await group.get("b/1") for _ in range(3)] == [b"from b"] * 3
    assert peers.asked == [("b", "b/1", False)] * 3
    assert origin.loads == ["here/1"]
    assert group.cached("b/1") is MISSING
    assert cache.stats.fetches == 3


async def test_concurrent_gets_of_a_foreign_key_are_one_question(origin: Origin) -> None:
    peers = Peers("b")
    _, group = new_cache(origin, remote=peers)
    gets = [asyncio.create_task(group.get("b/1")) for _ in range(100)]
    await settle()
    assert len(peers.waiting) == 1
    gets[0].cancel()
    peers.waiting[0](Fetched(None, 60))
    assert await asyncio.gather(*gets[1:]) == [None] * 99


async def test_a_peer_that_fails_costs_one_load_and_no_error(origin: Origin) -> None:
    peers = Peers("b")
    cache, group = new_cache(origin, remote=peers)
    gets = [asyncio.create_task(group.get("b/1")) for _ in range(100)]
    await settle()
    peers.waiting[0](PeerFailed("b", "is away"))
    assert await asyncio.gather(*gets) == [b"of b"] * 100
    assert origin.loads == ["b/1"]
    assert (cache.stats.fetches, cache.stats.fetch_failures) == (1, 1)


async def test_what_was_loaded_in_place_of_a_peer_is_kept_for_moments(origin: Origin) -> None:
    peers = Peers("b")
    peers.answer = lambda key: PeerFailed("b", "is away")
    _, group = new_cache(origin, GroupLimits(mirror_ttl_s=1.0), remote=peers)
    for _ in range(20):
        assert await group.get("b/1") == b"of b"
    assert origin.loads == ["b/1"]
    await asyncio.sleep(1.05)
    origin.rows["b/1"] = b"changed"
    assert await group.get("b/1") == b"changed"


async def test_a_load_in_place_of_a_peer_is_shared_with_what_a_peer_asks_for(origin: Origin) -> None:
    """So after the death of an owner one load is enough, where its keys go to this node."""
    peers = Peers("b")
    _, group = new_cache(origin, remote=peers)
    origin.open.clear()
    mine = asyncio.create_task(group.get("b/1"))
    await settle()
    peers.waiting[0](PeerFailed("b", "is away"))
    served: list[Fetched | Exception] = []
    for _ in range(3):
        group.load_for_peer("b/1", served.append)
    await settle()
    origin.open.set()
    assert await mine == b"of b"
    await settle()
    assert [each.value for each in served if isinstance(each, Fetched)] == [b"of b"] * 3
    assert origin.loads == ["b/1"]


async def test_an_overloaded_origin_is_not_asked_from_elsewhere(origin: Origin) -> None:
    peers = Peers("b")
    peers.answer = lambda key: Overloaded("the origin is busy")
    _, group = new_cache(origin, remote=peers)
    with pytest.raises(Overloaded, match="the origin is busy"):
        await group.get("b/1")
    assert origin.loads == []


async def test_the_error_of_a_load_in_place_of_a_peer_is_told(origin: Origin) -> None:
    peers = Peers("b")
    peers.answer = lambda key: PeerFailed("b", "is away")
    origin.error = ConnectionError("so is the origin")
    _, group = new_cache(origin, remote=peers)
    with pytest.raises(ConnectionError, match="so is the origin"):
        await group.get("b/1")


async def test_a_hot_foreign_key_is_mirrored_for_moments_and_never_longer_than_its_owner_keeps_it(
    origin: Origin,
) -> None:
    peers = Peers("b")
    fresh_s = 60.0
    peers.answer = lambda key: Fetched(b"from b", fresh_s)
    cache, group = new_cache(origin, GroupLimits(mirror_ttl_s=1.0), remote=peers, hot_from=3)
    for _ in range(10):
        assert await group.get("b/1") == b"from b"
    assert len(peers.asked) == 3
    assert cache.stats.mirror_hits == 7
    await asyncio.sleep(1.05)
    fresh_s = 0.0
    for _ in range(3):
        await group.get("b/1")
    assert len(peers.asked) == 6


async def test_a_fetch_that_began_before_a_removal_is_not_mirrored(origin: Origin) -> None:
    peers = Peers("b")
    _, group = new_cache(origin, remote=peers)
    early = asyncio.create_task(group.get("b/1"))
    await settle()
    group.forget("b/1")
    late = asyncio.create_task(group.get("b/1"))
    await settle()
    assert len(peers.waiting) == 2
    peers.waiting[0](Fetched(b"old", 60))
    assert await early == b"old"
    assert group.cached("b/1") is MISSING
    peers.waiting[1](Fetched(b"new", 60))
    assert await late == b"new"
    assert group.cached("b/1") == b"new"


async def test_a_removal_tells_all_nodes_and_drops_what_came_in_from_one_that_was_not_told_yet(
    origin: Origin,
) -> None:
    peers = Peers("b")
    peers.answer = lambda key: Fetched(b"old", 60)
    _, group = new_cache(origin, remote=peers)
    late: list[asyncio.Task[bytes | None]] = []

    def meanwhile() -> None:
        late.append(asyncio.create_task(group.get("b/1")))

    await group.get("b/1")
    assert group.cached("b/1") == b"old"
    peers.on_forget = meanwhile
    peers.untold = ["c"]

    async def slowly() -> None:
        await settle()

    forget = peers.forget

    async def told_slowly(name: str, keys: object) -> list[str]:
        untold = await forget(name, keys)  # type: ignore[arg-type]
        await slowly()
        return untold

    peers.forget = told_slowly  # type: ignore[method-assign,assignment]
    assert await group.remove("b/1") == ["c"]
    assert await late[0] == b"old"
    assert group.cached("b/1") is MISSING
    assert peers.told == [("items", ("b/1",))]
    assert await group.reset() == ["c"]
    assert peers.told[1] == ("items", None)


async def test_without_a_ring_to_rely_on_nothing_is_told_from_the_store(origin: Origin) -> None:
    peers = Peers("b")
    _, group = new_cache(origin, GroupLimits(mirror_ttl_s=0.05), remote=peers)
    await group.get("here/1")
    peers.sure = False
    origin.rows["here/1"] = b"changed"
    assert await group.get("here/1") == b"changed"
    assert await group.get("b/1") == b"of b"
    assert peers.asked == []
    await asyncio.sleep(0.06)
    assert group.cached("here/1") is MISSING


async def test_a_reader_keeps_mirrors_alone(origin: Origin) -> None:
    peers = Peers()
    cache, group = new_cache(origin, GroupLimits(mirror_ttl_s=1.0), remote=peers, reader=True)
    await group.get("here/1")
    assert group.cached("here/1") == b"mine"
    assert cache.entries == 1
    await asyncio.sleep(1.05)
    assert group.cached("here/1") is MISSING


async def test_what_a_peer_is_told(origin: Origin) -> None:
    cache, group = new_cache(origin, GroupLimits(ttl_s=100, value_bytes_max=10), remote=Peers("b"))
    origin.rows["here/large"] = b"x" * 11
    assert group.kept_for_peer(["here/1"]) == [None]
    served: list[Fetched | Exception] = []
    for key in ("here/1", "here/none", "here/large"):
        group.load_for_peer(key, served.append)
    await settle()
    values = {(each.value, each.fresh_s > 0) for each in served if isinstance(each, Fetched)}
    assert values == {(b"mine", True), (None, True), (b"x" * 11, False)}
    (kept,) = group.kept_for_peer(["here/1"])
    assert kept is not None
    assert (kept.value, 85 < kept.fresh_s < 100) == (b"mine", True)
    assert (cache.stats.served, cache.stats.served_hits) == (2, 1)
    origin.error = ConnectionError("away")
    group.load_for_peer("here/3", served.append)
    await settle()
    assert isinstance(served[-1], ConnectionError)


async def test_taking_over_what_another_node_keeps(origin: Origin) -> None:
    peers = Peers("b")
    _, group = new_cache(origin, remote=peers)
    task = asyncio.create_task(group.take_over("here/1", "b"))
    await settle()
    assert peers.asked == [("b", "here/1", True)]
    reader = asyncio.create_task(group.get("here/1"))
    await settle()
    peers.waiting[0](Fetched(b"from before", 60))
    assert await task
    assert await reader == b"from before"
    assert group.cached("here/1") == b"from before"
    assert not await group.take_over("here/1", "b")
    assert origin.loads == []
    assert group.keys_kept() == ["here/1"]


async def test_what_is_taken_over_is_dropped_where_it_was_removed_meanwhile(origin: Origin) -> None:
    peers = Peers("b")
    _, group = new_cache(origin, remote=peers)
    task = asyncio.create_task(group.take_over("here/1", "b"))
    await settle()
    group.forget("here/1")
    peers.waiting[0](Fetched(b"old", 60))
    assert not await task
    assert group.cached("here/1") is MISSING
    assert await group.get("here/1") == b"mine"


async def test_a_take_over_that_finds_nothing_loads_only_for_a_reader_who_waits(origin: Origin) -> None:
    peers = Peers("b")
    _, group = new_cache(origin, remote=peers)
    peers.answer = lambda key: PeerFailed("b", "keeps nothing")
    assert not await group.take_over("here/1", "b")
    assert origin.loads == []
    peers.answer = None
    task = asyncio.create_task(group.take_over("here/1", "b"))
    await settle()
    reader = asyncio.create_task(group.get("here/1"))
    await settle()
    peers.waiting[0](PeerFailed("b", "keeps nothing"))
    assert await reader == b"mine"
    assert not await task
    assert origin.loads == ["here/1"]


@pytest.mark.parametrize("told", [Heard(4, 2, 7), Heard(5, 1, 7), Heard(), Heard(9, 2, 6), Heard(9, 2, 8)])
async def test_nothing_is_taken_over_from_a_node_that_has_heard_less(origin: Origin, told: Heard) -> None:
    """It may keep what has changed since; and nobody tells of that change again."""
    peers = Peers("b")
    cache, group = new_cache(origin, remote=peers)
    cache.hear(lambda: Heard(9, 2, 7), needed=lambda: Heard(5, 2, 7))
    task = asyncio.create_task(group.take_over("here/1", "b"))
    await settle()
    reader = asyncio.create_task(group.get("here/1"))
    await settle()
    peers.waiting[0](Fetched(b"old", 60, told))
    assert not await task
    assert await reader == b"mine", "nor is a reader told of it"
    assert group.cached("here/1") == b"mine"
    peers.answer = lambda key: Fetched(b"old", 60, told)
    assert not await group.take_over("here/2", "b")
    assert group.cached("here/2") is MISSING
    assert origin.loads == ["here/1"]


async def test_what_another_node_has_to_have_heard_is_what_was_known_here_when_it_was_asked(origin: Origin) -> None:
    peers = Peers("b")
    cache, group = new_cache(origin, remote=peers)
    needed = Heard(5, 2)
    cache.hear(lambda: Heard(9, 2), needed=lambda: needed)
    task = asyncio.create_task(group.take_over("here/1", "b"))
    await settle()
    # The change concerns another key: otherwise this one would have been forgotten.
    needed = Heard(6, 2)
    peers.waiting[0](Fetched(b"from before", 60, Heard(5, 2)))
    assert await task
    assert group.cached("here/1") == b"from before"


async def test_a_peer_is_told_how_far_this_process_had_heard_when_the_value_was_looked_up(origin: Origin) -> None:
    cache, group = new_cache(origin, remote=Peers("b"))
    cache.hear(lambda: Heard(9, 2), needed=lambda: Heard(5, 2))
    await group.get("here/1")
    (kept,) = group.kept_for_peer(["here/1"])
    assert kept is not None
    assert kept.heard == Heard(9, 2)


async def test_keys_kept_are_those_of_the_group_and_of_its_generation(origin: Origin) -> None:
    _, group = new_cache(origin, remote=Peers())
    await group.get("here/1")
    group.forget_all()
    await group.get("b/1")
    assert group.keys_kept() == ["b/1"]


async def test_a_load_that_began_before_this_process_slept_for_too_long_is_not_kept(origin: Origin) -> None:
    """It finds that out when the load ends, and not before."""
    peers = Peers("b")
    cache, group = new_cache(origin, remote=peers)
    await group.get("here/1")
    origin.open.clear()
    loads = [asyncio.create_task(group.get(key)) for key in ("here/2", "here/3")]
    fetch = asyncio.create_task(group.get("b/1"))
    await settle()

    def wakes_up() -> bool:
        peers.is_sure = lambda: True  # type: ignore[method-assign]
        cache.reset()
        return True

    peers.is_sure = wakes_up  # type: ignore[method-assign]
    origin.open.set()
    await asyncio.gather(*loads)
    assert [group.cached(key) for key in ("here/1", "here/2", "here/3")] == [MISSING] * 3
    peers.is_sure = wakes_up  # type: ignore[method-assign]
    peers.waiting[0](Fetched(b"old", 60))
    assert await fetch == b"old"
    assert group.cached("b/1") is MISSING


async def test_a_peer_is_told_nothing_that_was_kept_before_this_process_slept(origin: Origin) -> None:
    peers = Peers()
    _, group = new_cache(origin, remote=peers)
    await group.get("here/1")
    assert group.kept_for_peer(["here/1"]) != [None]
    peers.sure = False
    assert group.kept_for_peer(["here/1"]) == [None]


async def test_what_was_forgotten_takes_no_room_from_what_is_taken_over(origin: Origin) -> None:
    """It lies there until others come, and counts as used."""
    cache, group = new_cache(origin, remote=Peers("b"))
    origin.rows = {f"here/{number}": b"x" * 10_000 for number in range(60)}
    await group.get_many(origin.rows)
    assert cache.bytes_live > 600_000
    cache.reset()
    assert (cache.bytes_live, cache.bytes_used > 600_000) == (0, True)
    await group.get("here/1")
    assert 10_000 < cache.bytes_live < 11_000
    for _ in range(200):
        group.forget("here/1")
        await group.get("here/1")
    assert cache.bytes_live == cache.bytes_used


async def test_a_peer_is_told_nothing_before_it_is_known_that_this_process_was_awake(origin: Origin) -> None:
    cache, group = new_cache(origin, remote=Peers())
    await group.get("here/1")
    assert group.kept_for_peer(["here/1"]) != [None]
    cache.before_telling(cache.suspend)
    assert group.kept_for_peer(["here/1"]) == [None]
