"""Counts the accepted bids of an item again, without one of them, as far as Redis no longer has them.

Pure: :mod:`api_gateway.engine.bids.voids` reads the entries. The result goes to ``void.lua``, which counts on from
there. It holds hidden maxima, so only the script may get it.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import replace

from shared.domain.auction import Terms
from shared.domain.voiding import LogEntry, Replay


class Count:
    """The accepted bids up to one position, without ``struck``.

    Attributes:
        position: of the last bid that is counted in, in the numbers of the log in Redis.
        entries: how many bids were accepted up to there, struck ones among them.
        until: see :func:`shared.domain.voiding.automatic_until`; 0 for none, None where it is not known yet.
        maximum: the newest maximum of the struck bid's bidder, in minor units.
    """

    def __init__(self, terms: Terms, struck: LogEntry) -> None:
        self.struck = struck
        self.replay = Replay(terms)
        self.position = 0
        self.entries = 0
        self.until: int | None = None
        self.maximum: int | None = None
        self._newest = ""
        self._is_past = False
        self._rows: list[int] = []

    def add(self, entry: LogEntry) -> None:
        """The next accepted bid."""
        self.position = entry.position
        if entry.kind != "anew":
            self.entries += 1
            self._newest = entry.bid.bid_id
        if entry.kind != "anew" and entry.bid.bid_id == self.struck.bid.bid_id:
            self._is_past = True
            return
        self._look_for_bidder(entry)
        entry = self._without_rows_of_struck(entry)
        for row in entry.rows():
            insort(self._rows, row.amount)
        self.replay.add(entry)

    def _look_for_bidder(self, entry: LogEntry) -> None:
        bidder = self.struck.bid.user_id
        if entry.is_struck or entry.kind == "anew" or entry.bid.user_id != bidder:
            return
        if self.until is None and entry.bid.limit >= self.struck.bid.limit:
            self.until = entry.seq + 1 if self._is_past else 0
        if entry.kind == "bid" and entry.bid.maximum is not None:
            self.maximum = entry.bid.maximum

    def _without_rows_of_struck(self, entry: LogEntry) -> LogEntry:
        """The entry without an automatic bid that came from the struck bid's maximum; before ``until`` is known,
        without any of that bidder."""
        if not self._is_past or self.until is not None:
            return entry
        bidder = self.struck.bid.user_id
        if entry.kind == "anew" and entry.bid.user_id == bidder:
            return replace(entry, row_stands=False)
        return replace(entry, answer_stands=False) if entry.answered_by == bidder else entry

    def arguments(self, voids: int, epoch: int) -> list[str]:
        """``ARGV[7..25]`` of ``void.lua``.

        Args:
            voids: how many voids of the item are known here.
            epoch: of the item that was counted.
        """
        state, struck = self.replay.state, self.struck
        highest = bisect_right(self._rows, state.price)
        return [
            str(self.position),
            str(voids),
            str(state.price),
            state.leader or "",
            str(state.leader_max),
            str(state.runner_up),
            str(state.bid_count),
            f"{state.reserve_met:d}",
            f"{self.replay.is_shown:d}",
            str(self._rows[highest - 1]) if highest else "",
            str(struck.seq),
            struck.bid.user_id,
            str(struck.bid.limit),
            "" if struck.shown is None else str(struck.shown),
            "" if self.until is None else str(self.until),
            "" if self.maximum is None else str(self.maximum),
            str(self._rows[highest]) if highest < len(self._rows) else "",
            str(epoch),
            self._newest,
        ]
