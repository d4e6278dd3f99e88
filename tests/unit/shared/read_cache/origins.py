"""Origins and peers for tests of the cache that need no network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from shared.read_cache.cache import GroupSpec, ReadCache
from shared.read_cache.errors import Overloaded, PeerFailed
from shared.read_cache.groups.group import Group, GroupLimits, Shelf
from shared.read_cache.groups.hot import HotKeys, Mirrors
from shared.read_cache.groups.shedding import Gate
from shared.read_cache.remote import Fetched, OnFetched, Remote
from shared.read_cache.stats import Stats
from shared.read_cache.store.base import Store
from shared.read_cache.store.lru import LruStore

MIB = 1024**2


class Origin:
    """A table of values. What is read is read when a load begins, and told when the load is let go on."""

    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}
        self.loads: list[str] = []
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()

    async def load(self, key: str) -> bytes | None:
        self.loads.append(key)
        value, error = self.rows.get(key), self.error
        await asyncio.sleep(0)
        await self.open.wait()
        if error is not None:
            raise error
        return value


class Peers(Remote):
    """Other nodes: keys that begin with their name and a slash are theirs. They answer when the test says so."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.sure = True
        self.asked: list[tuple[str, str, bool]] = []
        self.waiting: list[OnFetched] = []
        self.answer: Callable[[str], Fetched | PeerFailed | Overloaded] | None = None
        self.told: list[tuple[str, Sequence[str] | None]] = []
        self.untold: list[str] = []
        self.on_forget: Callable[[], None] = lambda: None

    def owner(self, key: str) -> str | None:
        name = key.partition("/")[0]
        return name if name in self.names and self.sure else None

    def is_sure(self) -> bool:
        return self.sure

    def ask(self, owner: str, group: str, key: str, on_fetched: OnFetched, *, kept_only: bool = False) -> None:
        self.asked.append((owner, key, kept_only))
        if self.answer is not None:
            on_fetched(self.answer(key))
        else:
            self.waiting.append(on_fetched)

    async def forget(self, group: str, keys: Sequence[str] | None) -> list[str]:
        self.told.append((group, keys))
        self.on_forget()
        return self.untold


def new_cache(
    origin: Origin,
    limits: GroupLimits | None = None,
    *,
    remote: Remote | None = None,
    store: Store | None = None,
    gate: Gate | None = None,
    reader: bool = False,
    shares_loads: bool = True,
    hot_from: int = 1,
) -> tuple[ReadCache, Group]:
    shelf = Shelf(
        gate=gate or Gate(running_max=1_000, waiting_max=1_000),
        stats=Stats(),
        store=None if reader else store or LruStore(MIB),
        mirrors=None if remote is None else Mirrors(MIB, HotKeys(hot_from=hot_from)),
        remote=remote,
        shares_loads=shares_loads,
    )
    cache = ReadCache([GroupSpec("items", origin.load, limits or GroupLimits())], shelf, flights_max=2_000)
    return cache, cache["items"]


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)
