"""What the clients of a load run know: every bid with its outcome, written down for the proof. Pure except for the
file.

A bid is entered *before* it is sent, so one that is cut off in flight (the run ends, the process is stopped)
stays in the books as unknown instead of vanishing.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec

from load_tests.answers import BidAnswer, Fate


class LedgerError(Exception):
    """The file is not a ledger, for instance because the run died before writing it."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One bid as its sender knows it. ``amount`` is in minor units; ``seq`` is 0 unless it was accepted."""

    bid_id: str
    user_id: str
    amount: int
    seq: int = 0


class ItemLedger(msgspec.Struct):
    """Everything that clients did to one item. ``refused`` and ``failed`` count by reason; ``failed``
    includes looks.
    """

    accepted: list[Entry] = msgspec.field(default_factory=list)
    unknown: list[Entry] = msgspec.field(default_factory=list)
    refused: dict[str, int] = msgspec.field(default_factory=dict)
    failed: dict[str, int] = msgspec.field(default_factory=dict)
    looks: int = 0


class Latency(msgspec.Struct, frozen=True):
    """Response times of bids in milliseconds, as Locust measured them, rounded by it."""

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class Ledger(msgspec.Struct):
    """A whole run. ``seconds`` is from the first to the last request; ``failures`` is Locust's own count over
    all requests.
    """

    items: dict[str, ItemLedger]
    seconds: float = 0.0
    failures: int = 0
    latency: Latency = Latency()

    @property
    def accepted(self) -> int:
        """Bids answered with 201."""
        return sum(len(item.accepted) for item in self.items.values())

    @property
    def refused(self) -> int:
        """Bids answered with 200 and ``success: false``."""
        return sum(sum(item.refused.values()) for item in self.items.values())

    @property
    def unknown(self) -> int:
        """Bids whose outcome the clients do not know."""
        return sum(len(item.unknown) for item in self.items.values())

    @property
    def bids(self) -> int:
        """Bids that got a verdict."""
        return self.accepted + self.refused


class Progress(msgspec.Struct, frozen=True):
    """One line of progress; counts since the start, ``bids_per_s`` over the last interval."""

    seconds: float
    users: int
    bids_per_s: float
    accepted: int
    refused: int
    unknown: int
    failures: int
    latency: Latency


class Tally:
    """The books of one load process."""

    def __init__(self, item_ids: list[str]) -> None:
        self._items = {item_id: ItemLedger() for item_id in item_ids}
        self._refused: dict[str, Counter[str]] = {item_id: Counter() for item_id in item_ids}
        self._failed: dict[str, Counter[str]] = {item_id: Counter() for item_id in item_ids}
        self._in_flight: dict[str, tuple[str, Entry]] = {}
        self.accepted = 0
        self.refused = 0
        self.unknown = 0

    def sent(self, item_id: str, entry: Entry) -> None:
        """Enter a bid that is about to be sent."""
        self._in_flight[entry.bid_id] = (item_id, entry)

    def answered(self, bid_id: str, answer: BidAnswer) -> None:
        """Settle a bid that was entered with :meth:`sent`."""
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

    def looked(self, item_id: str, failure: str | None = None) -> None:
        """Count a look at an item, and what was wrong with the answer; one without any answer changed
        nothing.
        """
        self._items[item_id].looks += 1
        if failure is not None:
            self._failed[item_id][f"GET item: {failure}"] += 1

    def close(self, *, seconds: float, failures: int, latency: Latency) -> Ledger:
        """The ledger, with every bid still in flight as unknown."""
        for item_id, entry in self._in_flight.values():
            self._items[item_id].unknown.append(entry)
        self._in_flight.clear()
        for item_id, books in self._items.items():
            books.refused = dict(self._refused[item_id])
            books.failed = dict(self._failed[item_id])
        return Ledger(self._items, seconds, failures, latency)


def write_ledger(path: Path, ledger: Ledger) -> None:
    """Write a ledger so that a reader sees all of it or nothing."""
    draft = path.with_suffix(".part")
    draft.write_bytes(msgspec.json.encode(ledger))
    draft.replace(path)


def read_ledger(path: Path) -> Ledger:
    """Read a ledger.

    Raises:
        LedgerError: there is none, or it is damaged.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Ledger)
    except FileNotFoundError:
        raise LedgerError(f"{path} was not written: the load process ended early") from None
    except msgspec.DecodeError as error:
        raise LedgerError(f"{path} is not a ledger: {error}") from error
