"""Random terms and bid histories, for driving the pure rules and the Lua script side by side."""

from __future__ import annotations

from dataclasses import dataclass

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
    """Time runs on, then maybe an operation, then bids arrive in one batch."""

    elapsed_us: int
    operation: str | None
    bids: tuple[KeyedBid, ...]


def amounts(near: int = 10_000) -> st.SearchStrategy[int]:
    """Mostly small amounts that collide, and the ends of the range."""
    return st.one_of(
        st.integers(1, 60),
        st.integers(1, near),
        st.sampled_from([99, 100, 101, 499, 500, 2_499, 2_500, MINOR_MAX - 1, MINOR_MAX]),
        st.integers(MINOR_MAX - 20_000, MINOR_MAX),
    )


@st.composite
def increments(draw: st.DrawFn) -> Increment:
    """Every kind of increment."""
    kind = draw(st.sampled_from(["flat", "percent", "ladder", "ebay"]))
    if kind == "flat":
        return Increment("flat", draw(st.one_of(st.integers(1, 50), st.just(MINOR_MAX))))
    if kind == "percent":
        return Increment("percent", draw(st.integers(1, 10_000)))
    if kind == "ebay":
        return default_ladder(draw(st.sampled_from([0, 2, 3])))
    bounds = sorted(draw(st.sets(st.integers(1, 5_000), min_size=1, max_size=4)))
    steps = tuple((bound, draw(st.integers(1, 200))) for bound in bounds)
    return Increment("ladder", draw(st.integers(1, 500)), steps)


@st.composite
def soft_closes(draw: st.DrawFn, end_us: int) -> SoftClose:
    """Windows of a few seconds around an end."""
    return SoftClose(
        trigger_us=draw(st.integers(1, 20)) * SECOND_US,
        extend_us=draw(st.integers(1, 30)) * SECOND_US,
        mode=draw(st.sampled_from(["from_bid", "from_end"])),
        max_count=draw(st.integers(0, 3)),
        hard_end_us=draw(st.one_of(st.none(), st.integers(end_us, end_us + 60 * SECOND_US))),
    )


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    """Terms of every kind; the auction starts about now and lasts for seconds, or for ever."""
    start_price = draw(st.one_of(st.just(0), st.integers(0, 500)))
    reserve = draw(st.one_of(st.none(), st.integers(max(start_price, 1), 2_000)))
    buy_now = draw(st.one_of(st.none(), st.integers(max(start_price, reserve or 1, 1), 4_000)))
    start_us = NOW_US + draw(st.sampled_from([-SECOND_US, 0, 1, SECOND_US]))
    end_us = draw(st.one_of(st.none(), st.integers(5, 40).map(lambda s: NOW_US + s * SECOND_US)))
    return Terms(
        item_id="item",
        start_us=start_us,
        seller_id=draw(st.sampled_from([None, SELLER])),
        start_price=start_price,
        reserve_price=reserve,
        buy_now_price=buy_now,
        increment=draw(increments()),
        end_us=end_us,
        soft_close=None if end_us is None else draw(st.one_of(st.none(), soft_closes(end_us), soft_closes(end_us))),
    )


@st.composite
def bids(draw: st.DrawFn, number: int) -> KeyedBid:
    """A plain bid, a bid with a maximum, or a maximum alone; now and then under a key that was used before."""
    user = draw(st.sampled_from((*USERS, *USERS, SELLER)))
    # Rising with the number, so that long runs of accepted bids come up as often as refusals.
    rising = st.integers(number * 100, number * 100 + 150)
    amount = draw(st.one_of(st.none(), amounts(), rising, rising))
    maximum = draw(st.one_of(st.none(), amounts()))
    if amount is None and maximum is None:
        amount = draw(amounts())
    if amount is not None and maximum is not None and maximum < amount:
        amount, maximum = maximum, amount
    kind = draw(st.sampled_from(["none", "none", "header", "bid_id"]))
    again = draw(st.integers(0, 3))
    if kind == "bid_id":
        bid_id = f"key-{again}"
        return KeyedBid(Bid(bid_id, user, amount, maximum), bid_id, True)
    return KeyedBid(Bid(f"~b-{number}", user, amount, maximum), f"key-{again}" if kind == "header" else None, False)


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Batches of bids with time between them, often right at the edge of a second."""
    steps = []
    number = 0
    for _ in range(draw(st.integers(1, 7))):
        elapsed = draw(
            st.one_of(st.just(0), st.integers(0, 3), st.integers(0, 15).map(lambda s: s * SECOND_US), st.just(999_999))
        )
        batch = []
        for _ in range(draw(st.integers(1, 6))):
            number += 1
            batch.append(draw(bids(number)))
        operation = draw(
            st.sampled_from([None, None, None, "advance", "advance", "pause", "resume", "resume", "cancel"])
        )
        steps.append(Step(elapsed, operation, tuple(batch)))
    return steps


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
        elapsed = draw(st.sampled_from([0, SECOND_US, 2 * SECOND_US, 3 * SECOND_US - 1, 30 * SECOND_US]))
        if operation != "resume":
            elapsed = min(elapsed, 3 * SECOND_US)
        bid = Bid(f"b-{number}", draw(st.sampled_from(USERS)), number * 100 + draw(st.integers(0, 50)))
        steps.append(Step(elapsed, operation, (KeyedBid(bid, None, False),)))
    return steps
