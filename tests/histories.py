"""Random terms and bid histories, for driving the pure rules and the Lua script side by side."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal

from hypothesis import strategies as st

from shared.domain.auction import Terms
from shared.domain.bidding import Bid
from shared.domain.increments import Increment, default_ladder
from shared.domain.money import MINOR_MAX
from shared.domain.soft_close import SoftClose

NOW_US = 1_800_000_000_000_000
SECOND_US = 1_000_000

USERS = ("ada", "bob", "cyd", "dee")
SELLER = "sel"
OPERATIONS = ("advance", "advance", "pause", "resume", "resume", "cancel")


@dataclass(frozen=True)
class KeyedBid:
    """A bid and the idempotency key under which it is sent; ``key_is_bid_id`` as in the request."""

    bid: Bid
    key: str | None
    key_is_bid_id: bool


@dataclass(frozen=True)
class Step:
    """Time runs on, then maybe an operation, then bids arrive in one batch.

    ``operation``: its name; behind ``extend`` either ``by`` and so many seconds, or ``to`` and so many after
    :data:`NOW_US`.
    """

    elapsed_us: int
    operation: str | None
    bids: tuple[KeyedBid, ...]


# Strategies are made once: to make one costs several times as much as to draw from it.
_NO_AMOUNT = st.none()
_AMOUNTS = st.one_of(
    st.integers(1, 60),
    st.integers(1, 10_000),
    st.sampled_from([99, 100, 101, 499, 500, 2_499, 2_500, MINOR_MAX - 1, MINOR_MAX]),
    st.integers(MINOR_MAX - 20_000, MINOR_MAX),
)
"""Mostly small amounts that collide, and the ends of the range."""
# Rising with the number, so that long runs of accepted bids come up as often as refusals.
_RISING = st.integers(0, 150)
_OFFERS = st.sampled_from([_NO_AMOUNT, _AMOUNTS, _RISING, _RISING])
_MAXIMA = st.one_of(_NO_AMOUNT, _AMOUNTS)

_KINDS = st.sampled_from(["flat", "percent", "ladder", "ebay"])
_FLAT = st.one_of(st.integers(1, 50), st.just(MINOR_MAX))
_PERCENT = st.integers(1, 10_000)
_PLACES = st.sampled_from([0, 2, 3])
_BOUNDS = st.sets(st.integers(1, 5_000), min_size=1, max_size=4)
_STEPS = st.integers(1, 200)
_LAST_STEP = st.integers(1, 500)


@st.composite
def increments(draw: st.DrawFn) -> Increment:
    """Every kind of increment."""
    kind = draw(_KINDS)
    if kind == "flat":
        return Increment("flat", draw(_FLAT))
    if kind == "percent":
        return Increment("percent", draw(_PERCENT))
    if kind == "ebay":
        return default_ladder(draw(_PLACES))
    bounds = sorted(draw(_BOUNDS))
    steps = tuple((bound, draw(_STEPS)) for bound in bounds)
    return Increment("ladder", draw(_LAST_STEP), steps)


_TRIGGER_S = st.integers(1, 20)
_EXTEND_S = st.integers(1, 30)
_MODES: st.SearchStrategy[Literal["from_bid", "from_end"]] = st.sampled_from(["from_bid", "from_end"])
_COUNTS = st.integers(0, 3)
_HARD_END_US = st.one_of(st.none(), st.integers(0, 60 * SECOND_US))


@st.composite
def soft_closes(draw: st.DrawFn) -> SoftClose:
    """Windows of a few seconds, for an item that ends at 0; ``ending_at`` moves them."""
    return SoftClose(
        trigger_us=draw(_TRIGGER_S) * SECOND_US,
        extend_us=draw(_EXTEND_S) * SECOND_US,
        mode=draw(_MODES),
        max_count=draw(_COUNTS),
        hard_end_us=draw(_HARD_END_US),
    )


def ending_at(soft_close: SoftClose | None, end_us: int) -> SoftClose | None:
    """The soft close of an item that ends then."""
    if soft_close is None or soft_close.hard_end_us is None:
        return soft_close
    return replace(soft_close, hard_end_us=end_us + soft_close.hard_end_us)


_START_PRICES = st.one_of(st.just(0), st.integers(0, 500))
_ABOVE = st.one_of(st.none(), st.integers(0, 1_999))
_BUY_NOW_ABOVE = st.one_of(st.none(), st.integers(0, 3_999))
_STARTS_US = st.sampled_from([-SECOND_US, 0, 1, SECOND_US])
_ENDS_S = st.one_of(st.none(), st.integers(5, 40))
_SELLERS = st.sampled_from([None, SELLER])
_INCREMENTS = increments()
_SOFT_CLOSES = st.one_of(st.none(), soft_closes(), soft_closes())


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    """Terms of every kind; the auction starts about now and lasts for seconds, or for ever."""
    start_price = draw(_START_PRICES)
    above = draw(_ABOVE)
    reserve = None if above is None else max(start_price, 1) + above
    above = draw(_BUY_NOW_ABOVE)
    buy_now = None if above is None else max(start_price, reserve or 1, 1) + above
    start_us = NOW_US + draw(_STARTS_US)
    end_s = draw(_ENDS_S)
    end_us = None if end_s is None else NOW_US + end_s * SECOND_US
    return Terms(
        item_id="item",
        start_us=start_us,
        seller_id=draw(_SELLERS),
        start_price=start_price,
        reserve_price=reserve,
        buy_now_price=buy_now,
        increment=draw(_INCREMENTS),
        end_us=end_us,
        soft_close=None if end_us is None else ending_at(draw(_SOFT_CLOSES), end_us),
    )


# Who bids, under which kind of key, and which of the keys that come again and again.
_BIDDERS = st.sampled_from(
    list(itertools.product((*USERS, *USERS, SELLER), ("none", "none", "header", "bid_id"), range(4)))
)


def _bid(draw: st.DrawFn, number: int) -> KeyedBid:
    """A plain bid, a bid with a maximum, or a maximum alone; now and then under a key that was used before."""
    user, kind, again = draw(_BIDDERS)
    offer = draw(_OFFERS)
    amount = draw(_RISING) + number * 100 if offer is _RISING else draw(offer)
    maximum = draw(_MAXIMA)
    if amount is None and maximum is None:
        amount = draw(_AMOUNTS)
    if amount is not None and maximum is not None and maximum < amount:
        amount, maximum = maximum, amount
    if kind == "bid_id":
        bid_id = f"key-{again}"
        return KeyedBid(Bid(bid_id, user, amount, maximum), bid_id, True)
    return KeyedBid(Bid(f"~b-{number}", user, amount, maximum), f"key-{again}" if kind == "header" else None, False)


# Now and then whoever bid last raises their maximum, by so much. With a call of its own that is mostly an accepted bid
# without any event, and bids come after it.
_RAISES = st.sampled_from([None, 1, 40, 900])


def _raise(bid: Bid, number: int, by: int) -> KeyedBid:
    """A maximum alone, above everything that this bid said."""
    limit = min(max(bid.amount or 0, bid.maximum or 0) + by, MINOR_MAX)
    return KeyedBid(Bid(f"~b-{number}", bid.user_id, None, limit), None, False)


_BATCHES = st.integers(1, 7)
_BATCH_SIZES = st.integers(1, 6)
_ELAPSED_US = st.one_of(
    st.just(0), st.integers(0, 3), st.integers(0, 15).map(lambda s: s * SECOND_US), st.just(999_999)
)
_OPERATIONS = st.sampled_from(
    [
        *(None, None, None, "advance", "advance", "pause", "resume", "resume", "cancel"),
        *("extend by 3", "extend to 12", "extend to 45", "extend by 2592000"),
    ]
)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Batches of bids with time between them, often right at the edge of a second; raises of maxima alone between
    them."""
    steps = []
    number = 0
    for _ in range(draw(_BATCHES)):
        elapsed = draw(_ELAPSED_US)
        batch = []
        for _ in range(draw(_BATCH_SIZES)):
            number += 1
            batch.append(_bid(draw, number))
        steps.append(Step(elapsed, draw(_OPERATIONS), tuple(batch)))
        by = draw(_RAISES)
        if by is not None:
            number += 1
            steps.append(Step(0, None, (_raise(batch[-1].bid, number, by),)))
    return steps


