"""A gateway with a cache of its own, whom nobody tells of changes: it never tells an older item than the last void that
was acknowledged before it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_gateway.engine.closed import closed_items as closed_items_module
from api_gateway.engine.closed.reads import KEPT_S, Reads, open_reads
from shared.read_cache.groups import kept as kept_module
from shared.read_cache.groups import singleflight as singleflight_module
from shared.read_cache.settings import ReadCacheSettings
from shared.redis_layout.limits import RETURNED_KEEP_S
from tests.unit.api_gateway.engine.closed.closed_world import FakeArchive, FakeRedis, Gateway, World

LOCAL: Final = ReadCacheSettings(read_cache="local")
READERS_MAX: Final = 8


@asynccontextmanager
async def gateway() -> AsyncIterator[tuple[World, Gateway, Reads]]:
    world = World()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_module, "clock_s", world.clock)
        patch.setattr(singleflight_module, "now_s", world.clock)
        patch.setattr(closed_items_module, "now_s", world.clock)
        redis = cast(Any, FakeRedis(world))
        async with open_reads(LOCAL, FakeArchive(world), redis, cast(Any, None)) as reads:
            yield world, Gateway(world, reads), reads


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def step(world: World, which: int = 0) -> None:
    """One question is answered, or one answer comes, and whoever waited for it goes on."""
    world.let_go(which)
    await settle()


async def finish(world: World, *tasks: asyncio.Task[int | None]) -> list[int | None]:
    while not all(task.done() for task in tasks):
        await step(world)
    return [task.result() for task in tasks]


def test_what_is_kept_is_gone_long_before_the_item_may_leave_again() -> None:
    """A question that is KEPT_S old may be joined, and answered by what is kept as long."""
    assert KEPT_S == RETURNED_KEEP_S / 3
    assert 2 * KEPT_S < RETURNED_KEEP_S


async def test_what_was_asked_once_is_not_asked_again() -> None:
    async with gateway() as (world, reader, _):
        for _ in range(3):
            assert [await reader.item(), await reader.history(), await reader.listed()] == [5, 5, 5]
        assert world.questions == ["states/lot", "items/lot/bids"]
        world.now_s += KEPT_S
        assert await reader.item() == 5
        assert world.questions == ["states/lot", "items/lot/bids", "states/lot"]


async def test_a_void_is_seen_at_once_and_when_the_item_has_left_again() -> None:
    async with gateway() as (world, reader, _):
        assert await reader.history() == 5
        world.strike()
        assert await reader.item() == 6
        world.archive()
        world.now_s += RETURNED_KEEP_S
        world.leave()
        assert [await reader.item(), await reader.history(), await reader.listed()] == [6, 6, 6]


async def test_an_item_that_came_back_before_its_load_is_told_and_not_kept() -> None:
    """1. A reader hears from Redis that the item has left, and sleeps. 2. A bid is struck, which is not archived. 3.
    The reader wakes up and asks the archive. 4. It is archived, and the item leaves. 5. Somebody asks."""
    async with gateway() as (world, reader, reads):
        world.holds = True
        early = asyncio.create_task(reader.item())
        await settle()
        for _ in range(4):
            await step(world)  # Redis has it not, and the shard is open
        world.strike()
        world.now_s += RETURNED_KEEP_S
        assert await finish(world, early) == [5], "it began before the void"
        world.archive()
        world.leave()
        world.holds = False
        assert await reader.item() == 6
        assert reads.cache is not None
        assert reads.cache.stats.forgotten == 1


async def test_a_question_that_hangs_is_not_joined_after_the_void() -> None:
    """1. The archive is asked, and this process is stopped before the answer comes. 2. A bid is struck, is archived,
    and the item leaves. 3. The process goes on, and somebody asks."""
    async with gateway() as (world, reader, _):
        world.holds = True
        early = asyncio.create_task(reader.item())
        await settle()
        for _ in range(7):
            await step(world)  # as far as PostgreSQL's answer, which is on its way
        assert (world.questions, world.waiting) == (["states/lot"], 1)
        world.strike_and_leave()
        late = asyncio.create_task(reader.item())
        await settle()
        for _ in range(20):
            await step(world, -1)
        assert await finish(world, early, late) == [5, 6]
        world.holds = False
        assert await reader.item() == 6


async def test_a_recovery_leaves_a_struck_item_out_of_redis() -> None:
    async with gateway() as (world, reader, _):
        assert await reader.history() == 5
        world.strike()
        world.lose()
        assert await reader.item() is None, "its shard is lost"
        world.recover()
        assert [await reader.item(), await reader.history(), await reader.listed()] == [6, 6, 6]


async def test_what_redis_cannot_confirm_is_told_and_not_kept() -> None:
    async with gateway() as (world, _, reads):
        world.epoch = None
        for _ in range(2):
            assert await reads.archive.get("states/lot") is not None
            assert set(await reads.archive.states(["lot", "other"])) == {"lot", "other"}
        assert len(world.questions) == 4


async def test_that_there_is_none_is_asked_for_once_and_never_taken_from_the_cache() -> None:
    async with gateway() as (world, _, reads):
        for asked in (1, 2):
            assert await reads.archive.get("states/none") is None
            assert world.questions == ["states/none"] * asked
        assert set(await reads.archive.states(["none", "lot"])) == {"lot"}
        assert world.questions[2:] == ["none,lot"]
        world.holds = True
        early, late = [asyncio.create_task(reads.archive.states(["none", "lot"])) for _ in range(2)]
        await settle()
        while not (early.done() and late.done()):
            await step(world)
        assert (set(early.result()), set(late.result())) == ({"lot"}, {"lot"})
        assert world.questions[3:] == ["states/none", "none"], "the later one has only heard what was asked before"
        world.questions.clear()
        early_get, late_get = [asyncio.create_task(reads.archive.get("items/none/bids")) for _ in range(2)]
        await settle()
        while not (early_get.done() and late_get.done()):
            await step(world)
        assert world.questions == ["items/none/bids"] * 2


ACTIONS: Final[dict[str, Callable[[World], object]]] = {
    "strike": World.strike,
    "archive": World.archive,
    "leave": World.leave,
    "strike and leave": World.strike_and_leave,
    "strike and recover": World.strike_and_recover,
    "lose": World.lose,
    "recover": World.recover,
}
WAITS_S: Final = (0.1, 5.0, KEPT_S - 1, KEPT_S + 1, RETURNED_KEEP_S)
_actions = st.one_of(
    st.sampled_from(["item", "history", "listed"]),
    st.sampled_from(list(ACTIONS)),
    st.sampled_from(["strike", "archive", "leave", "strike and leave", "strike and leave"]),
    st.sampled_from(WAITS_S),
    st.just("all go on"),
    st.integers(0, 5),
    st.integers(0, 5),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_actions, min_size=20, max_size=50))
def test_no_order_of_events_shows_a_reader_what_was_before_a_void(actions: list[str | float | int]) -> None:
    """Whatever waits for whatever, and however long: a number lets a question go on, a time passes."""
    asyncio.run(_run(actions))


async def _run(actions: list[str | float | int]) -> None:
    async with gateway() as (world, reader, _):
        readers: list[tuple[int, asyncio.Task[int | None]]] = []
        world.holds = True
        for action in actions:
            if isinstance(action, int):
                world.let_go(action)
            elif action == "all go on":
                await finish(world, *(task for _, task in readers))
            elif isinstance(action, float):
                world.now_s += action
            elif action in ACTIONS:
                ACTIONS[action](world)
            elif sum(not task.done() for _, task in readers) < READERS_MAX:
                read: Callable[[], Coroutine[Any, Any, int | None]] = getattr(reader, action)
                readers.append((world.decided, asyncio.create_task(read())))
            await settle()
            check(readers)
        await finish(world, *(task for _, task in readers))
        check(readers)


def check(readers: list[tuple[int, asyncio.Task[int | None]]]) -> None:
    for decided, task in readers:
        if task.done():
            told = task.result()
            assert told is None or told >= decided, f"{told} was told, and {decided} decided before the question"
