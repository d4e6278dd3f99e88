"""How old a page of the catalogue may be, and what of it is kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.archive_cache.reads import (
    CATALOGUE_LIMITS,
    CATALOGUE_OLD_S,
    CachedReads,
    groups,
    name_of_group,
    never_unsettled,
)
from shared.archive_reads.keys import catalogue_key
from shared.read_cache.cache import GroupSpec, ReadCache
from shared.read_cache.groups import kept as kept_module
from shared.read_cache.groups import singleflight as singleflight_module
from shared.read_cache.groups.group import Group, Shelf
from shared.read_cache.groups.hot import HotKeys, Mirrors
from shared.read_cache.groups.shedding import Gate
from shared.read_cache.opening import open_read_cache
from shared.read_cache.remote import Fetched, OnFetched, Remote
from shared.read_cache.settings import ReadCacheSettings
from shared.read_cache.stats import Stats
from shared.read_cache.store.lru import LruStore
from tests.unit.shared.read_cache.origins import settle

KEY: Final = catalogue_key(sort="newest", status="sold", limit=50)
NEXT: Final = catalogue_key(sort="price", status=None, limit=50, cursor="WyJwcmljZSIsIkVVUjo1IiwiYSJd")
MIB: Final = 1024**2


class Archive:
    """Tells what time it was when it was asked. What waits goes on when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.questions: list[str] = []
        self.holds = False
        self.points: list[asyncio.Future[None]] = []

    def clock(self) -> float:
        return self.now_s

    async def get(self, key: str) -> bytes | None:
        self.questions.append(key)
        asked_s = self.now_s
        await self.point()
        return repr(asked_s).encode()

    def let_go(self, which: int) -> None:
        if self.points:
            self.points.pop(which % len(self.points)).set_result(None)

    async def point(self) -> None:
        if self.holds:
            point = asyncio.get_running_loop().create_future()
            self.points.append(point)
            await point


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch) -> Archive:
    made = Archive()
    monkeypatch.setattr(kept_module, "clock_s", made.clock)
    monkeypatch.setattr(singleflight_module, "now_s", made.clock)
    return made


@asynccontextmanager
async def reads_of(archive: Archive) -> AsyncIterator[CachedReads]:
    specs = groups(archive, never_unsettled)
    async with open_read_cache(ReadCacheSettings(read_cache="local"), specs) as cache:
        yield CachedReads(cache, archive)


async def test_a_first_page_is_kept_for_a_moment(archive: Archive) -> None:
    async with reads_of(archive) as reads:
        assert await reads.get(KEY) == b"1000.0"
        archive.now_s += CATALOGUE_OLD_S / 2 * 0.85
        assert await reads.get(KEY) == b"1000.0"
        archive.now_s += CATALOGUE_OLD_S / 2 * 0.15
        assert await reads.get(KEY) == b"1000.25"
        assert archive.questions == [KEY, KEY]


async def test_those_who_ask_at_one_time_share_a_question(archive: Archive) -> None:
    async with reads_of(archive) as reads:
        for key in (KEY, NEXT):
            archive.questions.clear()
            await asyncio.gather(*(reads.get(key) for _ in range(200)))
            assert archive.questions == [key]


async def test_what_follows_a_cursor_that_anybody_may_make_up_is_not_kept(archive: Archive) -> None:
    async with reads_of(archive) as reads:
        before = reads._cache.bytes_used
        for _ in range(3):
            assert await reads.get(NEXT) == b"1000.0"
        assert archive.questions == [NEXT] * 3
        assert reads._cache.bytes_used == before


async def test_a_slow_question_is_joined_for_a_moment_only(archive: Archive) -> None:
    async with reads_of(archive) as reads:
        archive.holds = True
        tasks = []
        for _ in range(3):
            tasks.append(asyncio.create_task(reads.get(KEY)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            archive.now_s += CATALOGUE_OLD_S / 2 * 0.6
        for _ in range(20):
            await asyncio.sleep(0)
        assert archive.questions == [KEY, KEY]
        for point in archive.points:
            point.set_result(None)
        told = [float(await task or b"0") for task in tasks]
        assert told == pytest.approx([1000.0, 1000.0, 1000.3])


class Owner(Remote):
    """The one other node, over a network that answers when the test says so."""

    def __init__(self, group: Group, archive: Archive) -> None:
        self._group = group
        self._archive = archive
        self._tasks: set[asyncio.Task[None]] = set()

    def owner(self, key: str) -> str | None:
        return "b"

    def is_sure(self) -> bool:
        return True

    def ask(self, owner: str, group: str, key: str, on_fetched: OnFetched, *, kept_only: bool = False) -> None:
        task = asyncio.create_task(self._answer(key, on_fetched))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, key: str, on_fetched: OnFetched) -> None:
        await self._archive.point()
        (kept,) = self._group.kept_for_peer([key])
        if kept is None:
            served: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._group.load_for_peer(key, served.set_result)
            kept = await served
        assert isinstance(kept, Fetched)
        await self._archive.point()
        on_fetched(kept)

    async def forget(self, group: str, keys: Sequence[str] | None) -> list[str]:
        return []


def cache_of(archive: Archive, *, owner: Group | None = None) -> ReadCache:
    gate = Gate(running_max=100, waiting_max=100)
    remote = None if owner is None else Owner(owner, archive)
    store, mirrors = (LruStore(MIB), None) if owner is None else (None, Mirrors(MIB, HotKeys(hot_from=1)))
    shelf = Shelf(gate, Stats(), store, mirrors, remote)
    return ReadCache([GroupSpec(name_of_group("catalogue"), archive.get, CATALOGUE_LIMITS)], shelf, flights_max=100)


_actions = st.one_of(
    st.just("read"), st.integers(0, 5), st.integers(0, 5), st.sampled_from([0.01, 0.1, 0.2, 0.24, 0.3])
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_actions, min_size=5, max_size=40))
def test_whatever_is_on_its_way_a_page_is_half_a_second_old_at_most(
    actions: list[str | int | float],
) -> None:
    asyncio.run(_run(actions))


async def _run(actions: list[str | int | float]) -> None:
    archive = Archive()
    archive.holds = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_module, "clock_s", archive.clock)
        patch.setattr(singleflight_module, "now_s", archive.clock)
        owner = cache_of(archive)
        reader = cache_of(archive, owner=owner[name_of_group("catalogue")])
        readers: list[tuple[float, asyncio.Task[bytes | None]]] = []
        for action in actions:
            if action == "read":
                readers.append((archive.now_s, asyncio.create_task(reader[name_of_group("catalogue")].get(KEY))))
            elif isinstance(action, float):
                archive.now_s += action
            elif isinstance(action, int):
                archive.let_go(action)
            await settle()
        while not all(task.done() for _, task in readers):
            archive.let_go(0)
            await settle()
        for asked_s, task in readers:
            assert float(await task or b"0") >= asked_s - CATALOGUE_OLD_S
        await reader.close()
        await owner.close()
