"""Events and messages for the tests of the archive."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from archival_worker.consume.deliveries import Delivery, read_delivery
from shared import names
from shared.messages import (
    AnyEvent,
    AuctionClosed,
    BidAccepted,
    BidVoided,
    Event,
    EventBase,
    ItemCreated,
    decode_any_event,
    frame_batch,
)
from shared.sealed import SealedFact

START_US = 1_750_000_000_123_456


def created(item_id: str, *, seq: int = 0, epoch: int = 1, name: str = "A clock", end_us: int | None = None) -> Event:
    return ItemCreated(
        item_id=item_id,
        epoch=epoch,
        seq=seq,
        ts_us=START_US,
        current_bid=100,
        highest_bidder_id=None,
        bid_count=0,
        min_next_bid=100,
        status="open",
        end_us=end_us,
        reserve_met=False,
        currency="EUR",
        name=name,
        description="It ticks",
        seller_id="sam",
        start_price=100,
        reserve_price=5_000,
        buy_now_price=None,
        increment_kind="ladder",
        increment_value=25,
        increment_steps="1000:5,5000:10",
        start_us=START_US - 1,
        soft_close="120/300/from_bid/2",
        auto_opened=False,
    )


def bid(
    item_id: str,
    seq: int,
    *,
    epoch: int = 1,
    bid_id: str | None = None,
    user_id: str = "ada",
    amount: int | None = None,
    leader: str | None = None,
) -> Event:
    price = 100 * seq if amount is None else amount
    return BidAccepted(
        item_id=item_id,
        epoch=epoch,
        seq=seq,
        ts_us=START_US + seq,
        current_bid=price,
        highest_bidder_id=leader or user_id,
        bid_count=seq,
        min_next_bid=price + 1,
        status="open",
        end_us=None,
        reserve_met=False,
        currency="EUR",
        bid_id=bid_id or f"bid-{epoch}-{seq}",
        user_id=user_id,
        amount=price,
        previous_bid=price - 100,
        kind="bid",
    )


def of_the_future(
    item_id: str, seq: int, *, epoch: int = 1, type_name: str = "relisted", **members: object
) -> AnyEvent:
    """An event as a newer version writes it: all that every event has, and what nobody here knows."""
    state = msgspec.to_builtins(bid(item_id, seq, epoch=epoch))
    known = {name: state[name] for name in EventBase.__struct_fields__}
    return decode_any_event(msgspec.json.encode({"type": type_name} | known | members))


def closed(item_id: str, seq: int, *, epoch: int = 1) -> Event:
    return AuctionClosed(
        item_id=item_id,
        epoch=epoch,
        seq=seq,
        ts_us=START_US + seq,
        current_bid=100 * (seq - 1),
        highest_bidder_id="ada",
        bid_count=seq - 1,
        min_next_bid=100 * seq,
        status="sold",
        end_us=START_US + seq,
        reserve_met=True,
        currency="EUR",
        winner_id="ada",
    )


def voided(item_id: str, seq: int, *, voids: int, epoch: int = 1, status: str = "open") -> Event:
    return BidVoided(
        item_id=item_id,
        epoch=epoch,
        seq=seq,
        ts_us=START_US + seq,
        current_bid=100,
        highest_bidder_id=None,
        bid_count=0,
        min_next_bid=100,
        status=status,
        end_us=None,
        reserve_met=False,
        currency="EUR",
        bid_id=f"bid-1-{voids}",
        voided_seq=voids,
        offered_to=None,
        reason="a mistake",
        by="olga",
    )


def sealed(item_id: str, seq: int, maximum: int, *, user_id: str = "ada") -> SealedFact:
    """A maximum under a header key."""
    return SealedFact(
        seq=seq,
        ts_us=START_US + seq,
        user_id=user_id,
        leader_id=user_id,
        leader_max=maximum,
        runner_up=0,
        bid_id=f"bid-1-{seq}",
        max_amount=maximum,
        key="k",
        verdict=f"A|bid-1-{seq}|{seq}",
    )


def message(n: int, *events: AnyEvent, shard_epoch: int = 1) -> bytes:
    """The message of one outbox entry, as the relay publishes it."""
    return message_of(events[0].item_id, n, events, shard_epoch=shard_epoch)


def message_of(
    item_id: str, n: int, events: Sequence[AnyEvent] = (), facts: Sequence[SealedFact] = (), *, shard_epoch: int = 1
) -> bytes:
    """The same with sealed facts, and perhaps without any event."""
    sealed_json = msgspec.json.encode(facts) if facts else None
    return frame_batch(names.shard_of(item_id), shard_epoch, n, item_id, msgspec.json.encode(events), sealed_json)


def message_id(n: int, item_id: str, *, shard_epoch: int = 1) -> str:
    return names.message_id(names.shard_of(item_id), shard_epoch, n)


def delivery(n: int, *events: AnyEvent, shard_epoch: int = 1, stream_seq: int = 7) -> Delivery:
    """A message as JetStream delivers it."""
    item_id = events[0].item_id
    reply = f"$JS.ACK.{names.STREAM}.{names.ARCHIVER_DURABLE}.1.{stream_seq}.1.1750000000000000000.0"
    data = message(n, *events, shard_epoch=shard_epoch)
    return read_delivery(names.subject_of(item_id), data, reply, message_id(n, item_id, shard_epoch=shard_epoch))
