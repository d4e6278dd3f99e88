"""What the archive is believed of a bid that the log in Redis does not have any more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any, cast

import pytest

from api_gateway.engine.bids import voids as striking
from api_gateway.engine.bids.counting import Count
from api_gateway.engine.bids.covered_voids import CoveredVoids
from api_gateway.engine.bids.voids import Voids, _Counted, _Tail
from api_gateway.reads.bids_in_order import Bookmark
from shared.domain.auction import Terms
from shared.domain.bidding import Bid
from shared.domain.errors import BidStruck, LeadLacksCredit, Unavailable
from shared.domain.voiding import LogEntry

OF_ANN = LogEntry(1, 1, Bid("of-ann", "ann", 5, None), "bid", 5, row_stands=True)


class LateArchive:
    """It has all bids, and gets the void of the bid while it is asked."""

    def __init__(self) -> None:
        self._voids = 0

    async def version(self, item_id: str) -> tuple[int, int]:
        return 1, 4

    async def count_voids(self, item_id: str) -> int:
        self._voids += 1
        return self._voids - 1

    async def accepted_bid(self, item_id: str, bid_id: str) -> LogEntry:
        return replace(OF_ANN, is_struck=self._voids > 2)


async def test_that_a_bid_stands_is_believed_once_all_voids_that_redis_knows_are_archived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a bid that was struck a moment ago is struck again, where its void is archived a moment later."""
    monkeypatch.setattr(striking, "_LOOK_AGAIN_S", 0.0)
    archive: Any = LateArchive()
    known = Voids(cast(Any, None), cast(Any, None), archive)
    tail = _Tail(Terms("lot", 0), (1, 4), accepted=3, voids=2, counts_voids=True, log=[])
    struck = await known._archived_bid("lot", "of-ann", tail)
    assert struck is not None
    assert struck.is_struck
    assert await archive.count_voids("lot") > 2, "it was waited for"


def plain(position: int, user: str, amount: int) -> LogEntry:
    return LogEntry(position, position, Bid(f"of-{user}", user, amount, None), "bid", amount, row_stands=True)


class GappedArchive:
    """Bob's bid comes later than what was accepted after it: another archiver has it."""

    def __init__(self) -> None:
        self.times_read = 0

    async def version(self, item_id: str) -> tuple[int, int]:
        return 1, 9

    async def count_voids(self, item_id: str) -> int:
        return 1

    async def accepted_bids(
        self, item_id: str, *, after: Bookmark | None
    ) -> AsyncGenerator[tuple[Bookmark, LogEntry], None]:
        self.times_read += 1
        anew = LogEntry(1, 3, Bid("of-eve/anew", "ann", 5), "anew", 5, row_stands=True)
        entries = [OF_ANN, anew, plain(2, "bob", 7), plain(3, "cyd", 9), plain(4, "dee", 11)]
        for entry in entries[:2] + entries[2 + (self.times_read == 1) :]:
            yield cast(Bookmark, entry.seq), entry


async def test_a_bid_that_is_archived_late_is_waited_for_whatever_automatic_bids_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An automatic bid that followed a void is in the log, and is no accepted bid: it does not make up for one."""
    monkeypatch.setattr(striking, "_LOOK_AGAIN_S", 0.0)
    archive: Any = GappedArchive()
    known = Voids(cast(Any, None), cast(Any, None), archive)
    terms = Terms("lot", 0)
    tail = _Tail(terms, (1, 9), accepted=4, voids=1, counts_voids=True, log=[plain(4, "dee", 11)])
    counted = await known._count_archived("lot", _Counted(Count(terms, plain(3, "cyd", 9))), tail)
    assert archive.times_read == 2
    assert (counted.count.replay.state.leader, counted.count.replay.state.price) == ("bob", 7)
    assert counted.count.entries == 3, "each once"


def test_where_a_log_begins_for_certain() -> None:
    """An automatic bid after a void has the position of the bid before it, which may be gone from the log."""
    anew = LogEntry(3, 5, Bid("of-eve/anew", "ann", 9), "anew", 9, row_stands=True)
    logs = [[anew, plain(4, "dee", 11)], [plain(3, "cyd", 9), anew, plain(4, "dee", 11)], [anew], []]
    tails = [_Tail(Terms("lot", 0), (1, 9), accepted=4, voids=1, counts_voids=True, log=log) for log in logs]
    assert [(tail.first, tail.last) for tail in tails] == [(4, 4), (3, 4), (4, 3), (5, 4)]


class TornArchive(GappedArchive):
    """Two bids come later than the one after them."""

    async def accepted_bids(
        self, item_id: str, *, after: Bookmark | None
    ) -> AsyncGenerator[tuple[Bookmark, LogEntry], None]:
        self.times_read += 1
        entries = [OF_ANN, plain(2, "bob", 7), plain(3, "cyd", 9), plain(4, "dee", 11), plain(5, "eve", 13)]
        for entry in entries[:2] + entries[4 if self.times_read == 1 else 2 :]:
            yield cast(Bookmark, entry.seq), entry


async def test_bids_that_are_in_the_log_do_not_make_up_for_one_that_is_archived_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log begins with dee's bid. Eve's, which is in it, too, is archived before that one and cyd's."""
    monkeypatch.setattr(striking, "_LOOK_AGAIN_S", 0.0)
    archive: Any = TornArchive()
    terms = Terms("lot", 0)
    tail = _Tail(terms, (1, 9), accepted=5, voids=0, counts_voids=True, log=[plain(4, "dee", 11), plain(5, "eve", 13)])
    known = Voids(cast(Any, None), cast(Any, None), archive)
    counted = await known._count_archived("lot", _Counted(Count(terms, OF_ANN)), tail)
    assert archive.times_read == 2
    assert (counted.count.replay.state.leader, counted.count.entries) == ("cyd", 3)


