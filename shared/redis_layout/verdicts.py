"""The verdict of one bid, as ``place_bids.lua`` writes it and as it is kept under the bid's key.

A line of fields, joined by ``|``; amounts in minor units, times in microseconds::

    A|bid id|seq|current bid|your bid|leads|min next bid|reserve met|kind|epoch|ts   accepted
    M|...                    the same, a maximum raised without any event
    R|code|current bid|leads|min next bid|reserve met                                refused by the rules
    K                        key or bid id used before with other content

``LIMIT_EXCEEDED`` by a spending limit has two more fields: how much credit the shard lacks, and the currency.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from shared.messages import BidAccepted


class AcceptedBid(msgspec.Struct, frozen=True, gc=False):
    """The bid counts. ``raised`` marks a maximum raised without an event."""

    bid_id: str
    seq: int
    current_bid: int
    your_bid: int
    leads: bool
    min_next_bid: int
    reserve_met: bool
    kind: str
    epoch: int
    ts_us: int
    raised: bool = False

    def encode(self) -> bytes:
        """The line."""
        mark = "M" if self.raised else "A"
        return (
            f"{mark}|{self.bid_id}|{self.seq}|{self.current_bid}|{self.your_bid}|{self.leads:d}|{self.min_next_bid}"
            f"|{self.reserve_met:d}|{self.kind}|{self.epoch}|{self.ts_us}"
        ).encode()

    @classmethod
    def of_event(cls, event: BidAccepted) -> AcceptedBid:
        """The verdict of a bid that is known only by its event: its answer was lost on the way.

        The event carries the state right after itself, as the verdict does, except where an automatic bid followed in
        the same step; then the price and the minimum are those before that answer, and still true bounds.
        """
        return cls(
            bid_id=event.bid_id,
            seq=event.seq,
            current_bid=event.current_bid,
            your_bid=event.amount,
            leads=event.highest_bidder_id == event.user_id,
            min_next_bid=event.min_next_bid,
            reserve_met=event.reserve_met,
            kind=event.kind,
            epoch=event.epoch,
            ts_us=event.ts_us,
        )


class RefusedBid(msgspec.Struct, frozen=True, gc=False):
    """The rules refused the bid; nothing changed."""

    code: str
    current_bid: int
    leads: bool
    min_next_bid: int
    reserve_met: bool

    def encode(self) -> bytes:
        """The line."""
        return (f"R|{self.code}|{self.current_bid}|{self.leads:d}|{self.min_next_bid}|{self.reserve_met:d}").encode()


ACCEPTED: Final = (b"A", b"M")
"""How the line of an accepted bid begins."""

_WITH_CREDIT: Final = 8
LIMITED: Final = b"R|LIMIT_EXCEEDED|"
"""How the line begins of a bid that was beyond a limit."""

KEY_REUSED: Literal["KEY_REUSED"] = "KEY_REUSED"
KEY_REUSED_LINE: Final = b"K"

VerdictLine = AcceptedBid | RefusedBid | Literal["KEY_REUSED"]


def parse_verdict(line: bytes) -> VerdictLine:
    """Read one verdict.

    Raises:
        IndexError, ValueError: the line was not written by this platform.
    """
    fields = line.decode().split("|")
    mark = fields[0]
    if mark == "R":
        return RefusedBid(fields[1], int(fields[2]), fields[3] == "1", int(fields[4]), fields[5] == "1")
    if mark == "K":
        return KEY_REUSED
    return AcceptedBid(
        bid_id=fields[1],
        seq=int(fields[2]),
        current_bid=int(fields[3]),
        your_bid=int(fields[4]),
        leads=fields[5] == "1",
        min_next_bid=int(fields[6]),
        reserve_met=fields[7] == "1",
        kind=fields[8],
        epoch=int(fields[9]),
        ts_us=int(fields[10]),
        raised=mark == "M",
    )


def code_of_refusal(line: bytes) -> str:
    """The code of a bid that the rules refused."""
    return line.split(b"|", 2)[1].decode()


def credit_lacking(line: bytes) -> tuple[int, str] | None:
    """How much of the bidder's spending limit the shard lacks for this refused bid, in minor units, and the currency.
    None where another limit refused it."""
    fields = line.decode().split("|")
    return (int(fields[6]), fields[7]) if len(fields) == _WITH_CREDIT else None
