"""The public view of an item: its terms in the form in which they are sent, and nothing that is hidden."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from api_gateway.contract.documented import ItemAnswer
from shared.domain.auction import State, Status, Terms
from shared.domain.increments import Increment
from shared.domain.soft_close import SoftClose
from shared.redis_layout.item_hash import ItemState, decode_item, item_fields, public_item

START_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000
END_US = START_US + HOUR_US
RESERVE = 77_777
TERMS = Terms("vase", START_US, start_price=100, end_us=END_US)


def made(terms: Terms, **state: Any) -> ItemState:
    return ItemState(
        terms=terms,
        state=State(**{"status": Status.OPEN, "price": terms.start_price, "end_us": terms.end_us, **state}),
        name="A vase",
        description="blue",
        original_end_us=terms.end_us,
        created_us=START_US,
        updated_us=START_US,
    )


def shown(terms: Terms, **state: Any) -> dict[str, Any]:
    """The item as a client reads it."""
    text = msgspec.json.encode(public_item(made(terms, **state)))
    assert str(RESERVE // 100) not in text.decode(), "the reserve is nobody's business"
    # What the API documents is what it sends.
    documented = msgspec.json.decode(text, type=ItemAnswer)
    decoded: dict[str, Any] = msgspec.json.decode(text)
    assert msgspec.json.decode(msgspec.json.encode(documented)) == decoded
    return decoded


def test_that_there_is_a_reserve_is_told_and_not_how_high_it_is() -> None:
    assert shown(TERMS, reserve_met=True)["has_reserve"] is False
    with_reserve = replace(TERMS, reserve_price=RESERVE)
    for met in (False, True):
        item = shown(with_reserve, reserve_met=met)
        assert (item["has_reserve"], item["reserve_met"]) == (True, met)


@pytest.mark.parametrize(
    ("increment", "said"),
    [
        (Increment("flat", 250), {"kind": "flat", "value": 2.5}),
        (Increment("percent", 275), {"kind": "percent", "value": 2.75}),
        (
            Increment("ladder", 700, ((1_000, 50), (5_000, 100))),
            {
                "kind": "ladder",
                "steps": [
                    {"below": 10.0, "increment": 0.5},
                    {"below": 50.0, "increment": 1.0},
                    {"increment": 7.0},
                ],
            },
        ),
    ],
)
def test_the_increment_is_told_as_it_would_be_sent(increment: Increment, said: dict[str, Any]) -> None:
    assert shown(replace(TERMS, increment=increment))["increment"] == said


def test_the_decimals_of_an_increment_are_those_of_the_currency() -> None:
    assert shown(replace(TERMS, currency="JPY", increment=Increment("flat", 250)))["increment"]["value"] == 250


def test_the_soft_close_is_told_with_the_hard_end_that_holds_now() -> None:
    assert shown(TERMS)["soft_close"] is None
    unlimited = SoftClose(120_000_000, 300_000_000)
    assert shown(replace(TERMS, soft_close=unlimited))["soft_close"] == {
        "trigger_s": 120,
        "extend_s": 300,
        "mode": "from_bid",
        "max_count": None,
        "hard_end": None,
    }
    bounded = replace(unlimited, mode="from_end", max_count=2, hard_end_us=END_US + HOUR_US)
    # A pause has moved the agreed one by an hour.
    moved = shown(replace(TERMS, soft_close=bounded), hard_end_us=END_US + 2 * HOUR_US)["soft_close"]
    assert (moved["mode"], moved["max_count"]) == ("from_end", 2)
    assert moved["hard_end"] == "2023-11-15T01:13:20.000000Z"


@pytest.mark.parametrize("reserve_price", [None, 150])
@pytest.mark.parametrize("status", Status)
def test_buy_now_is_offered_until_the_item_is_over(status: Status, reserve_price: int | None) -> None:
    """Also where nobody bid, or the reserve was not met: then no bid has ended the offer."""
    terms = replace(TERMS, buy_now_price=200, reserve_price=reserve_price)
    item = public_item(made(terms, status=status, reserve_met=reserve_price is None))
    assert item["buy_now_available"] is not status.is_final


def test_images_are_told_in_their_order_and_an_item_of_before_has_none() -> None:
    urls = ("/images/b.jpg", "https://img.example.com/a.jpg?w=1")
    state = {"id": "vase", "status": "open", "epoch": "1", "seq": "0", "price": "100", "leader": "", "leader_max": "0"}
    state |= {"runner_up": "0", "bid_count": "0", "extensions": "0", "start_us": "1", "end_us": "", "updated_us": "1"}
    state |= {"original_end_us": "", "created_us": "1", "reserve_met": "1"}
    for given in (urls, ()):
        fields = item_fields(TERMS, name="A vase", description="blue", image_urls=given) | state
        item = decode_item({name.encode(): value.encode() for name, value in fields.items()})
        assert msgspec.json.decode(msgspec.json.encode(public_item(item)))["image_urls"] == list(given)
    del fields["image_urls"]
    assert decode_item({name.encode(): value.encode() for name, value in fields.items()}).image_urls == ()
