from __future__ import annotations

from typing import Any, cast

import pytest

from api_gateway.reads.archive import Archive
from api_gateway.reads.history import History
from shared.archive_reads.history import ArchivedBid
from shared.messages import BidVoided, encode_event
from shared.redis_layout import outbox
from tests.bids import nth_bid

BIDS = 30
RECENT = 10


class Moving:
    """Redis and the archive of one item, while the worker archives six bids between any two questions."""

    def __init__(self) -> None:
        self.archived = 14

    async def version(self, item_id: str) -> tuple[int, int]:
        self.archived += 6
        return (1, self.archived - 6)

    async def bids(self, item_id: str, *, before: Any, limit: int) -> list[ArchivedBid]:
        known = [ArchivedBid(1, n, f"b-{n}", "ada", n, "bid", n, "ada", False) for n in range(1, self.archived + 1)]
        self.archived += 6
        return known[::-1][:limit]

    async def lrange(self, key: str, first: int, last: int) -> list[bytes]:
        return [encode_event(nth_bid("lot", seq)) for seq in range(BIDS, BIDS - RECENT, -1)]

    async def xrange(self, key: str, start: str, end: str, *, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return [
            (b"%d-0" % seq, {b"item": b"lot", b"events": b"[" + encode_event(nth_bid("lot", seq)) + b"]"})
            for seq in range(self.archived + 1, BIDS + 1)
        ]


async def test_what_is_archived_meanwhile_is_not_left_out() -> None:
    moving = Moving()
    page = await History(cast(Any, moving), cast(Archive, moving)).page("lot", cursor=None, limit=100)
    assert [bid.seq for bid in page.bids] == list(range(BIDS, 0, -1))


OTHERS_SEQ = 1_000
"""Events of the other item have numbers of their own."""


class Standing:
    """Redis and the archive of one item, where nothing moves. In the outbox another item's entry follows each one."""

    def __init__(self, *, archived: int | None, oldest_recent: int) -> None:
        self.archived = archived
        self.oldest_recent = oldest_recent
        self.outbox_reads = 0

    async def version(self, item_id: str) -> tuple[int, int] | None:
        return None if self.archived is None else (1, self.archived)

    async def bids(self, item_id: str, *, before: Any, limit: int) -> list[ArchivedBid]:
        known = [
            ArchivedBid(1, n, f"b-{n}", "ada", n, "bid", n, "ada", False) for n in range(1, (self.archived or 0) + 1)
        ]
        return [bid for bid in known[::-1] if before is None or (bid.epoch, bid.seq) < before][:limit]

    async def lrange(self, key: str, first: int, last: int) -> list[bytes]:
        return [encode_event(nth_bid("lot", seq)) for seq in range(BIDS, self.oldest_recent - 1, -1)]

    async def xrange(self, key: str, start: str, end: str, *, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        self.outbox_reads += 1
        after = 0 if start == "-" else int(start.strip("(").partition("-")[0]) + start.startswith("(")
        entries = [
            (
                b"%d-0" % (2 * seq + bool(other)),
                {b"item": b"other" if other else b"lot", b"events": events_of(seq + other)},
            )
            for seq in range((self.archived or 0) + 1, BIDS + 1)
            for other in (0, OTHERS_SEQ)
        ]
        return [entry for entry in entries if int(entry[0].partition(b"-")[0]) >= after][:count]


def events_of(seq: int) -> bytes:
    return b"[" + encode_event(nth_bid("lot", seq)) + b"]"


async def page_of(standing: Standing) -> list[int]:
    page = await History(cast(Any, standing), cast(Archive, standing)).page("lot", cursor=None, limit=100)
    return [bid.seq for bid in page.bids]


@pytest.mark.parametrize(("oldest_recent", "outbox_reads"), [(11, 0), (12, 1), (13, 1)])
async def test_a_hole_of_one_between_archive_and_recent_events(oldest_recent: int, outbox_reads: int) -> None:
    """Archived up to 10. The recent events follow at once, or one is between them, or two: then the outbox is asked."""
    standing = Standing(archived=10, oldest_recent=oldest_recent)
    assert await page_of(standing) == list(range(BIDS, 0, -1))
    assert standing.outbox_reads == outbox_reads


@pytest.mark.parametrize("page", [1, 2, 7, 39, 40, 41])
async def test_an_outbox_of_several_pages_is_read_to_its_end(page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 entries of two items: in pages of one and two, in one that is just full, and in one that is not."""
    monkeypatch.setattr(outbox, "PAGE", page)
    standing = Standing(archived=10, oldest_recent=BIDS)
    assert await page_of(standing) == list(range(BIDS, 0, -1))
    assert standing.outbox_reads == 40 // page + 1


@pytest.mark.parametrize(("oldest_recent", "outbox_reads"), [(0, 0), (1, 1), (2, 1)])
async def test_an_item_that_is_not_archived_yet(oldest_recent: int, outbox_reads: int) -> None:
    """Where the recent events go back to its creation they are all; else the outbox has the others."""
    standing = Standing(archived=None, oldest_recent=oldest_recent)
    assert await page_of(standing) == list(range(BIDS, 0 if oldest_recent else -1, -1))
    assert standing.outbox_reads == outbox_reads


async def test_the_pages_follow_each_other_up_to_the_last_one() -> None:
    """15 on each, the last of them just full: nothing is shown twice, left out, or promised and not there."""
    standing = Standing(archived=10, oldest_recent=11)
    pages = History(cast(Any, standing), cast(Archive, standing))
    first = await pages.page("lot", cursor=None, limit=15)
    assert ([bid.seq for bid in first.bids], first.next_cursor) == (list(range(30, 15, -1)), "1:16")
    last = await pages.page("lot", cursor=first.next_cursor, limit=15)
    assert ([bid.seq for bid in last.bids], last.next_cursor) == (list(range(15, 0, -1)), None)


async def test_a_page_that_ends_where_the_archive_goes_on() -> None:
    """All that is shown is archived, and so is the one after it: it must have been asked for, to be known of."""
    standing = Standing(archived=BIDS, oldest_recent=BIDS)
    page = await History(cast(Any, standing), cast(Archive, standing)).page("lot", cursor=None, limit=15)
    assert (len(page.bids), page.next_cursor) == (15, "1:16")


class Rebuilt(Standing):
    """Ten bids of epoch 1, all archived. Then the item was rebuilt, and in epoch 2 the last bid was struck: that is
    not archived yet."""

    def __init__(self) -> None:
        super().__init__(archived=10, oldest_recent=1)

    async def lrange(self, key: str, first: int, last: int) -> list[bytes]:
        struck = BidVoided(
            item_id="lot",
            epoch=2,
            seq=11,
            ts_us=11,
            current_bid=9,
            highest_bidder_id="ada",
            bid_count=9,
            min_next_bid=10,
            status="open",
            end_us=None,
            reserve_met=True,
            currency="USD",
            bid_id="b-10",
            voided_seq=10,
            offered_to=None,
            reason="a mistake",
            by="operator",
            bidder_id="ada",
            amount=10,
        )
        return [encode_event(struck), *(encode_event(nth_bid("lot", seq)) for seq in range(10, 0, -1))]


async def test_a_void_after_a_rebuilding_strikes_a_bid_of_before() -> None:
    """Until the void is archived, only its event says so."""
    rebuilt = Rebuilt()
    page = await History(cast(Any, rebuilt), cast(Archive, rebuilt)).page("lot", cursor=None, limit=3)
    assert [(bid.seq, bid.voided) for bid in page.bids] == [(10, True), (9, False), (8, False)]