def end_asked(operation: str) -> tuple[int | None, int | None]:
    """The new end and the length of an ``extend``, in microseconds; one of them."""
    _, word, seconds = operation.split()
    length_us = int(seconds) * SECOND_US
    return (None, length_us) if word == "by" else (NOW_US + length_us, None)


@st.composite
def late_terms(draw: st.DrawFn) -> Terms:
    """Terms whose soft close has a hard end, so near that bids run into it."""
    end_us = NOW_US + draw(st.integers(8, 20)) * SECOND_US
    soft_close = SoftClose(
        trigger_us=draw(st.integers(5, 30)) * SECOND_US,
        extend_us=draw(st.integers(1, 30)) * SECOND_US,
        mode=draw(st.sampled_from(["from_bid", "from_end"])),
        max_count=draw(st.sampled_from([0, 0, 2])),
        hard_end_us=end_us + draw(st.integers(0, 20)) * SECOND_US,
    )
    return Terms("item", NOW_US, increment=Increment("flat", 1), end_us=end_us, soft_close=soft_close)


@st.composite
def resting_histories(draw: st.DrawFn) -> list[Step]:
    """The bidding is paused and resumed again and again.

    Where operations come at random, a pause is seldom followed by a resume before the end, and hardly ever of an item
    with a hard end.
    """
    steps = []
    for number in range(1, 1 + draw(st.integers(4, 9))):
        operation = ("pause", "resume", None)[(number - 1) % 3]
        if operation is None and draw(st.booleans()):
            operation = draw(st.sampled_from(["extend by 2", "extend to 30"]))
        elapsed = draw(st.sampled_from([0, SECOND_US, 2 * SECOND_US, 3 * SECOND_US - 1, 30 * SECOND_US]))
        if operation != "resume":
            elapsed = min(elapsed, 3 * SECOND_US)
        bid = Bid(f"b-{number}", draw(st.sampled_from(USERS)), number * 100 + draw(st.integers(0, 50)))
        steps.append(Step(elapsed, operation, (KeyedBid(bid, None, False),)))
    return steps
