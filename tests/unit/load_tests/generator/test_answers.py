"""Reading answers: what is certain, what is not."""

from __future__ import annotations

from decimal import Decimal

import pytest

from load_tests.generator.answers import Fate, minor_units, read_bid_answer, read_item, read_stored_verdict

ACCEPTED = (
    b'{"success":true,"message":"Bid accepted","current_bid":12.50,"your_bid":12.50,"is_highest":true,'
    b'"event_id":"lot-1:1:7","bid_id":"b","seq":7,"min_next_bid":12.51,"reserve_met":true}'
)
REFUSED = (
    b'{"success":false,"code":"TOO_LOW","message":"Too low","current_bid":12.50,"your_bid":1.00,'
    b'"is_highest":false,"min_next_bid":12.51,"you_lead":true,"reserve_met":true}'
)


def problem(code: str) -> bytes:
    return b'{"type":"urn:x","title":"x","status":503,"code":"%b","error":"text"}' % code.encode()


def test_an_acceptance_carries_seq_and_exact_amounts() -> None:
    answer = read_bid_answer(201, ACCEPTED)
    assert (answer.fate, answer.seq, answer.current_bid, answer.min_next_bid) == (
        Fate.ACCEPTED,
        7,
        1250,
        1251,
    )
    assert answer.leading
    assert answer.complaint is None


def test_a_refusal_carries_its_code_and_who_leads() -> None:
    answer = read_bid_answer(200, REFUSED)
    assert (answer.fate, answer.reason, answer.min_next_bid) == (Fate.REFUSED, "TOO_LOW", 1251)
    assert answer.leading
    assert answer.complaint is None


def test_amounts_beyond_a_double_stay_exact() -> None:
    body = ACCEPTED.replace(b'"current_bid":12.50', b'"current_bid":90071992547409.91')
    assert read_bid_answer(201, body).current_bid == 2**53 - 1


@pytest.mark.parametrize(
    ("status", "body", "fate"),
    [
        (0, None, Fate.UNKNOWN),
        (503, problem("OUTCOME_UNKNOWN"), Fate.UNKNOWN),
        (503, problem("OVERLOADED"), Fate.FAILED),
        (503, b"", Fate.UNKNOWN),
        (503, b"{}", Fate.UNKNOWN),
        (500, problem("INTERNAL_ERROR"), Fate.UNKNOWN),
        (502, b"<html>bad gateway</html>", Fate.UNKNOWN),
        (409, problem("IN_FLIGHT"), Fate.UNKNOWN),
        (422, problem("AMOUNT_INVALID"), Fate.FAILED),
        (404, problem("ITEM_NOT_FOUND"), Fate.FAILED),
        (429, b"slow down", Fate.FAILED),
        (201, b"", Fate.UNKNOWN),
        (201, ACCEPTED.replace(b'"seq":7,', b""), Fate.UNKNOWN),
        (201, ACCEPTED.replace(b"true", b"false"), Fate.UNKNOWN),
        (200, ACCEPTED, Fate.UNKNOWN),
        (201, ACCEPTED.replace(b"12.50", b"12.505"), Fate.UNKNOWN),
        (201, ACCEPTED.replace(b"12.50", b'"12.5x"'), Fate.UNKNOWN),
    ],
)
def test_only_what_surely_changed_nothing_is_failed(status: int, body: bytes | None, fate: Fate) -> None:
    answer = read_bid_answer(status, body)
    assert answer.fate is fate
    assert status == 0 or answer.complaint


def test_a_stored_verdict_is_read_as_the_bidder_would_have_received_it() -> None:
    stored = read_stored_verdict(200, ACCEPTED)
    assert stored is not None
    assert (stored.fate, stored.seq) == (Fate.ACCEPTED, 7)
    refused = read_stored_verdict(200, REFUSED)
    assert refused is not None
    assert refused.fate is Fate.REFUSED


def test_only_the_platform_itself_can_say_that_a_bid_was_never_placed() -> None:
    assert read_stored_verdict(404, problem("KEY_NOT_FOUND")) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (503, b"oops"),
        (503, problem("UNAVAILABLE")),
        (404, b"<html>"),
        (404, problem("ITEM_NOT_FOUND")),
        (404, b"{}"),
    ],
)
def test_any_other_answer_leaves_the_outcome_unknown(status: int, body: bytes) -> None:
    unclear = read_stored_verdict(status, body)
    assert unclear is not None
    assert unclear.fate is Fate.UNKNOWN


def test_an_item_is_read_exactly() -> None:
    item = read_item(
        b'{"id":"lot-1","name":"x","current_bid":0.10,"min_next_bid":0.11,"highest_bidder_id":null,'
        b'"bid_count":0,"seq":0,"epoch":1,"status":"open"}'
    )
    assert (item.item_id, item.current_bid, item.min_next_bid) == ("lot-1", 10, 11)
    assert item.highest_bidder_id is None
    with pytest.raises(ValueError, match="not an item"):
        read_item(b'{"id":"lot-1"}')


@pytest.mark.parametrize(
    ("text", "exponent", "minor"), [("12.5", 2, 1250), ("0", 2, 0), ("1.234", 3, 1234), ("7", 0, 7)]
)
def test_minor_units(text: str, exponent: int, minor: int) -> None:
    assert minor_units(Decimal(text), exponent) == minor


@pytest.mark.parametrize(("text", "exponent"), [("12.505", 2), ("0.1", 0), ("NaN", 2), ("Infinity", 2)])
def test_amounts_that_are_not_exact_are_refused(text: str, exponent: int) -> None:
    with pytest.raises(ValueError, match=r"decimals|finite"):
        minor_units(Decimal(text), exponent)
