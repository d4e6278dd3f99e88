"""An item out of its archived rows: state, events and verdicts as they were, as far as the archive knows them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.item_scripts import LUA, ScriptLimits
from shared.archive_reads.items import Turns, terms_of
from shared.archive_reads.rebuild import Hidden, maxima_after, maxima_of, rebuild
from shared.archive_reads.verdicts import Answered, answered, sealed_answer
from shared.domain.auction import Terms
from shared.domain.maxima import Maxima
from shared.domain.soft_close import SoftClose
from shared.messages import (
    AnyEvent,
    AuctionExtended,
    BidAccepted,
    BidVoided,
    decode_any_event,
    decode_event,
    encode_event,
)
from shared.redis_layout.item_hash import decode_item
from shared.redis_layout.limits import RECENT_EVENTS, VERDICT_KEEP_S
from shared.redis_layout.scripts import Script
from shared.redis_layout.stored_verdicts import StoredVerdict, field_of_bid_id, field_of_first, field_of_other
from shared.redis_layout.verdicts import AcceptedBid, parse_verdict
from tests.unit.archival_worker.events import of_the_future

ITEM = "lot"
MINUTE_US = 60_000_000
START_US = 1_750_000_000_000_000
END_US = START_US + 60 * MINUTE_US
SOFT = SoftClose(trigger_us=MINUTE_US, extend_us=5 * MINUTE_US, max_count=3, hard_end_us=END_US + 60 * MINUTE_US)


def item_row(**changes: Any) -> dict[str, Any]:
    """A row of ``read_items``."""
    row: dict[str, Any] = {
        "item_id": ITEM,
        "name": "A clock",
        "description": "It ticks",
        "image_urls": [],
        "seller_id": "sam",
        "currency": "EUR",
        "start_price": 100,
        "reserve_price": 1_000,
        "buy_now_price": None,
        "increment_kind": "flat",
        "increment_value": 10,
        "increment_steps": "",
        "soft_close": msgspec.json.encode(SOFT).decode(),
        "approval_required": False,
        "epoch": 1,
        "seq": 0,
        "current_bid": 100,
        "highest_bidder_id": None,
        "bid_count": 0,
        "status": "open",
        "reserve_met": False,
        "runner_up": 0,
        "voids": 0,
        "start_us": START_US,
        "original_end_us": END_US,
        "created_us": START_US - 5,
        "end_us": END_US,
        "updated_us": START_US,
        "closed_us": START_US - 1,
    }
    return row | changes


def bid_row(seq: int, amount: int, **changes: Any) -> dict[str, Any]:
    """A row of ``read_log`` and ``read_answered_bids`` that is a bid."""
    row: dict[str, Any] = {
        "item_id": ITEM,
        "epoch": 1,
        "seq": seq,
        "body": None,
        "bid_id": f"bid-{seq}",
        "user_id": "ann",
        "amount": amount,
        "previous_bid": amount - 10,
        "kind": "bid",
        "leader_id": None,
        "ts_us": START_US + seq,
    }
    return row | changes


def event_row(event: AnyEvent) -> dict[str, Any]:
    return {"item_id": ITEM, "epoch": event.epoch, "seq": event.seq, "body": encode_event(event).decode()}


def state_after(seq: int, *, bids: int, end_us: int, price: int) -> dict[str, Any]:
    return {
        "item_id": ITEM,
        "epoch": 1,
        "seq": seq,
        "ts_us": START_US + seq,
        "current_bid": price,
        "highest_bidder_id": "ann",
        "bid_count": bids,
        "min_next_bid": price + 10,
        "status": "open",
        "end_us": end_us,
        "reserve_met": False,
        "currency": "EUR",
    }


def test_the_constants_are_those_of_the_gateway() -> None:
    limits = ScriptLimits()
    assert limits.recent_events == RECENT_EVENTS
    library = Script.read(LUA / "cancel.lua", libraries=["item", "one_item"]).text
    assert f"\nlocal VERDICT_KEEP_S = {VERDICT_KEEP_S}\n" in library


def test_state_and_terms_come_back_under_the_new_epoch() -> None:
    row = item_row(seq=7, current_bid=300, highest_bidder_id="ann", bid_count=6, runner_up=290)
    rebuilt = rebuild(row, Turns(extensions=1), [], epoch=4)
    item = decode_item({name.encode(): value.encode() for name, value in rebuilt.fields.items()})
    state = item.state
    assert item.terms == terms_of(row)
    assert (state.epoch, state.seq, state.price, state.leader, state.bid_count) == (4, 7, 300, "ann", 6)
    assert (state.leader_max, state.runner_up) == (300, 290), "without maxima the price takes their place"
    assert (state.extensions, state.end_us, state.hard_end_us) == (1, END_US, SOFT.hard_end_us)
    assert (rebuilt.deadline_us, rebuilt.fault) == (END_US, None)
    assert item.image_urls == ()


def test_images_come_back_in_their_order() -> None:
    urls = ["/images/b.jpg", "https://img.example.com/a.jpg"]
    rebuilt = rebuild(item_row(image_urls=urls), Turns(), [], epoch=4)
    item = decode_item({name.encode(): value.encode() for name, value in rebuilt.fields.items()})
    assert item.image_urls == tuple(urls)


def test_hidden_maxima_come_back_where_they_fit_what_is_public() -> None:
    row = item_row(seq=7, current_bid=300, highest_bidder_id="ann", bid_count=6, runner_up=290)
    hidden = Hidden(Maxima("ann", 900, 295), {"ann": 900, "bob": 295})
    rebuilt = rebuild(row, Turns(), [], epoch=4, hidden=hidden)
    assert (rebuilt.fields["leader_max"], rebuilt.fields["runner_up"]) == ("900", "295")
    assert rebuilt.maxima == {"ann": 900, "bob": 295}
    # A message that is a dead letter may have been the one in which the lead changed.
    misfit = rebuild(row, Turns(), [], epoch=4, hidden=Hidden(Maxima("bob", 900, 295)))
    assert (misfit.fields["leader"], misfit.fields["leader_max"], misfit.fields["runner_up"]) == ("ann", "300", "290")
    nobody = rebuild(item_row(seq=2, current_bid=100), Turns(), [], epoch=4, hidden=Hidden(Maxima("", 0, 40)))
    assert (nobody.fields["leader"], nobody.fields["leader_max"], nobody.fields["runner_up"]) == ("", "0", "40")


@pytest.mark.parametrize(
    ("bid", "expected"),
    [
        (("bob", 60, "bid", None), Maxima("bob", 60, 50)),
        (("bob", 40, "bid", "ann"), Maxima("ann", 50, 40)),
        (("ann", 30, "bid", None), Maxima("ann", 50, 20)),
        (("ann", 70, "bid", None), Maxima("ann", 70, 20)),
        (("ann", 41, "proxy", None), Maxima("ann", 50, 20)),
        (("bob", 45, "buy_now", None), Maxima("bob", 45, 50)),
        (("ann", 45, "buy_now", None), Maxima("ann", 45, 20)),
    ],
)
def test_a_plain_bid_moves_the_hidden_state_as_the_rules_say(
    bid: tuple[str, int, str, str | None], expected: Maxima
) -> None:
    standing = maxima_of({"leader_id": "ann", "leader_max": 50, "runner_up": 20})
    row = dict(zip(("user_id", "amount", "kind", "leader_id"), bid, strict=True))
    assert maxima_after(standing, row) == expected


def test_a_sealed_verdict_is_kept_under_its_key_with_what_was_asked_for() -> None:
    fact = {
        "item_id": ITEM,
        "user_id": "ann",
        "bid_id": "~x",
        "amount": None,
        "max_amount": 900,
        "key": 'k"/',
        "verdict": "M|x",
    }
    answer = sealed_answer(fact)
    sent = PendingBid(ITEM, "ann", "~x", None, 900, 'k"/', False, None)  # type: ignore[arg-type]
    assert answer.verdict == StoredVerdict("ann", sent.fingerprint, b"M|x")
    assert answer.fields == (field_of_first('k"/'), field_of_other("ann", 'k"/'))


@pytest.mark.parametrize(
    ("bid_id", "key", "is_header"),
    [("mine", "mine", False), ("~a-1", "mine", True), ("~a-1", "~a-1", True), ("0" * 18 + "-1", "0" * 18 + "-1", True)],
)
def test_a_key_is_a_bid_id_only_where_a_client_made_that(bid_id: str, key: str, is_header: bool) -> None:
    fact = {"item_id": ITEM, "user_id": "ann", "amount": 5, "max_amount": 9, "verdict": "A"}
    fields = sealed_answer(fact | {"bid_id": bid_id, "key": key}).fields
    assert fields == ((field_of_first(key), field_of_other("ann", key)) if is_header else (field_of_bid_id(key),))


@pytest.mark.parametrize(
    ("status", "deadline_us"),
    [
        ("scheduled", START_US),
        ("open", END_US),
        ("paused", None),
        ("sold", None),
        ("unsold", None),
        ("cancelled", None),
    ],
)
def test_the_closer_is_told_when_to_look(status: str, deadline_us: int | None) -> None:
    assert rebuild(item_row(status=status), Turns(), [], epoch=2).deadline_us == deadline_us


def test_pauses_shift_the_hard_end_and_a_running_one_is_kept() -> None:
    turns = Turns(extensions=2, shift_us=35, paused_us=200)
    fields = rebuild(item_row(status="paused"), turns, [], epoch=2).fields
    assert SOFT.hard_end_us is not None
    assert (fields["hard_end_us"], fields["paused_us"]) == (str(SOFT.hard_end_us + 35), "200")


def test_an_end_that_was_moved_takes_the_hard_end_along_and_its_requests_are_known() -> None:
    turns = Turns(shift_us=35, moved_us=7, move_requests=("ab:cd", "12:34"))
    fields = rebuild(item_row(), turns, [], epoch=2).fields
    assert SOFT.hard_end_us is not None
    assert fields["hard_end_us"] == str(SOFT.hard_end_us + 42)
    assert (fields["moved_us"], fields["move_requests"]) == ("7", "ab:cd 12:34")


def test_bids_become_the_events_that_they_were() -> None:
    """Newest first: a bid after the void of bid 4, whose extension is still in force."""
    extended = AuctionExtended(
        **state_after(3, bids=2, end_us=END_US + 5, price=120),
        previous_end_us=END_US,
        original_end_us=END_US,
        extensions=1,
    )
    void = BidVoided(
        **state_after(5, bids=2, end_us=END_US + 5, price=120),
        bid_id="bid-4",
        voided_seq=4,
        offered_to=None,
        reason="a mistake",
        by=None,
    )
    row = item_row(seq=6, current_bid=1_000, highest_bidder_id="ann", bid_count=3, end_us=END_US + 5)
    log = [bid_row(6, 1_000), event_row(void), bid_row(4, 130), event_row(extended), bid_row(2, 120), bid_row(1, 110)]
    events = [decode_event(raw) for raw in rebuild(row, Turns(), log, epoch=2).recent]
    assert [event.seq for event in events] == [6, 5, 4, 3, 2, 1]
    assert [event.bid_count for event in events] == [3, 2, 3, 2, 2, 1]
    assert [event.end_us for event in events] == [*[END_US + 5] * 4, END_US, END_US]
    newest = events[0]
    assert isinstance(newest, BidAccepted)
    assert (newest.reserve_met, newest.min_next_bid, newest.highest_bidder_id) == (True, 1_010, "ann")
    assert not events[2].reserve_met


def test_an_event_that_only_a_newer_version_knows_comes_back_word_for_word() -> None:
    newer = of_the_future(ITEM, 2, bid_count=1, colour="red")
    row = item_row(seq=3, current_bid=120, highest_bidder_id="ann", bid_count=2)
    rebuilt = rebuild(row, Turns(), [bid_row(3, 120), event_row(newer), bid_row(1, 110)], epoch=2)
    assert rebuilt.recent[1] == encode_event(newer)
    events = [decode_any_event(raw) for raw in rebuilt.recent]
    assert [(event.seq, event.bid_count) for event in events] == [(3, 2), (2, 1), (1, 1)]


def test_an_item_without_terms_comes_back_paused() -> None:
    rebuilt = rebuild(item_row(created_us=None, start_price=None, seq=3), Turns(), [], epoch=2)
    assert rebuilt.fields["status"] == "paused"
    assert (rebuilt.fields["seq"], rebuilt.deadline_us) == ("3", None)
    assert rebuilt.fault is not None
    assert "created" in rebuilt.fault
    assert rebuild(item_row(created_us=None, status="sold"), Turns(), [], epoch=2).fields["status"] == "sold"


TERMS = terms_of(item_row())


def verdict_of(answer: Answered | None) -> tuple[str, AcceptedBid]:
    assert answer is not None
    verdict = parse_verdict(answer.verdict.line)
    assert isinstance(verdict, AcceptedBid)
    return answer.verdict.fingerprint, verdict


def test_a_verdict_is_the_one_that_was_given() -> None:
    bid = bid_row(3, 1_200)
    fingerprint, verdict = verdict_of(answered(bid, None, TERMS))
    sent = PendingBid(ITEM, "ann", "bid-3", 1_200, None, "bid-3", True, None)  # type: ignore[arg-type]
    assert fingerprint == sent.fingerprint
    assert verdict == AcceptedBid("bid-3", 3, 1_200, 1_200, True, 1_210, True, "bid", 1, START_US + 3)


def test_a_bid_that_a_maximum_answered_was_told_the_price_after_that() -> None:
    beaten = bid_row(3, 200, leader_id="bob")
    proxy = bid_row(4, 210, bid_id="bid-3/proxy", user_id="bob", kind="proxy")
    _, verdict = verdict_of(answered(beaten, proxy, TERMS))
    assert (verdict.current_bid, verdict.your_bid, verdict.leads, verdict.min_next_bid) == (210, 200, False, 220)
    assert answered(proxy, None, TERMS) is None, "nobody has sent it"
    _, tie = verdict_of(answered(beaten, bid_row(4, 210), TERMS))
    assert (tie.current_bid, tie.leads) == (200, False)


def test_a_bid_of_a_gateways_own_id_has_no_key() -> None:
    for made in ("~0123456789abcdef01-1b", "0123456789abcdef01-1b"):
        assert answered(bid_row(1, 110, bid_id=made), None, TERMS) is None
    kept = answered(bid_row(1, 110), None, TERMS)
    assert kept is not None
    assert kept.fields == (field_of_bid_id("bid-1"),)


def test_verdicts_are_kept_until_a_day_after_an_item_is_over() -> None:
    for status in ("scheduled", "open", "paused", "sold", "unsold", "cancelled"):
        row, is_over = item_row(status=status), status in ("sold", "unsold", "cancelled")
        until_us = rebuild(row, Turns(), [], epoch=2).verdicts_until_us
        assert until_us == (row["closed_us"] + VERDICT_KEEP_S * 1_000_000 if is_over else None), status


def test_terms_without_extras() -> None:
    row = item_row(soft_close="", reserve_price=None, seller_id=None, original_end_us=None)
    assert terms_of(row) == Terms(ITEM, START_US, "EUR", None, 100, increment=TERMS.increment)
