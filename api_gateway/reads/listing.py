"""Pages of items, made few at a time and in pieces, so that lists do not hold up bids.

A page of 200 items takes milliseconds, and the same event loop decides bids. So few pages are made at a time, some
items in each turn of the loop. Those who ask for the same page while it waits to be made are answered the same bytes:
what they are told is read after they asked.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from api_gateway.engine.closed.closed_items import ArchiveAway
from api_gateway.engine.items import Items
from api_gateway.reads.catalogue import Catalogue
from shared.archive_reads.catalogue import Sort
from shared.domain.errors import BiddingError, Overloaded, Unavailable
from shared.pacing.turns import OneByOne

logger = logging.getLogger(__name__)

PAGE_BYTES_MAX: Final = 512 * 1024
"""The most bytes that the items of one page may take. A page that would take more has fewer items than were asked for,
but at least one."""
WAITING_MAX: Final = 1_000
"""The most different pages that wait to be made. If there is one more, the payer with most of them loses one; if nobody
has more than others, the new page is refused."""
OF_ONE_MAX: Final = 20
"""The most of these that one payer asks for: a caller, or an address. It does not hold for payers of whom nothing is
known: these may be many, behind a proxy that does not name its clients."""
ITEMS_PER_UNIT: Final = 20
"""A page costs one unit of what a caller may ask for, as a bid does, for each this many items."""
AT_ONCE_MAX: Final = 2
"""The most pages that are being made. While one waits for the archive, another may go on."""
ITEMS_PER_TURN: Final = 32


class Wish(NamedTuple):
    """What a page is asked for by. ``seller``: whose items alone; None for all."""

    status: str | None
    sort: Sort
    cursor: str | None
    limit: int
    seller: str | None = None


@dataclass(slots=True, eq=False)
class _Awaited:
    """A page that waits to be made. ``payers``: who asked for it, without those who had asked for too many."""

    answer: Future[bytes]
    payers: set[str] = field(default_factory=set)


class Listing:
    """Makes pages of the catalogue with the live state of their items."""

    def __init__(self, catalogue: Catalogue, items: Items) -> None:
        self._catalogue = catalogue
        self._items = items
        self._waiting: dict[Wish, _Awaited] = {}
        # The pages for which each payer asked, in order; the payer whose turn is next stands first. A page that was
        # made for another payer meanwhile is passed over.
        self._lines: dict[str, deque[Wish]] = {}
        # For how many of the pages that wait each has asked.
        self._held: dict[str, int] = {}
        self._making: set[asyncio.Task[None]] = set()
        # How many of the tasks still look for pages. A task that has ended is in the set for a moment longer.
        self._makers = 0
        self._turns = OneByOne()

    async def page(self, wish: Wish, payer: str = "") -> bytes:
        """The page as JSON, read after this call. Those who ask have their turns one after another, so nobody waits for
        all that somebody else has asked for.

        Args:
            payer: who asks; empty where that is not known: all of those have their turns as one.

        Raises:
            InvalidInput: the cursor is not one that this list gave out.
            ShardLost: Redis has lost more than single items, and has nothing of this page.
            Overloaded: too many pages wait to be made, of all or of this one.
            Unavailable: Redis or the archive cannot be asked.
        """
        awaited = self._waiting.get(wish)
        if awaited is None:
            if self._held.get(payer, 0) >= _most_of(payer):
                raise Overloaded("you have asked for many lists, which are being made; wait for their answers")
            if len(self._waiting) >= WAITING_MAX and not self._make_room(payer):
                raise Overloaded("too many lists are being made; try again")
            awaited = self._waiting[wish] = _Awaited(asyncio.get_running_loop().create_future())
            awaited.answer.add_done_callback(_look_at_error)
            if self._makers < AT_ONCE_MAX:
                self._makers += 1
                task = asyncio.create_task(self._make_all(), name="make-pages")
                self._making.add(task)
                task.add_done_callback(self._making.discard)
        # Also where another payer waits for the same page, because that one may have asked for many before.
        self._line_up(payer, wish, awaited)
        # A caller that is cancelled does not end it for the others.
        page = await asyncio.shield(awaited.answer)
        # All who waited for it would be answered in the same turn of the loop.
        await self._turns.turn()
        return page

    async def _make_all(self) -> None:
        """Make pages until nobody waits for one."""
        try:
            while (wish := self._next()) is not None:
                await self._make_for(wish, self._taken(wish).answer)
        finally:
            self._makers -= 1

    def _line_up(self, payer: str, wish: Wish, awaited: _Awaited) -> None:
        if payer in awaited.payers or self._held.get(payer, 0) >= _most_of(payer):
            return
        awaited.payers.add(payer)
        self._held[payer] = self._held.get(payer, 0) + 1
        line = self._lines.setdefault(payer, deque())
        if len(line) >= _most_of(payer):
            # Some of it is made already.
            waiting = [each for each in line if self._is_awaited(payer, each) and each != wish]
            line.clear()
            line.extend(waiting)
        if wish not in line:
            line.append(wish)

    def _is_awaited(self, payer: str, wish: Wish) -> bool:
        awaited = self._waiting.get(wish)
        return awaited is not None and payer in awaited.payers

    def _taken(self, wish: Wish) -> _Awaited:
        """Take the page out of those that wait."""
        awaited = self._waiting.pop(wish)
        for payer in awaited.payers:
            self._held[payer] -= 1
            if not self._held[payer]:
                del self._held[payer]
        return awaited

    def _make_room(self, payer: str) -> bool:
        """Refuse the last page of the payer that has asked for most of them: otherwise a few payers, each with as many
        pages as allowed, would keep all others out. A page stays if another payer wants it who has asked for few, and
        all stay if ``payer`` has asked for about as many. Returns whether there is room now."""
        few = self._held.get(payer, 0) + 1
        most = max(self._held, key=self._held.__getitem__)
        for wish in reversed(self._lines[most]):
            if self._is_awaited(most, wish) and all(self._held[each] > few for each in self._waiting[wish].payers):
                error = Overloaded("others wait for lists, and most of them are yours; wait for their answers")
                self._taken(wish).answer.set_exception(error)
                return True
        return False

    def _next(self) -> Wish | None:
        """The page whose turn it is, None where nobody waits for one."""
        while self._lines:
            payer = next(iter(self._lines))
            line, wish = self._lines.pop(payer), None
            # A page that was made for another payer meanwhile does not cost the turn.
            while line and wish is None:
                first = line.popleft()
                wish = first if self._is_awaited(payer, first) else None
            if line:
                self._lines[payer] = line  # the last one now
            if wish is not None:
                return wish
        return None

    async def _make_for(self, wish: Wish, answer: Future[bytes]) -> None:
        try:
            answer.set_result(await self._make(wish))
        except BiddingError as error:
            answer.set_exception(error)
        except BaseException as error:
            answer.set_exception(Unavailable("the list could not be made; try again"))
            if not isinstance(error, Exception):
                raise
            logger.exception("a list cannot be made")

    async def _make(self, wish: Wish) -> bytes:
        while True:
            content, fitting = await self._read(wish)
            if fitting is None:
                return content
            # The cursor of the shorter page comes from the catalogue, like every other one.
            wish = wish._replace(limit=fitting)

    async def _read(self, wish: Wish) -> tuple[bytes, int | None]:
        """The page; or how many items fit, where there are too many."""
        page = await self._catalogue.page(
            status=wish.status, sort=wish.sort, cursor=wish.cursor, limit=wish.limit, seller=wish.seller
        )
        found: dict[str, bytes] = {}
        for start in range(0, len(page.ids), ITEMS_PER_TURN):
            readings = await self._items.readings(page.ids[start : start + ITEMS_PER_TURN])
            for item_id, reading in readings.items():
                found[item_id] = reading.body
        missing = [item_id for item_id in page.ids if item_id not in found]
        if missing:
            missing = await self._add_closed(page.ids, missing, found)
        shown = [found[item_id] for item_id in page.ids if item_id in found]
        fitting = _fitting(shown)
        if 1 <= fitting < len(shown):
            # Those that are missing take no place, and may be anywhere among the others.
            return b"", fitting
        content: dict[str, Any] = {
            "items": [msgspec.Raw(each) for each in shown],
            "next_cursor": page.next_cursor,
            "being_rebuilt": missing,
        }
        return msgspec.json.encode(content), None

    async def _add_closed(self, ids: list[str], missing: list[str], found: dict[str, bytes]) -> list[str]:
        """Add what Redis does not have and the archive has; returns what is still missing."""
        closed = self._items.closed
        try:
            left = await closed.find_many(missing)
        except ArchiveAway:
            # Which of them have left Redis cannot be told now. The page has the others, and none is noted as lost.
            return missing
        for number, (item_id, item) in enumerate(left.items(), 1):
            found[item_id] = closed.body_of(item)
            if number % ITEMS_PER_TURN == 0:
                await asyncio.sleep(0)
        missing = [item_id for item_id in ids if item_id not in found]
        await self._items.note_missing(ids, missing)
        return missing


def _most_of(payer: str) -> int:
    return OF_ONE_MAX if payer else WAITING_MAX


def _fitting(shown: list[bytes]) -> int:
    """How many of these a page may have, from the first on."""
    left = PAGE_BYTES_MAX
    for count, each in enumerate(shown):
        left -= len(each) + 1
        if left < 0:
            return max(1, count)
    return len(shown)


def _look_at_error(answer: Future[bytes]) -> None:
    if not answer.cancelled():
        answer.exception()  # who asked may have gone
