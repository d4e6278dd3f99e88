"""Two tables merged into the order in which bids were accepted, whatever the pages and wherever it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from api_gateway.reads import bids_in_order as module
from api_gateway.reads.bids_in_order import Bookmark, bids_in_order
from shared.domain.bidding import Bid
from shared.domain.voiding import LogEntry

Row = dict[str, Any]


def bid(epoch: int, seq: int, bid_id: str, user: str = "ann", *, kind: str = "bid", status: str = "valid") -> Row:
    named = {"bid_id": bid_id, "user_id": user, "kind": kind, "amount": seq * 10, "status": status}
    return {"epoch": epoch, "seq": seq} | named


def fact(epoch: int, n: int, seq: int, bid_id: str | None, *, at: int = 1, raised: bool = False) -> Row:
    named = {"bid_id": bid_id, "user_id": "ann", "amount": None, "max_amount": 900, "is_raise": raised}
    return {"epoch": epoch, "n": n, "at": at, "seq": seq, "is_struck": False} | named


# Beside each other: a raise before any bid of its epoch, two raises at one number, a bid whose answer comes next to it,
# the fact of a void, a plain bid without a fact, and an automatic bid that followed a void.
BIDS = [
    bid(1, 1, "a"),
    bid(1, 2, "b", "bob"),
    bid(1, 3, "b/proxy", kind="proxy"),
    bid(1, 5, "a/anew", "bob", kind="proxy"),
    bid(2, 6, "c", status="voided"),
    bid(2, 8, "d", "bob"),
]
FACTS = [
    fact(1, 4, 1, "a"),
    fact(1, 7, 3, "b"),
    fact(1, 7, 3, "up", at=2, raised=True),
    fact(1, 8, 3, "up-again", raised=True),
    fact(1, 9, 5, None),
    fact(2, 1, 5, "up-later", raised=True),
    fact(2, 2, 7, "c"),
    fact(2, 3, 8, "up-at-last", raised=True),
]
ORDER = ["a", "b", "up", "up-again", "a/anew", "up-later", "c", "d", "up-at-last"]


async def fetch(query: str, item_id: str, *after: int) -> list[Row]:
    rows, key = (BIDS, ("epoch", "seq")) if "FROM bids" in query else (FACTS, ("epoch", "n", "at"))
    return [row for row in rows if tuple(row[name] for name in key) > after][: module.PAGE_ROWS]


async def read(after: Bookmark | None = None) -> list[tuple[Bookmark, LogEntry]]:
    return [each async for each in bids_in_order(fetch, "item", after)]


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
async def test_it_goes_on_after_any_place_with_pages_of_any_length(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "PAGE_ROWS", rows)
    whole = await read()
    assert [entry.bid.bid_id for _, entry in whole] == ORDER
    for index, (place, _) in enumerate(whole, start=1):
        assert [entry for _, entry in await read(place)] == [entry for _, entry in whole[index:]]


async def test_what_belongs_to_a_bid_is_with_it() -> None:
    found = {entry.bid.bid_id: entry for _, entry in await read()}
    answered = LogEntry(0, 2, Bid("b", "bob", None, 900), "bid", 20, 30, "ann", row_stands=True, answer_stands=True)
    assert found["b"] == answered
    assert found["d"] == LogEntry(0, 8, Bid("d", "bob", 80), "bid", 80, row_stands=True), "a plain bid"
    assert found["c"] == LogEntry(0, 6, Bid("c", "ann", None, 900), "bid", 60, is_struck=True)
    assert found["up"] == LogEntry(0, 3, Bid("up", "ann", None, 900), "bid")
    assert found["a/anew"] == LogEntry(0, 5, Bid("a/anew", "bob", 50), "anew", 50, row_stands=True)
