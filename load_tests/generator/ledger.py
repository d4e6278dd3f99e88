"""The books of a load run as a file: every bid with its outcome, for the proof; and the figures of the time under full
load. Pure except for the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from load_tests.generator.histogram import merged, percentile_ms


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
    """Response times of bids in milliseconds, exact to one per cent."""

    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


def latency_of(times: dict[int, int]) -> Latency:
    """The percentiles of a histogram of :mod:`load_tests.generator.histogram`."""
    p50, p95, p99 = (percentile_ms(times, share) for share in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, max(times, default=0) / 10)


class Window(msgspec.Struct):
    """What happened while all users were at work: neither while they came nor while they went.

    ``began_s`` is when by the monotonic clock of the load's machine, ``seconds`` its length, ``bids`` those with a
    verdict, ``times`` the histogram of their response times.
    """

    began_s: float = 0.0
    seconds: float = 0.0
    bids: int = 0
    accepted: int = 0
    failures: int = 0
    looks: int = 0
    times: dict[int, int] = msgspec.field(default_factory=dict)

    @property
    def latency(self) -> Latency:
        """The percentiles."""
        return latency_of(self.times)

    @property
    def bids_per_s(self) -> float:
        """Bids with a verdict per second."""
        return self.bids / self.seconds if self.seconds else 0.0


class Ledger(msgspec.Struct):
    """A whole run. ``seconds`` is from the first to the last request; ``failures`` counts requests that got no answer
    or a wrong one, ``times`` is the histogram of the bids' response times, ``window`` what they were under full load.
    """

    items: dict[str, ItemLedger]
    seconds: float = 0.0
    failures: int = 0
    times: dict[int, int] = msgspec.field(default_factory=dict)
    window: Window = msgspec.field(default_factory=Window)

    @property
    def latency(self) -> Latency:
        """Percentiles over the whole run."""
        return latency_of(self.times)

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


def merge_ledgers(ledgers: Sequence[Ledger]) -> Ledger:
    """The books of several processes of one run, as those of one. Their windows cover the same time.

    Raises:
        LedgerError: there is none.
    """
    if not ledgers:
        raise LedgerError("no process of the load wrote its books")
    items: dict[str, ItemLedger] = {}
    for ledger in ledgers:
        for item_id, books in ledger.items.items():
            total = items.setdefault(item_id, ItemLedger())
            total.accepted += books.accepted
            total.unknown += books.unknown
            total.looks += books.looks
            total.refused = dict(Counter(total.refused) + Counter(books.refused))
            total.failed = dict(Counter(total.failed) + Counter(books.failed))
    windows = [ledger.window for ledger in ledgers]
    window = Window(
        began_s=max(each.began_s for each in windows),
        seconds=sum(each.seconds for each in windows) / len(windows),
        bids=sum(each.bids for each in windows),
        accepted=sum(each.accepted for each in windows),
        failures=sum(each.failures for each in windows),
        looks=sum(each.looks for each in windows),
        times=merged([each.times for each in windows]),
    )
    seconds = max(ledger.seconds for ledger in ledgers)
    failures = sum(ledger.failures for ledger in ledgers)
    return Ledger(items, seconds, failures, merged([ledger.times for ledger in ledgers]), window)


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
