"""Keeps a cache of closed items in step with the event stream.

A closed item changes when one of its bids is struck, and an item becomes a closed one. Each of these is an event, which
this process hears. The archive hears it too, and that is the race:

1. an event of the item is heard here, and what is kept of the item is forgotten;
2. somebody asks, and the archive, which has not committed that event yet, tells what was before;
3. the archive commits, and the old value would be told until it expires.

So from 1 on the item is *unsettled*: what the archive says of it is told and not kept. It is settled when the archiver
has acknowledged everything that the stream held at a moment after 1, since it acknowledges after its commit.

While this process may miss events it keeps nothing at all. That lasts until it follows the stream and the archive has
what the stream held when the following began. The same holds after this process has slept for long: what it kept may
have changed meanwhile, and the events that say so may be unread. Heartbeats do not tell that events come: so every few
seconds the stream is asked what it has, and that must have been heard when it is asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

import nats.errors

from shared import names
from shared.archive_cache.progress import Head, Progress
from shared.archive_cache.reads import keys_of, name_of_group
from shared.clients.nats import StreamUnavailable
from shared.domain.auction import Status
from shared.domain.errors import Unavailable
from shared.messages import BidVoided, DecodeError, batch_decoder, decode_any_batch
from shared.read_cache.cache import ReadCache
from shared.read_cache.membership.clock import now_s
from shared.streams.follower import Follower
from shared.supervision import loudly

logger = logging.getLogger(__name__)

UNSETTLED_MAX: Final = 10_000
"""Items. With more, nothing is kept until the archive has caught up."""
STALLED_S: Final = 20.0
"""How long a process may do nothing before it drops what it kept, if it asks Redis first: an item with a struck bid
stays there for a minute."""
WATCH_S: Final = 5.0
"""The time between two questions to the stream about how far it is."""
_ASKS_FAILED_MAX: Final = 2
_LOOK_S: Final = 0.25
_TRY_AGAIN_S: Final = 1.0
_TICK_S: Final = 1.0
_AWAY: Final = (nats.errors.Error, StreamUnavailable, Unavailable, OSError, TimeoutError)
_FINAL: Final = frozenset(status for status in Status if status.is_final)
# A message without any of these closes no item and strikes no bid, so most messages are not decoded.
_MAY_MATTER: Final = (b"sold", b"cancelled", b"voided")


async def _nothing() -> None:
    return


def _no_sequence() -> int:
    return 0


class AsksProgress(Protocol):
    """:class:`shared.archive_cache.progress.ArchiveProgress`."""

    async def ask(self) -> Progress: ...

    async def head(self) -> Head: ...


class Changes:
    """Listens to the stream for one cache. The cache keeps nothing before :meth:`run` has found it in step."""

    def __init__(
        self, progress: AsksProgress, *, clock: Callable[[], float] = now_s, stalled_s: float = STALLED_S
    ) -> None:
        """
        Args:
            clock: one that goes on while the process is stopped.
            stalled_s: a process that did nothing for longer trusts nothing that it kept.
        """
        self._cache: ReadCache | None = None
        self._progress = progress
        self._clock = clock
        self._stalled_s = stalled_s
        self._awake_s = clock()
        self._unsettled: dict[str, int] = {}
        """Unsettled items, and the round in which each was heard of last."""
        self._round = 0
        self._sequence: Callable[[], int] = _no_sequence
        self._base = 0
        """What the stream held when keeping began: the archive had all of it, and so has what was loaded since."""
        self._stream = 0
        self._changed_at = 0
        self._is_up = False
        self._missed = 0
        """How often something may have been missed."""
        self._due = asyncio.Event()
        self._before_keeping: Callable[[], Awaitable[None]] = _nothing
        self.is_keeping = False
        """Whether values are kept now."""

    def attach(self, cache: ReadCache) -> None:
        """Begin to look after this cache, which keeps nothing from now on until :meth:`run` allows it."""
        self._cache = cache
        cache.suspend()

    def follow(self, sequence: Callable[[], int]) -> None:
        """``sequence``: tells the stream's number of the message that is being handled, or was handled last; 0 before
        the first."""
        self._sequence = sequence

    @property
    def heard(self) -> int:
        """A number of the stream: what is kept reflects every message up to it."""
        return max(self._base, self._sequence())

    @property
    def stream(self) -> int:
        """The stream to which these numbers belong, named by when it was made, in microseconds; as it was when keeping
        began."""
        return self._stream

    @property
    def needed(self) -> int:
        """The number of the last message that others must have heard before this process takes over what they keep: it
        may have changed that, and will not be heard here again. It stays after its item is settled, since others may
        hear of it later."""
        return max(self._base, self._changed_at)

    def is_unsettled(self, item_id: str) -> bool:
        """Whether the archive may not have the newest event of the item that was heard of."""
        return item_id in self._unsettled

    @property
    def unsettled(self) -> int:
        """How many items are unsettled now."""
        return len(self._unsettled)

    def check(self) -> None:
        """Notice that this process has slept. Call it before the cache is asked."""
        now = self._clock()
        slept_s, self._awake_s = now - self._awake_s, now
        if slept_s > self._stalled_s:
            logger.warning("this process did nothing for %.0f s: what it kept is dropped", slept_s)
            self._may_have_missed()

    # The stream's listener

    def on_stream_up(self) -> None:
        """See :class:`shared.streams.follower.Listener`."""
        self._is_up = True
        # The stream may be another one, which counts anew.
        self._base = self._stream = self._changed_at = 0
        self._may_have_missed()

    def on_stream_down(self) -> None:
        """See :class:`shared.streams.follower.Listener`."""
        self._is_up = False
        self._suspend()

    def on_message(self, subject: str, data: bytes) -> None:
        """See :class:`shared.streams.follower.Listener`."""
        if not any(word in data for word in _MAY_MATTER):
            return
        item_id = names.item_of_subject(subject)
        try:
            batch = decode_any_batch(batch_decoder, data)
        except DecodeError:
            # This version cannot decode the message; a version that can will archive it.
            self._changed(item_id, struck=True)
            return
        is_final = any(event.status in _FINAL for event in batch.events)
        struck = any(isinstance(event, BidVoided) for event in batch.events)
        if is_final or struck:
            self._changed(item_id, struck=struck and is_final)

    def _changed(self, item_id: str, *, struck: bool) -> None:
        self._changed_at = self._sequence()
        if len(self._unsettled) >= UNSETTLED_MAX and item_id not in self._unsettled:
            self._may_have_missed()
            return
        self._unsettled[item_id] = self._round
        self._due.set()
        if self._cache is not None:
            self._cache[name_of_group("items")].forget(*keys_of(item_id))
            if struck:
                self._cache[name_of_group("pages")].forget_all()

    # What may be kept

    def _suspend(self) -> None:
        self.is_keeping = False
        if self._cache is not None:
            self._cache.suspend()

    def _may_have_missed(self) -> None:
        self._missed += 1
        self._suspend()
        self._unsettled.clear()
        self._due.set()

    async def run(self, follower: Follower, *, before_keeping: Callable[[], Awaitable[None]] = _nothing) -> None:
        """Follow the stream and settle what is heard, until cancelled; survives every outage.

        Args:
            before_keeping: awaited each time before values are kept again; where it raises ``Unavailable``, that is
            tried later.
        """
        self._before_keeping = before_keeping
        self.follow(lambda: follower.sequence)
        async with asyncio.TaskGroup() as group:
            group.create_task(loudly(partial(follower.run, self)), name="cache changes")
            group.create_task(loudly(self._tick), name="cache tick")
            group.create_task(loudly(self.settle), name="cache settle")
            group.create_task(loudly(partial(self.watch, follower.begin_anew)), name="cache watch")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.check()

    async def watch(self, begin_anew: Callable[[str], None]) -> None:
        """Compare what is heard with what the stream's leader has, until cancelled. Where what was heard is behind, or
        the leader does not say twice in a row, what is kept is dropped and ``begin_anew`` is called, which follows the
        stream by another consumer."""
        failed = 0
        due = Head(0, 0)
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                head = await self._progress.head()
            except _AWAY:
                failed += 1
                if failed >= _ASKS_FAILED_MAX:
                    self._may_have_missed()
                continue
            failed = 0
            if not self.is_keeping:
                continue
            reason = ""
            if head.stream != self._stream:
                reason = "the stream was made anew"
            elif due.stream == self._stream and self.heard < due.last:
                reason = f"the stream was at {due.last} {WATCH_S:g} s ago, and what was heard ends at {self.heard}"
            due = head
            if reason:
                logger.warning("what is kept is dropped: %s", reason)
                self._may_have_missed()
                begin_anew(reason)

    async def settle(self) -> None:
        """Settle what is heard, round by round, until cancelled."""
        failing = False
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                await self._settle_once()
                failing = False
            except _AWAY as error:
                if not failing:
                    logger.warning("nothing new is kept for now: %s", str(error) or type(error).__name__)
                failing = True
                self._due.set()
                await asyncio.sleep(_TRY_AGAIN_S)
            await asyncio.sleep(_LOOK_S)

    async def _settle_once(self) -> None:
        """Wait until the archive has all that was heard before this call."""
        ended_round, missed = self._round, self._missed
        self._round += 1
        progress = await self._progress.ask()
        target, stream = progress.last, progress.stream
        while progress.archived < target:
            await asyncio.sleep(_LOOK_S)
            progress = await self._progress.ask()
            if missed != self._missed or progress.stream != stream:
                # Begin anew: the next round waits for a newer target, which includes this one. A stream that was made
                # anew gets the messages again that the former one lost.
                self._due.set()
                return
        for item_id in [item_id for item_id, heard in self._unsettled.items() if heard <= ended_round]:
            del self._unsettled[item_id]
        if self._unsettled:
            self._due.set()
        if self._is_up and not self.is_keeping and self._cache is not None:
            await self._before_keeping()
            if self._is_up and missed == self._missed:
                self._base, self._stream = target, stream
                self._cache.resume()
                self.is_keeping = True
                logger.info("the cache is in step with the events")
