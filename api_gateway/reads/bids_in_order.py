"""The accepted bids of an item in the order of acceptance, out of two tables, at a cost that grows as they do.

``bids`` has what was visible, in order of its numbers; ``sealed`` has what was not, in order of the outbox: maxima,
and maxima that were raised, which have no number of their own. Both orders are those of primary keys. So each table is
read once, page after page along its key, and the two are merged here: no page is sorted, and none is joined.

The result holds hidden maxima. It is for counting bids again, and for nothing that leaves this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from shared.archive_reads.asking import Fetch
from shared.domain.voiding import LogEntry, answers, bids_anew
from shared.redis_layout.accepted_log import Row, archived_entry

PAGE_ROWS: Final = 4_000
"""Rows per page; of each table one page is in memory, about 2 MB."""

_BID: Final = "SELECT epoch, seq, bid_id, user_id, kind, amount, status FROM bids"

# A struck bid has that status. A raised maximum has no row, so it is looked up among the voids. Where there are many,
# that costs one look at all of them per page, and not per row.
_FACT: Final = """
    SELECT epoch, n, at, seq, bid_id, user_id, amount, max_amount, verdict LIKE 'M|%' AS is_raise,
           verdict LIKE 'M|%' AND bid_id IN (
               SELECT body ->> 'bid_id' FROM events WHERE item_id = $1 AND type = 'voided'
           ) AS is_struck
    FROM sealed"""

_BIDS_PAGE: Final = f"""
    {_BID} WHERE item_id = $1 AND (epoch, seq) > ($2, $3) ORDER BY epoch, seq LIMIT {PAGE_ROWS}"""
_FACTS_PAGE: Final = f"""
    {_FACT} WHERE item_id = $1 AND (epoch, n, at) > ($2, $3, $4) ORDER BY epoch, n, at LIMIT {PAGE_ROWS}"""

PAGE_QUERIES: Final = (_BIDS_PAGE, _FACTS_PAGE)

_ONE_BID: Final = f"{_BID} WHERE item_id = $1 AND bid_id IN ($2, $3) ORDER BY epoch, seq LIMIT 2"
_ONE_FACT: Final = f"{_FACT} WHERE item_id = $1 AND bid_id = $2 ORDER BY epoch, n, at LIMIT 1"

Key = TypeVar("Key", bound=tuple[int, ...])


class Bookmark(NamedTuple):
    """How far both tables are read: the last row of each, by its key."""

    bid: tuple[int, int] = (-1, 0)
    fact: tuple[int, int, int] = (-1, 0, 0)


class _Rows(Generic[Key]):
    """The rows of a table along its key, a page of them in memory."""

    def __init__(self, fetch: Fetch, query: str, item_id: str, key_of: Callable[[Row], Key], place: Key) -> None:
        self._fetch = fetch
        self._query = query
        self._item_id = item_id
        self._key_of = key_of
        self._page: deque[Any] = deque()
        self._read = place
        self._is_last = False
        self.place = place

    async def first(self) -> Row | None:
        """The next row, without taking it; None at the end."""
        if not self._page and not self._is_last:
            self._page.extend(await self._fetch(self._query, self._item_id, *self._read))
            self._is_last = len(self._page) < PAGE_ROWS
            if self._page:
                self._read = self._key_of(self._page[-1])
        return self._page[0] if self._page else None

    def take(self) -> None:
        """Go on after the row that :meth:`first` gave."""
        self.place = self._key_of(self._page.popleft())


async def bids_in_order(fetch: Fetch, item_id: str, after: Bookmark | None) -> AsyncIterator[tuple[Bookmark, LogEntry]]:
    """Every accepted bid after this place, oldest first, each with the place from which to go on after it.

    ``fetch`` must answer out of one snapshot. Otherwise a bid that is archived meanwhile may come without its maximum,
    as if it had had none. The positions of the entries are 0.
    """
    after = after or Bookmark()
    bids = _Rows(fetch, _BIDS_PAGE, item_id, _number, after.bid)
    facts = _Rows(fetch, _FACTS_PAGE, item_id, _outbox_place, after.fact)
    while True:
        bid, fact = await bids.first(), await facts.first()
        # A fact has the number that its decision left behind. So it is below a bid's only if it was decided before the
        # bid.
        if fact is not None and (bid is None or _number(fact) < _number(bid)):
            facts.take()
            if fact["is_raise"]:
                yield Bookmark(bids.place, facts.place), _raise(fact)
            continue
        if bid is None:
            return
        bids.take()
        if _is_answer(bid):
            continue  # the bid that it answered is before the place
        if fact is not None and fact["bid_id"] == bid["bid_id"]:
            facts.take()
        else:
            fact = None
        answer = await bids.first()
        if answer is not None and _answers(answer, bid):
            bids.take()
        else:
            answer = None
        yield Bookmark(bids.place, facts.place), _bid(bid, fact, answer)


async def bid_by_id(fetch: Fetch, item_id: str, bid_id: str) -> LogEntry | None:
    """One accepted bid, as :func:`bids_in_order` has it; None where nobody placed one of this id."""
    bids = await fetch(_ONE_BID, item_id, bid_id, answers(bid_id))
    facts = await fetch(_ONE_FACT, item_id, bid_id)
    fact = facts[0] if facts else None
    if not bids:
        return _raise(fact) if fact is not None and fact["is_raise"] else None
    if bids[0]["kind"] == "proxy":
        return None
    return _bid(bids[0], fact, next((row for row in bids[1:] if _answers(row, bids[0])), None))


def _number(row: Row) -> tuple[int, int]:
    return row["epoch"], row["seq"]


def _outbox_place(row: Row) -> tuple[int, int, int]:
    return row["epoch"], row["n"], row["at"]


def _is_answer(row: Row) -> bool:
    return row["kind"] == "proxy" and not row["bid_id"].endswith(bids_anew(""))


def _answers(row: Row, bid: Row) -> bool:
    return _number(row) == (bid["epoch"], bid["seq"] + 1) and row["bid_id"] == answers(bid["bid_id"])


def _bid(bid: Row, fact: Row | None, answer: Row | None) -> LogEntry:
    row = {
        "seq": bid["seq"],
        "bid_id": bid["bid_id"],
        "user_id": bid["user_id"],
        "kind": bid["kind"],
        "shown": bid["amount"],
        "status": bid["status"],
        "amount": None if fact is None else fact["amount"],
        "max_amount": None if fact is None else fact["max_amount"],
        "answer": None if answer is None else answer["amount"],
        "answered_by": None if answer is None else answer["user_id"],
        "answer_status": None if answer is None else answer["status"],
        "is_struck": bid["kind"] != "proxy" and bid["status"] == "voided",
    }
    return archived_entry(row, 0)


def _raise(fact: Row) -> LogEntry:
    nothing = dict.fromkeys(("kind", "shown", "status", "answer", "answered_by", "answer_status"))
    asked = {name: fact[name] for name in ("seq", "bid_id", "user_id", "amount", "max_amount", "is_struck")}
    return archived_entry(nothing | asked, 0)
