"""What a node does while it can see whether shards were rebuilt, and while it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from cache_node import rebuilds as module
from cache_node.hearing import Hearing
from cache_node.rebuilds import Rebuilds
from shared.archive_cache.changes import Changes
from shared.domain.errors import Unavailable
from shared.read_cache.cache import GroupSpec, ReadCache
from shared.read_cache.opening import open_read_cache
from shared.read_cache.remote import Heard
from shared.read_cache.settings import ReadCacheSettings
from tests.waiting import eventually


class Archive:
    def __init__(self) -> None:
        self.is_away = False
        self.error: Exception | None = None
        self.epochs = 7
        self.looks = 0
        self.loads: list[str] = []

    async def load(self, key: str) -> bytes | None:
        self.loads.append(key)
        return b"a row"

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        self.looks += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if self.is_away:
            raise Unavailable("the archive cannot be asked", retry_after_s=2)
        return [{"epochs": self.epochs}]


class World:
    def __init__(self, archive: Archive, cache: ReadCache) -> None:
        self.archive = archive
        self.cache = cache
        self.rebuilds = Rebuilds(archive, cache.reset, on_blind=cache.withhold, on_sight=cache.tell_again)

    async def is_told(self, key: str) -> bool:
        """Whether a get needs no question."""
        before = len(self.archive.loads)
        await self.cache["items"].get(key)
        return len(self.archive.loads) == before

    async def looks(self, count: int = 3) -> None:
        until = self.archive.looks + count
        await eventually(lambda: self.archive.looks >= until)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    archive = Archive()
    async with open_read_cache(ReadCacheSettings(read_cache="local"), [GroupSpec("items", archive.load)]) as cache:
        made = World(archive, cache)
        task = asyncio.create_task(made.rebuilds.run())
        try:
            await made.looks()
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.001)


async def test_a_rebuilt_shard_makes_all_be_forgotten() -> None:
    archive, told = Archive(), []
    rebuilds = Rebuilds(archive, lambda: told.append(1), on_blind=lambda: None, on_sight=lambda: None)
    await rebuilds.look()
    await rebuilds.look()
    assert told == []
    archive.is_away = True
    with pytest.raises(Unavailable):
        await rebuilds.look()
    archive.is_away, archive.epochs = False, 9
    await rebuilds.look()
    await rebuilds.look()
    assert told == [1]


async def test_who_cannot_see_it_tells_nothing_and_keeps_all() -> None:
    """Mostly nothing was rebuilt, and a cache that is empty just when PostgreSQL comes back helps nobody."""
    async with world() as here:
        await here.cache["items"].get("a")
        await here.cache["items"].get("b")
        assert await here.is_told("a")
        here.archive.is_away = True
        await here.looks()
        assert not await here.is_told("a")
        assert not await here.is_told("loaded meanwhile")
        here.cache["items"].forget("b")
        here.archive.is_away = False
        await here.looks()
        assert await here.is_told("a")
        assert await here.is_told("loaded meanwhile")
        assert not await here.is_told("b"), "what was forgotten meanwhile stays so"


async def test_what_was_rebuilt_while_nobody_saw_it_is_forgotten() -> None:
    async with world() as here:
        await here.cache["items"].get("a")
        here.archive.is_away = True
        await here.looks()
        here.archive.is_away, here.archive.epochs = False, 9
        await here.looks()
        assert here.cache.is_telling
        assert not await here.is_told("a")


async def test_one_look_may_fail() -> None:
    archive, blind = Archive(), []
    rebuilds = Rebuilds(archive, lambda: None, on_blind=lambda: blind.append(1), on_sight=lambda: None)
    archive.is_away = True
    for told in ([], [1]):
        with pytest.raises(Unavailable):
            await rebuilds.look()
        assert blind == told


async def test_who_has_seen_something_in_between_is_blind_again_all_the_same() -> None:
    """One look of two succeeds, as before values are kept again, while the others go on to fail."""
    async with world() as here:
        here.archive.is_away = True
        await here.looks()
        assert not here.cache.is_telling
        here.archive.is_away = False
        await here.rebuilds.look()
        here.archive.is_away = True
        assert here.cache.is_telling
        await here.looks()
        assert not here.cache.is_telling


async def test_where_nobody_looks_any_more_nothing_is_told() -> None:
    async with world() as here:
        await here.cache["items"].get("a")
        here.archive.error = ZeroDivisionError()
        await here.looks(1)
        await eventually(lambda: not here.cache.is_telling)
        here.archive.error = None
        await here.rebuilds.look()
        assert not await here.is_told("a"), "a single look, before values are kept, is not enough"
        again = asyncio.create_task(here.rebuilds.run())
        await here.looks()
        assert await here.is_told("a")
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)


async def test_how_far_a_node_has_heard_is_what_events_and_recoveries_tell() -> None:
    archive = Archive()
    changes = Changes(cast(Any, archive))
    rebuilds = Rebuilds(archive, lambda: None, on_blind=lambda: None, on_sight=lambda: None)
    hearing = Hearing(changes, rebuilds)
    assert (hearing.heard(), hearing.needed()) == (Heard(0, 0), Heard(0, 0))
    changes.follow(lambda: 12)
    changes._stream = 3
    await rebuilds.look()
    assert (hearing.heard(), hearing.needed()) == (Heard(12, 7, 3), Heard(0, 7, 3))
