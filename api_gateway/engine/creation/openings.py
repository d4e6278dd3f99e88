"""Opens items: those that sellers create at one moment share their round trips, as bids do.

Whether anybody ever had an id is asked of the outbox, the stream and the archive, in this order
(:mod:`api_gateway.engine.loss.known_items`), once for all items that wait. An id that was made here needs no question,
and does not wait for those that do.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from api_gateway.engine.creation.new_item import NewItem, created_members, end_is_over, opened_item
from api_gateway.engine.item_scripts import ItemScripts, OpenResult
from api_gateway.engine.loss.known_items import Known, KnownItems, ask, shard_lost
from shared import names
from shared.clients.redis import told_of
from shared.domain.errors import BiddingError, ItemExists, Overloaded, Unavailable
from shared.redis_layout.item_hash import ItemState, item_fields
from shared.redis_layout.scripts import Call

logger = logging.getLogger(__name__)

WAITING_MAX: Final = 1_024
"""The most items of each kind that wait: for the answer about their ids, to be opened with ids of their own, and
without. Further ones are refused."""
TOGETHER_MAX: Final = 256
TOGETHER_CHARACTERS_MAX: Final = 512 * 1024
"""Items that are opened at once, and what their texts may have together."""
_TRIES: Final = 5


@dataclass(slots=True, eq=False)
class _Opening:
    item: NewItem
    answer: Future[Any]
    fence: str = ""

    @property
    def item_id(self) -> str:
        return self.item.terms.item_id

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # who asked may have gone


class _Queue:
    """Hands over what waits, one group after the other: items that come meanwhile are the next group."""

    def __init__(self, open_all: Callable[[Sequence[_Opening]], Coroutine[Any, Any, None]]) -> None:
        self._open_all = open_all
        self._waiting: list[_Opening] = []
        self._running: asyncio.Task[None] | None = None

    def put(self, opening: _Opening) -> None:
        if len(self._waiting) >= WAITING_MAX:
            opening.fail(Overloaded("too many items are being created; try again"))
            return
        self._waiting.append(opening)
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="open-items")

    async def _run(self) -> None:
        group: Sequence[_Opening] = ()
        try:
            while self._waiting:
                group = self._take()
                try:
                    await self._open_all(group)
                except BiddingError as error:
                    _fail_all(group, error)
                except Exception as error:  # a defect must not keep the others waiting for ever
                    logger.exception("items cannot be opened")
                    _fail_all(group, error)
        finally:
            self._running = None
            _fail_all([*group, *self._waiting], Unavailable("the gateway is shutting down; try again"))
            self._waiting.clear()

    def _take(self) -> Sequence[_Opening]:
        characters = count = 0
        for opening in self._waiting[:TOGETHER_MAX]:
            item = opening.item
            characters += len(item.name) + len(item.description) + sum(map(len, item.image_urls))
            if count and characters > TOGETHER_CHARACTERS_MAX:
                break
            count += 1
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group


class Openings:
    """Opens items in groups; each of a group has its own answer."""

    def __init__(
        self,
        scripts: ItemScripts,
        known: KnownItems,
        used: Callable[[str], Awaitable[BiddingError]],
        *,
        on_outbox: Callable[[str], None],
    ) -> None:
        """
        Args:
            used: tells why an id of which something is known cannot be given to a new item.
            on_outbox: told the shard of every outbox entry that is written.
        """
        self._scripts = scripts
        self._known = known
        self._used = used
        self._on_outbox = on_outbox
        self._asked = _Queue(self._open_unknown)
        self._unasked = _Queue(self._open_all)
        self._checked = _Queue(self._check)

    def open(self, item: NewItem) -> Future[ItemState]:
        """Open an item, as it will be told of.

        The future's result raises:
            ItemExists: the id is taken.
            TermsInvalid: the end is not in the future.
            ShardLost: it is the id of an item that Redis has lost, or of a lost shard. Nothing was created.
            Overloaded: too many wait. Nothing was created.
            Unavailable: nothing was created (say, because nobody can tell now whether the id is new), or that is
                unknown; trying the same id again is safe.
        """
        answer: Future[ItemState] = asyncio.get_running_loop().create_future()
        queue = self._unasked if item.id_is_random else self._asked
        queue.put(_Opening(item, answer))
        return answer

    def check(self, item: NewItem) -> Future[None]:
        """Find out whether anybody ever had the item's id. The future's result raises as that of :meth:`open`; in the
        moment after, somebody else may take it."""
        answer: Future[None] = asyncio.get_running_loop().create_future()
        if item.id_is_random:
            answer.set_result(None)
        else:
            self._checked.put(_Opening(item, answer))
        return answer

    async def _check(self, group: Sequence[_Opening]) -> None:
        for opening in await self._require_new(group):
            if not opening.answer.done():
                opening.answer.set_result(None)

    async def _open_unknown(self, group: Sequence[_Opening]) -> None:
        for _ in range(_TRIES):
            group = await self._open_some(await self._require_new(group))
            if not group:
                return
        _fail_all(group, Unavailable("other items are leaving Redis right now; try again", retry_after_s=1))

    async def _open_all(self, group: Sequence[_Opening]) -> None:
        # These have no fence, so none can be left over because of a fence that has changed.
        await self._open_some(group)

    async def _require_new(self, group: Sequence[_Opening]) -> list[_Opening]:
        """Those whose id nobody ever had, each with the fence that its shard had before the question. The others are
        answered."""
        unknown: list[_Opening] = []
        used: list[_Opening] = []
        answers = await ask(self._scripts.find_traces([opening.item_id for opening in group]))
        for opening, traces in zip(group, answers, strict=True):
            if isinstance(traces, ResponseError):
                opening.fail(_of_redis(traces))
            elif traces.is_there:
                opening.fail(ItemExists(opening.item_id))
            elif traces.fence is None:
                opening.fail(shard_lost())
            elif traces.is_opened:
                used.append(opening)
            else:
                opening.fence = traces.fence
                unknown.append(opening)
        new: list[_Opening] = []
        if unknown:
            # Several items of a group may want the same id.
            pasts = await self._known.look_past_outbox(list({opening.item_id: None for opening in unknown}))
            for opening in unknown:
                past = pasts[opening.item_id]
                if isinstance(past, Unavailable):
                    opening.fail(past)
                elif past is Known.NONE:
                    new.append(opening)
                elif past is Known.CLOSED:
                    opening.fail(ItemExists(opening.item_id))
                else:
                    used.append(opening)
        await asyncio.gather(*map(self._tell_used, used))
        return new

    async def _tell_used(self, opening: _Opening) -> None:
        try:
            opening.fail(await self._used(opening.item_id))
        except BiddingError as error:
            opening.fail(error)

    async def _open_some(self, group: Sequence[_Opening]) -> list[_Opening]:
        """Open them. Returns those whose fence had changed."""
        fenced: list[_Opening] = []
        if not group:
            return fenced
        results = await ask(self._scripts.open_items([self._call(opening) for opening in group]))
        for opening, result in zip(group, results, strict=True):
            if isinstance(result, ResponseError):
                opening.fail(_of_redis(result))
            elif isinstance(result, Unavailable):
                opening.fail(result)
            elif result.fenced:
                fenced.append(opening)
            else:
                self._answer(opening, result)
        return fenced

    def _call(self, opening: _Opening) -> Call:
        item = opening.item
        return self._scripts.opening(
            opening.item_id,
            start_us=item.start_us,
            end_us=None if item.length_us is not None else item.terms.end_us,
            length_us=item.length_us,
            event_members=created_members(item),
            fields=item_fields(item.terms, name=item.name, description=item.description, image_urls=item.image_urls),
            fence=opening.fence,
        )

    def _answer(self, opening: _Opening, result: OpenResult) -> None:
        if result.exists:
            opening.fail(ItemExists(opening.item_id))
        elif not result.created:
            opening.fail(end_is_over())
        else:
            self._on_outbox(names.shard_of(opening.item_id))
            if not opening.answer.done():
                opening.answer.set_result(opened_item(opening.item, result))


def _of_redis(error: ResponseError) -> Unavailable:
    return Unavailable(f"Redis cannot be asked: {told_of(error)}")


def _fail_all(group: Sequence[_Opening], error: Exception) -> None:
    for opening in group:
        opening.fail(error)
