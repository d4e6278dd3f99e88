"""What was ruled on bidders: the reference and the scripts decide the same, in every order of rulings and bids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from shared.domain.auction import Status, Terms, opening_state
from shared.domain.bidding import Bid
from shared.domain.rulings import PASSING, Rulings
from shared.redis_layout.keys import credit_key, cursors_key, item_rulings_key, rulings_key
from shared.redis_layout.rulings import EVERYBODY, HouseRuling, ItemRuling, field_of
from shared.redis_layout.verdicts import RefusedBid, VerdictLine
from tests.histories import NOW_US, SELLER, USERS, KeyedBid, Step, histories, terms
from tests.integration.gateway.rules.rule_engine import ITEM, SHARD, Engine
from tests.integration.gateway.rules.rule_model import Model, assert_equal
from tests.searching import examples


@dataclass(frozen=True)
class Decree:
    """A ruling on a bidder: on the item, on all of its seller, or on all; on everybody where there is no user."""

    where: str
    user_id: str
    ruling: str
    limit: int | None = None


@dataclass
class Ruled(Model):
    """The reference, and what was ruled so far."""

    on_item: dict[str, ItemRuling] = field(default_factory=dict)
    on_all: dict[str, HouseRuling] = field(default_factory=dict)
    lease: int | None = None

    def decree(self, decree: Decree) -> None:
        if decree.where == "item":
            before = self.on_item.get(decree.user_id, ItemRuling())
            changed = {"limit": decree.limit} if decree.ruling in ("limit", "unlimit") else flags_of(decree)
            self.on_item[decree.user_id] = before._replace(**changed)
        else:
            name = place_of(decree)
            self.on_all[name] = self.on_all.get(name, HouseRuling())._replace(**flags_of(decree))

    def rulings(self, user_id: str) -> Rulings:
        nothing = HouseRuling()
        on_item, on_all = self.on_item.get(user_id, ItemRuling()), self.on_all.get(user_id, nothing)
        on_seller = self.on_all.get(f"{user_id}|{self.terms.seller_id}", nothing)
        return Rulings(
            needs_approval=self.terms.approval_required or self.on_all.get(EVERYBODY, nothing).approved,
            approved=on_item.approved or on_all.approved,
            blocked=on_item.blocked or on_all.blocked or on_seller.blocked,
            limit=on_item.limit,
            credit=None if self.lease is None or user_id != SPENDER else self.lease - ELSEWHERE,
        )


def flags_of(decree: Decree) -> dict[str, bool]:
    name = "approved" if decree.ruling.endswith("approve") else "blocked"
    return {name: not decree.ruling.startswith("un")}


def place_of(decree: Decree) -> str:
    if decree.where == "everybody":
        return EVERYBODY
    return field_of(decree.user_id, SELLER if decree.where == "seller" else None)


def carry_out(redis: Redis, engine: Engine, model: Ruled, decree: Decree, version: int) -> None:
    """The same in Redis: on the item by its script, for all by a copy, as it comes to every shard but the home."""
    model.decree(decree)
    if decree.where == "item":
        engine.rule(decree.user_id, decree.ruling, decree.limit)
    else:
        name = place_of(decree)
        engine.copy_ruling(name, model.on_all[name]._replace(epoch=1, n=version).encode())


@st.composite
def decrees(draw: st.DrawFn) -> Decree:
    """Any ruling; those that refuse come as often as those that allow."""
    where = draw(st.sampled_from(["item", "item", "item", "seller", "all", "everybody"]))
    on_item = [*["approve"] * 4, "unapprove", "block", *["unblock"] * 3, *["limit"] * 4, "unlimit"]
    of = {
        "item": on_item,
        "seller": ["block", "unblock", "unblock"],
        "all": ["approve", "approve", "unapprove", "block", "unblock"],
        "everybody": ["approve", *["unapprove"] * 3],
    }
    ruling = draw(st.sampled_from(of[where]))
    limit = draw(st.sampled_from([50, 500, 500, 5_000])) if ruling == "limit" else None
    return Decree(where, draw(st.sampled_from((*USERS, SELLER))), ruling, limit)


SPENDER = "cyd"
ELSEWHERE = 40
"""What the shard's other items take of the spender's lease."""
BID = Bid("b-1", "ada", 200)
_DECREES = st.lists(decrees(), max_size=4)


@pytest.fixture(scope="module")
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as redis:
        yield redis


@pytest.fixture(scope="module")
def engine(redis: Redis) -> Engine:
    return Engine(redis)


SEEN: dict[str, int] = dict.fromkeys((*PASSING, "accepted_by_approval", "beyond_credit"), 0)


@settings(max_examples=examples(250))
@given(item_terms=terms(), asks=st.sampled_from([False, False, True]), steps=histories(), data=st.data())
def rulings_are_equal(
    redis: Redis, engine: Engine, item_terms: Terms, asks: bool, steps: list[Step], data: st.DataObject
) -> None:
    item_terms = replace(item_terms, item_id=ITEM, approval_required=asks, seller_id=SELLER)
    engine.reset(item_terms, NOW_US)
    lease = data.draw(st.sampled_from([None, 140, 540, 2_040]))
    model = Ruled(item_terms, opening_state(item_terms, NOW_US), lease=lease)
    now_us, version = NOW_US, 1
    account = f"{SPENDER}|{item_terms.currency}"
    if lease is not None:
        redis.hset(credit_key(SHARD), mapping={f"u:{account}": ELSEWHERE, f"l:{account}": f"{lease}|1|1|0"})
        redis.hset(cursors_key(SHARD), "rulings", "S")
    carry_out(redis, engine, model, Decree("item", "ada", "limit", 500), version)
    for step in steps:
        now_us += step.elapsed_us
        engine.set_clock(now_us)
        if step.operation is not None:
            assert engine.operate(step.operation) == model.operate(step.operation, now_us)
        state = model.state
        has_ended = state.status is Status.OPEN and state.end_us is not None and now_us >= state.end_us
        is_over = state.status.is_final or has_ended
        for decree in data.draw(_DECREES):
            version += 1
            if decree.where == "item" and is_over:
                assert engine.rule(decree.user_id, decree.ruling, decree.limit) == 4
                continue
            carry_out(redis, engine, model, decree, version)
        expected = [model.place(keyed, now_us) for keyed in step.bids]
        assert engine.place(step.bids) == expected
        for keyed, verdict in zip(step.bids, expected, strict=True):
            count(model, keyed, verdict)
    assert_equal(engine, model)
    found: Any = redis.hgetall(item_rulings_key(ITEM))
    told = {user.decode(): ItemRuling.decode(value) for user, value in found.items()}
    assert told == {user: ruling for user, ruling in model.on_item.items() if ruling != ItemRuling()}
    if lease is not None:
        state = model.state
        leads = state.leader_max if state.leader == SPENDER and not state.status.is_final else 0
        used: Any = redis.hget(credit_key(SHARD), f"u:{account}")
        assert int(used) == ELSEWHERE + leads


def count(model: Ruled, keyed: KeyedBid, verdict: VerdictLine) -> None:
    if isinstance(verdict, RefusedBid) and verdict.code in PASSING:
        name = "beyond_credit" if verdict.code == "LIMIT_EXCEEDED" and keyed.bid.user_id == SPENDER else verdict.code
        SEEN[name] += 1
        kept = model.stored.get((keyed.bid.user_id, keyed.key or ""))
        assert kept is None or kept[1] != verdict, "it is not kept"
    elif not isinstance(verdict, RefusedBid | str) and model.rulings(keyed.bid.user_id).needs_approval:
        SEEN["accepted_by_approval"] += 1


def test_the_scripts_decide_as_the_reference_does(redis: Redis, engine: Engine) -> None:
    """The histories have every refusal, too."""
    rulings_are_equal(redis, engine)
    assert min(SEEN.values()) >= 10, SEEN


def test_the_same_bid_under_its_key_is_decided_anew_after_another_ruling(redis: Redis, engine: Engine) -> None:
    item_terms = Terms(ITEM, NOW_US, approval_required=True)
    engine.reset(item_terms, NOW_US)
    model = Ruled(item_terms, opening_state(item_terms, NOW_US))
    bid = KeyedBid(BID, "key", False)

    def code() -> str:
        verdict = model.place(bid, NOW_US)
        assert engine.place((bid,)) == [verdict]
        return verdict.code if isinstance(verdict, RefusedBid) else "accepted"

    rulings = [None, ("approve", None), ("limit", 199), ("block", None), ("unblock", None), ("limit", 200)]
    codes: list[str] = []
    for number, ruling in enumerate(rulings):
        if ruling is not None and codes[-1] != "accepted":
            carry_out(redis, engine, model, Decree("item", "ada", *ruling), number)
        if ruling == ("approve", None):
            carry_out(redis, engine, model, Decree("item", "ada", "limit", 10), number)
        codes.append(code())
    assert codes == ["NOT_APPROVED", "LIMIT_EXCEEDED", "LIMIT_EXCEEDED", "BLOCKED", "LIMIT_EXCEEDED", "accepted"]
    carry_out(redis, engine, model, Decree("item", "ada", "block"), 9)
    assert code() == "accepted", "a stored verdict answers before any ruling does"


def test_a_spending_limit_tells_nothing_of_another_s_maximum(redis: Redis, engine: Engine) -> None:
    """Else who may spend little would search for it from above, and lift the price to it without a risk."""
    item_terms = Terms(ITEM, NOW_US)
    engine.reset(item_terms, NOW_US)
    account = f"{SPENDER}|{item_terms.currency}"
    redis.hset(credit_key(SHARD), mapping={f"u:{account}": ELSEWHERE, f"l:{account}": f"{12 + ELSEWHERE}|1|1|0"})
    redis.hset(cursors_key(SHARD), "rulings", "S")
    model = Ruled(item_terms, opening_state(item_terms, NOW_US), lease=12 + ELSEWHERE)
    for bidder, most in (("ada", 73), (SPENDER, 74), (SPENDER, 73), (SPENDER, 13), (SPENDER, 12)):
        bid = KeyedBid(Bid(f"b-{bidder}-{most}", bidder, None, most), None, False)
        verdict = model.place(bid, NOW_US)
        assert engine.place((bid,)) == [verdict]
        refused = verdict.code if isinstance(verdict, RefusedBid) else None
        assert refused == ("LIMIT_EXCEEDED" if bidder == SPENDER and most > 12 else None), most


def test_a_plain_item_in_a_plain_house_reads_no_hash_of_rulings(redis: Redis, engine: Engine) -> None:
    """What costs nothing where nothing is ruled: proven by what is there and is not looked at."""
    item_terms = Terms(ITEM, NOW_US)
    engine.reset(item_terms, NOW_US)
    redis.hset(item_rulings_key(ITEM), "ada", "B|")
    redis.hset(rulings_key(SHARD), "ada", "B|1|1")
    model = Model(item_terms, opening_state(item_terms, NOW_US))
    bid = KeyedBid(BID, None, False)
    assert engine.place((bid,)) == [model.place(bid, NOW_US)]
    redis.hset(cursors_key(SHARD), "rulings", "L")
    bid = KeyedBid(replace(BID, bid_id="b-2", amount=900), None, False)
    [refused] = engine.place((bid,))
    assert isinstance(refused, RefusedBid)
    assert refused.code == "BLOCKED"
