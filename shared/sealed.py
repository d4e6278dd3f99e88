"""Sealed facts: what an outbox entry tells the archive alone, beside its events.

No event has a hidden maximum or the header key of a bid. Without them an item cannot be rebuilt as it was. So the
script writes one record per accepted bid that had one of them, and per struck bid, into the message's list ``sealed``.
Only the archival worker decodes that list: the decoder of :mod:`shared.messages`, which everybody else uses, skips it.

The list ``rulings`` has rulings on bidders in the same way: only those who make rulings see them. The list ``acts`` has
acts of operators on the platform itself.
"""

from __future__ import annotations

import msgspec

from shared.messages import AnyEvent, EventBatch, decode_any_batch


class SealedFact(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """An item's hidden state after one decision. Amounts in minor units, time in microseconds since 1970 (UTC).

    Attributes:
        seq: the item's seq right after the decision. A raise has no event, so its seq is the one before.
        user_id: who bid, or whose bid was struck; in the second case that user's maximum is gone.
        leader_id, leader_max, runner_up: the leader afterwards, their maximum, and the highest maximum of the others.
        bid_id: of the bid; None if a bid was struck.
        amount, max_amount: as the bidder asked; None if not given.
        key: the key under which the verdict is kept; None if the bidder sent none.
        verdict: as written by ``place_bids.lua``.
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


class Ruling(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """What was ruled on a bidder, and all that holds after it; an amount in minor units, time in microseconds since
    1970.

    Attributes:
        item_id, seller_id: on this item, or on all of this seller; on all items where both are None.
        user_id: the bidder; ``*`` where everybody needs approval (``approved``) from now on, or no longer.
        ruling: what was done: ``approve``, ``unapprove``, ``block``, ``unblock``, ``limit`` or ``unlimit``.
        limit: the most that one bid on the item may come to, or that the bidder may spend; None for none.
        currency: of a spending limit, over all items in it; else None.
        reason, by: why, and who did it.
    """

    ts_us: int
    item_id: str | None
    seller_id: str | None
    user_id: str
    ruling: str
    approved: bool
    blocked: bool
    limit: int | None
    reason: str
    by: str
    currency: str | None = None


class Act(msgspec.Struct, kw_only=True, frozen=True, gc=False):
    """What an operator did to the platform, and to no item or bidder's standing; time in microseconds since 1970.

    Attributes:
        act: ``revoke_tokens`` of a user, or ``revoke_token``. Acts by commands are not in messages.
        target: the user, or the ``jti`` of the token.
        reason, by: why, and who did it.
    """

    ts_us: int
    act: str
    target: str
    reason: str
    by: str


class SealedBatch(EventBatch, kw_only=True, frozen=True):
    """One JetStream message with its sealed facts, rulings and acts, in the order of the decisions."""

    events: list[AnyEvent]  # type: ignore[assignment]
    sealed: list[SealedFact] = msgspec.field(default_factory=list)
    rulings: list[Ruling] = msgspec.field(default_factory=list)
    acts: list[Act] = msgspec.field(default_factory=list)


_decoder = msgspec.json.Decoder(SealedBatch)


def decode_sealed_batch(data: bytes) -> SealedBatch:
    """Decode one JetStream message, with what it has for the archive alone. Events of unknown types are told as such.

    Raises:
        msgspec.DecodeError: the data is not a message of this version (a poison message).
    """
    return decode_any_batch(_decoder, data)
