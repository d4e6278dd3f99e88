"""Loads items on demand: one load per item at a time, a few items at once, and retries until Redis answers.

What Redis does not have is looked for elsewhere, by workers of its own: a slow archive keeps no live item waiting.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from functools import partial
from typing import Final, Protocol

from redis.exceptions import RedisError

from broadcast_service.core.feed import Recovery, Wanted
from broadcast_service.metrics import Metrics
from broadcast_service.sources.left_items import ArchiveAway
from shared.pacing.backoff import Backoff
from shared.supervision import loudly

logger = logging.getLogger(__name__)

WORKERS: Final = 8
ABSENT_WORKERS: Final = 4
"""Workers that look elsewhere for what Redis does not have."""
RETRY_FIRST_S: Final = 0.1
RETRY_MAX_S: Final = 2.0


class Reader(Protocol):
    """Reads one item; see :class:`~broadcast_service.sources.snapshots.SnapshotReader`, whose errors it shares."""

    async def read(self, item_id: str, wanted: Wanted) -> Recovery | None: ...

    async def read_left(self, item_id: str, wanted: Wanted) -> Recovery | None: ...

    async def is_lost(self, item_id: str) -> bool: ...


class Listener(Protocol):
    """Is told what was loaded. Each request leads to at least one call of the last four methods."""

    def watches(self, item_id: str) -> bool: ...

    def history_wanted(self, item_id: str) -> Wanted: ...

    def loaded(self, item_id: str, recovery: Recovery, *, again: bool) -> None: ...

    def missing(self, item_id: str) -> None: ...

    def lost(self, item_id: str) -> None: ...

    def load_failed(self, item_id: str) -> None: ...


class _Stage(Enum):
    QUEUED = "queued"
    READING = "reading"
    ASKED_AGAIN = "asked again"
    """Requested during a read, which may have begun too early: another read follows."""


class Loader:
    """``request`` may be called at any time, also before ``run``; ``run`` works until it is cancelled."""

    def __init__(self, reader: Reader, metrics: Metrics) -> None:
        self._reader = reader
        self._metrics = metrics
        # Bounded by the number of watched items: an item is in it at most once.
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._absent: asyncio.Queue[str] = asyncio.Queue()
        self._stages: dict[str, _Stage] = {}
        self._backoff = Backoff(first_s=RETRY_FIRST_S, most_s=RETRY_MAX_S)
        self._is_failing = False

    def request(self, item_id: str) -> None:
        """Load the item, by a read that begins after this call."""
        match self._stages.get(item_id):
            case None:
                self._stages[item_id] = _Stage.QUEUED
                self._queue.put_nowait(item_id)
            case _Stage.READING:
                self._stages[item_id] = _Stage.ASKED_AGAIN
            case _Stage.QUEUED | _Stage.ASKED_AGAIN:
                pass

    async def run(self, listener: Listener) -> None:
        """Serve requests until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(loudly(partial(self._work, listener)))
            for _ in range(ABSENT_WORKERS):
                group.create_task(loudly(partial(self._work_on_absent, listener)))

    async def _work(self, listener: Listener) -> None:
        while True:
            item_id = await self._queue.get()
            if not listener.watches(item_id):
                del self._stages[item_id]
                continue
            self._stages[item_id] = _Stage.READING
            self._metrics.loads += 1
            await self._load(item_id, listener, is_absent=False)

    async def _work_on_absent(self, listener: Listener) -> None:
        while True:
            item_id = await self._absent.get()
            if not listener.watches(item_id):
                del self._stages[item_id]
                continue
            await self._load(item_id, listener, is_absent=True)

    async def _load(self, item_id: str, listener: Listener, *, is_absent: bool) -> None:
        wanted, is_lost = listener.history_wanted(item_id), False
        try:
            if not is_absent:
                recovery = await self._reader.read(item_id, wanted)
                if recovery is None:
                    self._absent.put_nowait(item_id)
                    return
            else:
                recovery = await self._reader.read_left(item_id, wanted)
                is_lost = recovery is None and await self._reader.is_lost(item_id)
        except ArchiveAway:
            # The item may be a closed one. Its viewers wait, as for a lost item, for which the hub asks again.
            recovery, is_lost = None, True
        except (RedisError, OSError, TimeoutError) as error:
            if not self._is_failing:
                # Logged once, not for every watched item.
                logger.warning("Redis cannot be asked, trying again: %s: %s", type(error).__name__, error)
            self._is_failing = True
            self._failed(item_id)
            listener.load_failed(item_id)
            return
        except (KeyError, ValueError) as error:
            logger.error("item %s: its hash cannot be read: %s: %s", item_id, type(error).__name__, error)
            self._failed(item_id)
            listener.load_failed(item_id)
            return
        if self._is_failing:
            logger.info("Redis answers again")
        self._is_failing = False
        self._backoff.succeeded()
        again = self._stages.pop(item_id) is _Stage.ASKED_AGAIN
        if again:
            self.request(item_id)
        if recovery is not None:
            listener.loaded(item_id, recovery, again=again)
        elif not again:
            # Otherwise the item may have been created since; the next read tells.
            if is_lost:
                listener.lost(item_id)
            else:
                listener.missing(item_id)

    def _failed(self, item_id: str) -> None:
        """Retry after a pause that grows. The item stays queued, so requests in between change nothing."""
        self._metrics.loads_failed += 1
        self._stages[item_id] = _Stage.QUEUED
        asyncio.get_running_loop().call_later(self._backoff.failed(), self._queue.put_nowait, item_id)
