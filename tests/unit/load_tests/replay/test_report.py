"""What a replay reports, and why an auction may close at another price than recorded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from load_tests.replay.report import AuctionResult, ReplayReport, as_json, reason_of_miss, render

RESULT = AuctionResult(
    auction="100",
    item_id="ebay-100-t",
    bids=4,
    accepted=3,
    refused={"TOO_LOW": 1},
    troubles={},
    opening_bid=100,
    recorded_price=1250,
    final_price=1250,
    expected_price=1250,
    highest_maximum=1300,
)


def report(*results: AuctionResult, mode: str = "plain") -> ReplayReport:
    return ReplayReport(mode, "t", "http://gateway.test", 2.0, results, repeated=1)


def test_a_sound_replay() -> None:
    text = render(report(RESULT, RESULT))
    assert report(RESULT).ok
    assert "8 in 2.0 s, 4/s" in text
    assert "(TOO_LOW 2)" in text
    assert "2 of 2 auctions" in text
    assert "recorded price" not in text


def test_an_auction_without_an_accepted_bid_stays_at_its_opening_bid() -> None:
    untouched = replace(RESULT, accepted=0, expected_price=None, final_price=100)
    assert untouched.ok
    assert not replace(untouched, final_price=101).ok


def test_a_wrong_price_and_missing_verdicts_are_failures_with_their_numbers() -> None:
    wrong = replace(RESULT, final_price=1200)
    silent = replace(RESULT, item_id="ebay-200-t", troubles={"no answer": 2})
    text = render(report(RESULT, wrong, silent))
    assert not report(RESULT, wrong).ok
    assert "FAILED ebay-100-t: the price is 12.00, the accepted bids say 12.50" in text
    assert "FAILED ebay-200-t: 2 bids without a verdict  (no answer 2)" in text
    assert "1 of 3 auctions" in text


def test_proxy_mode_lists_each_miss_with_a_reason_and_does_not_fail_for_it() -> None:
    miss = replace(RESULT, recorded_price=1300)
    judged = report(RESULT, miss, mode="proxy")
    text = render(judged)
    assert judged.ok
    assert "closed at the recorded price: 1 of 2 auctions (50.0%)" in text
    assert "100: 12.50, recorded 13.00: recorded at the highest maximum: a hidden reserve" in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"recorded_price": 1300}, "hidden reserve lifted the price to it"),
        ({"recorded_price": 1301}, "bids are missing in the recording"),
        ({"recorded_price": 1275}, "a hidden reserve, or a bid that was retracted"),
        ({"recorded_price": 50}, "below the opening bid"),
        ({"recorded_price": 1200}, "eBay refused or struck a bid"),
        ({"recorded_price": 1300, "troubles": {"no answer": 1}}, "some bids got no verdict"),
    ],
)
def test_reasons(changes: dict[str, object], reason: str) -> None:
    assert reason in reason_of_miss(replace(RESULT, **changes))  # type: ignore[arg-type]


def test_the_json_report_has_every_auction() -> None:
    data = as_json(report(RESULT, replace(RESULT, final_price=1), mode="proxy"))
    assert data["ok"] is False
    assert [auction["ok"] for auction in data["auctions"]] == [True, False]
    assert data["closed_as_recorded"] == 1
