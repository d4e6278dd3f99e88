"""Sealed facts: what an outbox entry tells the archive beside its events, and nobody else.

No event carries a hidden maximum, and none tells under which header key a bid came. Without them an item cannot be
rebuilt as it was. So the script seals one record per accepted bid that had one of them, and per bid that was struck,
and the message has them in a list of its own, ``sealed``. The archival worker alone decodes that list: the decoder of
:mod:`shared.messages`, which everybody else uses, does not know the field and skips its bytes.
"""

from __future__ import annotations

import msgspec

from shared.messages import AnyEvent, EventBatch, decode_any_batch


class SealedFact(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """How one decision left an item's hidden state. Amounts in minor units, time in microseconds since 1970 (UTC).

    Attributes:
        seq: the item's number right after the decision. A raised maximum has no event, so it repeats the number before.
        user_id: who bid, or whose bid was struck: then that user's maximum is gone.
        leader_id, leader_max, runner_up: who leads afterwards, up to which maximum, and the highest one of the others.
        bid_id: of the bid; None where a bid was struck.
        amount, max_amount: as the bidder asked; None where not given.
        key: under which the verdict is kept; None where the bidder sent none.
        verdict: as ``place_bids.lua`` has written it.
    """

    seq: int
    ts_us: int
    user_id: str
    leader_id: str | None
    leader_max: int
    runner_up: int
    bid_id: str | None = None
    amount: int | None = None
    max_amount: int | None = None
    key: str | None = None
    verdict: str | None = None


class SealedBatch(EventBatch, kw_only=True, frozen=True):
    """One JetStream message with its sealed facts, in the order in which they were decided."""

    events: list[AnyEvent]  # type: ignore[assignment]
    sealed: list[SealedFact] = msgspec.field(default_factory=list)


_decoder = msgspec.json.Decoder(SealedBatch)


def decode_sealed_batch(data: bytes) -> SealedBatch:
    """Decode one JetStream message, with what it has for the archive alone. Events of unknown types are told as such.

    Raises:
        msgspec.DecodeError: the data is not a message of this version (a poison message).
    """
    return decode_any_batch(_decoder, data)