@pytest.mark.parametrize(("counts_voids", "seq"), [(True, 7), (False, 9)])
async def test_an_item_that_does_not_count_voids_is_waited_for_to_its_last_event(counts_voids: bool, seq: int) -> None:
    """Of any other it takes what came before the log, so nobody waits for the bids of others."""

    class Archive(WholeArchive):
        async def version(self, item_id: str) -> tuple[int, int]:
            return 1, seq

    known = Voids(cast(Any, None), cast(Any, None), cast(Any, Archive([OF_ANN])))
    log = [replace(plain(4, "dee", 11), seq=7)]
    tail = _Tail(Terms("lot", 0), (1, 9), accepted=4, voids=0, counts_voids=counts_voids, log=log)
    async with asyncio.timeout(3):
        await known._until_archived("lot", tail, voids=0)
    seq -= 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await known._until_archived("lot", tail, voids=0)


async def test_where_the_log_is_empty_all_that_was_accepted_is_counted_from_the_archive() -> None:
    bids = [plain(1, "ann", 5), plain(2, "bob", 7)]
    tail = _Tail(Terms("lot", 0), (1, 2), accepted=2, voids=0, counts_voids=True, log=[])
    position, _, price, leader, *_ = await MovingLog(WholeArchive(bids), [tail])._counted("lot", "of-ann")
    assert (position, price, leader) == ("2", "7", "bob")
    struck = [replace(bids[0], is_struck=True), bids[1]]
    with pytest.raises(BidStruck):
        await MovingLog(WholeArchive(struck), [tail])._counted("lot", "of-ann")


async def test_bids_that_come_while_the_archive_is_counted_for_want_of_a_log_count_once() -> None:
    """1. The log is empty. 2. Cyd bids, and that is archived at once. 3. The archive is counted to its end."""
    bids = [plain(1, "ann", 5), plain(2, "bob", 7), plain(3, "cyd", 9)]
    before = _Tail(Terms("lot", 0), (1, 2), accepted=2, voids=0, counts_voids=True, log=[])
    after = _Tail(Terms("lot", 0), (1, 3), accepted=3, voids=0, counts_voids=True, log=bids[2:])
    counted = await MovingLog(WholeArchive(bids), [before, after])._counted("lot", "of-ann")
    position, _, price, leader, _, _, bid_count = counted[:7]
    assert (position, price, leader, bid_count) == ("3", "9", "cyd", "2")


class BusyScripts:
    """The log goes on between a count and its void, so often."""

    def __init__(self, times: int) -> None:
        self._times = times
        self.counts: list[list[str]] = []

    async def void(self, item_id: str, bid_id: str, *, count: list[str], reason: str, by: str) -> int | None:
        self.counts.append(count)
        return None if len(self.counts) <= self._times else 17


async def test_a_void_is_tried_again_with_a_new_count_and_not_for_ever() -> None:
    bids = [plain(1, "ann", 5), plain(2, "bob", 7)]
    tail = _Tail(Terms("lot", 0), (1, 2), accepted=2, voids=0, counts_voids=True, log=bids)
    for times, tries in ((3, 4), (1_000, striking._TRIES)):
        known = MovingLog(WholeArchive(bids), [tail])
        scripts = BusyScripts(times)
        known._scripts = cast(Any, scripts)
        if times == 3:
            assert await known.strike("lot", "of-ann", reason="r", by="op") == 17
        else:
            with pytest.raises(Unavailable, match="too busy"):
                await known.strike("lot", "of-ann", reason="r", by="op")
        assert [bool(count) for count in scripts.counts] == [False] + [True] * (tries - 1)


class LackingScripts(BusyScripts):
    """The lead that the void brings back lacks credit, so often after the count."""

    async def void(self, item_id: str, bid_id: str, *, count: list[str], reason: str, by: str) -> int | None:
        self.counts.append(count)
        if not count:
            return None
        if len(self.counts) <= self._times:
            raise LeadLacksCredit(item_id, "ann", "USD", 5)
        return 17


