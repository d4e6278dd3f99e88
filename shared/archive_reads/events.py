"""An item's events out of the archive, as they were on the wire. Pure.

The `created` event has the reserve price: show nobody that event as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from shared.archive_reads.items import Row
from shared.domain.auction import Terms
from shared.domain.increments import next_minimum
from shared.domain.voiding import answers, bids_anew
from shared.messages import AnyEvent, AuctionExtended, BidAccepted, BidVoided, EndMoved, decode_any_event


def recent_events(terms: Terms, bid_count: int, end_us: int | None, log: Sequence[Row]) -> list[AnyEvent]:
    """An item's newest events as they were on the wire, newest first.

    Args:
        terms, bid_count, end_us: of the item as it is.
        log: rows of ``read_log``, newest first.

    The archive keeps the whole body of every event but bids. Most of a bid's public state is in its row. The bid count
    and the end are worked out backwards, from the item's present state and the events around the bid.
    """
    events: list[AnyEvent] = []
    for entry, older in itertools.zip_longest(log, log[1:]):
        event: AnyEvent
        if entry["body"] is not None:
            event = decode_any_event(entry["body"].encode())
            bid_count, end_us = event.bid_count, event.end_us
            if isinstance(event, AuctionExtended | EndMoved):
                end_us = event.previous_end_us
            elif isinstance(event, BidVoided) and event.previous_bid_count is not None:
                bid_count = event.previous_bid_count
            elif isinstance(event, BidVoided):
                bid_count += not event.bid_id.endswith(answers(""))
        else:
            event = _bid_event(terms, entry, bid_count=bid_count, end_us=end_us)
            if older is not None and older["body"] is not None and event.bid_id.endswith(bids_anew("")):
                # It follows a void and has that event's status: the item may have been paused.
                event = msgspec.structs.replace(event, status=decode_any_event(older["body"].encode()).status)
            bid_count -= event.kind != "proxy"
        events.append(event)
    return events


def _bid_event(terms: Terms, bid: Row, *, bid_count: int, end_us: int | None) -> BidAccepted:
    amount = bid["amount"]
    return BidAccepted(
        item_id=terms.item_id,
        epoch=bid["epoch"],
        seq=bid["seq"],
        ts_us=bid["ts_us"],
        bid_id=bid["bid_id"],
        user_id=bid["user_id"],
        kind=bid["kind"],
        amount=amount,
        previous_bid=bid["previous_bid"],
        current_bid=amount,
        highest_bidder_id=bid["leader_id"] or bid["user_id"],
        bid_count=bid_count,
        min_next_bid=next_minimum(amount, terms.increment),
        status="sold" if bid["kind"] == "buy_now" else "open",
        end_us=end_us,
        reserve_met=meets_reserve(terms, amount),
        currency=terms.currency,
    )


def meets_reserve(terms: Terms, price: int) -> bool:
    """Whether the price reaches the reserve, or there is none."""
    return terms.reserve_price is None or price >= terms.reserve_price
