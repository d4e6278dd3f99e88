"""What the clients of one load process know: every bid with its outcome, entered as it happens. Pure.

A bid is entered *before* it is sent, so one that is cut off in flight (the run ends, the process is stopped)
stays in the books as unknown instead of vanishing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import msgspec

from load_tests.generator.answers import BidAnswer, Fate
from load_tests.generator.histogram import bucket_of
from load_tests.generator.ledger import Entry, ItemLedger, Latency, Ledger, Window, latency_of

PROGRESS_INTERVAL_S = 1.0


class Progress(msgspec.Struct, frozen=True):
    """One line of progress; counts since the start over all processes, ``bids_per_s`` over the last interval."""

    seconds: float
    users: int
    bids_per_s: float
    accepted: int
    refused: int
    unknown: int
    failures: int
    latency: Latency


class Tally:
    """The books of one load process. ``clock`` tells seconds."""

    def __init__(self, item_ids: list[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._items = {item_id: ItemLedger() for item_id in item_ids}
        self._refused: dict[str, Counter[str]] = {item_id: Counter() for item_id in item_ids}
        self._failed: dict[str, Counter[str]] = {item_id: Counter() for item_id in item_ids}
        self._in_flight: dict[str, tuple[str, Entry]] = {}
        self._times: Counter[int] = Counter()
        self._clock = clock
        self._first_s = self._last_s = 0.0
        self._window: Window | None = None
        self._window_open = False
        self.accepted = 0
        self.refused = 0
        self.unknown = 0
        self.failures = 0
        self.looks = 0

    def sent(self, item_id: str, entry: Entry) -> None:
        """Enter a bid that is about to be sent."""
        self._in_flight[entry.bid_id] = (item_id, entry)
        self._begin()

    def answered(self, bid_id: str, answer: BidAnswer, milliseconds: float) -> None:
        """Settle a bid that was entered with :meth:`sent`, after so many milliseconds."""
        item_id, entry = self._in_flight.pop(bid_id)
        books = self._items[item_id]
        if answer.fate is Fate.ACCEPTED:
            self.accepted += 1
            books.accepted.append(Entry(entry.bid_id, entry.user_id, entry.amount, answer.seq or 0))
        elif answer.fate is Fate.REFUSED:
            self.refused += 1
            self._refused[item_id][answer.reason] += 1
        elif answer.fate is Fate.UNKNOWN:
            self.unknown += 1
            books.unknown.append(entry)
            if answer.complaint is not None:
                self._failed[item_id][answer.complaint] += 1
        else:
            self._failed[item_id][answer.complaint or answer.reason] += 1
        self._time_bid(answer.fate, milliseconds)

    def _time_bid(self, fate: Fate, milliseconds: float) -> None:
        self._last_s = self._clock()
        bucket = bucket_of(milliseconds)
        has_verdict = fate in (Fate.ACCEPTED, Fate.REFUSED)
        self.failures += not has_verdict
        self._times[bucket] += 1
        window = self._window
        if window is not None and self._window_open:
            window.bids += has_verdict
            window.accepted += fate is Fate.ACCEPTED
            window.failures += not has_verdict
            window.times[bucket] = window.times.get(bucket, 0) + 1

    def looked(self, item_id: str, failure: str | None = None, *, answered: bool = True) -> None:
        """Count a look at an item, and what was wrong with the answer; one without any answer changed
        nothing.
        """
        self._begin()
        self._last_s = self._clock()
        self.looks += 1
        self._items[item_id].looks += 1
        if failure is not None:
            self._failed[item_id][f"GET item: {failure}"] += 1
        is_failure = failure is not None or not answered
        self.failures += is_failure
        if self._window is not None and self._window_open:
            self._window.looks += 1
            self._window.failures += is_failure

    def _begin(self) -> None:
        if not self._first_s:
            self._first_s = self._clock()

    def open_window(self) -> None:
        """All users are at work: what they do belongs to the window from now on. A second call changes nothing."""
        if self._window is None:
            self._window = Window(began_s=self._clock())
            self._window_open = True

    def close_window(self) -> None:
        """Users begin to leave: what they do from now on does not belong to the window."""
        if self._window is not None and self._window_open:
            self._window_open = False
            self._window.seconds = self._clock() - self._window.began_s

    @property
    def latency(self) -> Latency:
        """The response times of all bids so far."""
        return latency_of(dict(self._times))

    def close(self) -> Ledger:
        """The ledger, with every bid still in flight as unknown."""
        self.close_window()
        for item_id, entry in self._in_flight.values():
            self._items[item_id].unknown.append(entry)
        self._in_flight.clear()
        for item_id, books in self._items.items():
            books.refused = dict(self._refused[item_id])
            books.failed = dict(self._failed[item_id])
        seconds = max(0.0, self._last_s - self._first_s)
        return Ledger(self._items, seconds, self.failures, dict(self._times), self._window or Window())