@pytest.mark.parametrize(("times", "error"), [(5, None), (19, Unavailable)])
async def test_the_bids_are_counted_once_while_the_credit_for_a_lead_is_sought(
    times: int, error: type[Exception] | None
) -> None:
    """A long history takes seconds. Whoever bids elsewhere meanwhile would take the credit each time."""
    bids = [plain(1, "ann", 5), plain(2, "bob", 7)]
    tail = _Tail(Terms("lot", 0), (1, 2), accepted=2, voids=0, counts_voids=True, log=bids)
    scripts = LackingScripts(times)
    known = MovingLog(WholeArchive(bids), [tail])
    known._scripts = cast(Any, scripts)

    async def find_credit(item_id: str, user_id: str, currency: str, need: int) -> bool:
        return (item_id, user_id, currency, need) == ("lot", "ann", "USD", 5)

    with nullcontext() if error is None else pytest.raises(error):
        assert (
            await CoveredVoids(known, find_credit, cast(Any, NoOthers())).strike("lot", "of-bob", reason="", by="")
            == 17
        )
    assert [bool(count) for count in scripts.counts] == [False] + [True] * (len(scripts.counts) - 1)


class NoOthers:
    """Nobody else strikes a bid."""

    @asynccontextmanager
    async def turn_of(self, user_id: str, currency: str) -> AsyncIterator[float]:
        yield math.inf


class WholeArchive:
    """It has all of these, and of no void."""

    def __init__(self, entries: list[LogEntry]) -> None:
        self._entries = entries

    async def version(self, item_id: str) -> tuple[int, int]:
        return 1, self._entries[-1].seq

    async def count_voids(self, item_id: str) -> int:
        return 0

    async def accepted_bid(self, item_id: str, bid_id: str) -> LogEntry | None:
        return next((entry for entry in self._entries if entry.bid.bid_id == bid_id), None)

    async def accepted_bids(
        self, item_id: str, *, after: Bookmark | None
    ) -> AsyncGenerator[tuple[Bookmark, LogEntry], None]:
        for entry in self._entries:
            if after is None or cast(Bookmark, entry.seq) > after:
                yield cast(Bookmark, entry.seq), replace(entry, position=0)  # the archive does not number them


class MovingLog(Voids):
    """The log is another one whenever it is read, until it stays."""

    def __init__(self, archive: Any, logs: list[_Tail]) -> None:
        super().__init__(cast(Any, None), cast(Any, None), archive)
        self._logs = logs

    async def _tail(self, item_id: str) -> _Tail:
        return self._logs.pop(0) if len(self._logs) > 1 else self._logs[0]


async def test_a_bid_that_was_pushed_out_of_the_log_meanwhile_is_counted_from_the_archive() -> None:
    """One alone, too: cyd's and dee's bids are the log at first; eve's comes and goes while older ones are counted."""
    users = ("ann", "bob", "cyd", "dee", "eve", "fay")
    bids = [plain(position, user, 3 + 2 * position) for position, user in enumerate(users, start=1)]
    logs = [
        _Tail(Terms("lot", 0), (1, len(log)), accepted=len(log), voids=0, counts_voids=True, log=log[-kept:])
        for log, kept in ((bids[:4], 2), (bids, 1))
    ]
    position, _, price, leader, _, runner_up, count, *_ = await MovingLog(WholeArchive(bids), logs)._counted(
        "lot", "of-ann"
    )
    assert (position, price, leader, runner_up) == ("6", "15", "fay", "13")
    assert count == "5", "all but the struck one"


class SlowArchive(WholeArchive):
    """It gets one event each time that it is asked how far it is, and knows only bids that it has."""

    seq = 0

    async def version(self, item_id: str) -> tuple[int, int]:
        self.seq += 1
        return 1, self.seq

    async def accepted_bid(self, item_id: str, bid_id: str) -> LogEntry | None:
        found = await super().accepted_bid(item_id, bid_id)
        return found if found is not None and found.seq <= self.seq else None


async def test_that_there_is_no_such_bid_is_believed_once_all_before_the_log_is_archived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(striking, "_LOOK_AGAIN_S", 0.0)
    archive = SlowArchive([plain(1, "ann", 5), plain(2, "bob", 7), plain(3, "cyd", 9)])
    known = Voids(cast(Any, None), cast(Any, None), cast(Any, archive))
    tail = _Tail(Terms("lot", 0), (1, 4), accepted=4, voids=0, counts_voids=True, log=[plain(4, "dee", 11)])
    found = await known._archived_bid("lot", "of-bob", tail)
    assert found is not None
    assert await known._archived_bid("lot", "of-eve", tail) is None
    assert archive.seq >= 4, "all of it was waited for"
