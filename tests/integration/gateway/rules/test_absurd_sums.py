"""A bidder without a limit who leads with more than Redis can count: bids are decided all the same, and what is counted
stays far above every limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from shared.domain.auction import Terms
from shared.domain.bidding import Bid
from shared.domain.increments import Increment
from shared.domain.money import MINOR_MAX
from shared.redis_layout.keys import credit_key, cursors_key, item_key
from shared.redis_layout.verdicts import AcceptedBid
from tests.histories import NOW_US, KeyedBid
from tests.integration.gateway.rules.rule_engine import ITEM, SHARD, Engine

USED_MAX = 2**56


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url, protocol=2) as opened:
        yield opened


def bid(user: str, maximum: int) -> tuple[KeyedBid, ...]:
    return (KeyedBid(Bid(f"by-{user}-{maximum}", user, None, maximum), None, False),)


@pytest.mark.parametrize("used", [2**63 - 10, USED_MAX - 10])
def test_a_lead_that_cannot_be_counted_is_counted_as_nothing(redis: Redis, used: int) -> None:
    engine = Engine(redis)
    engine.reset(Terms(ITEM, NOW_US, increment=Increment("flat", 1)), NOW_US)
    redis.hset(cursors_key(SHARD), "rulings", "S")
    redis.hset(credit_key(SHARD), mapping={"u:ann|USD": used, "l:ann|USD": "|1|1|0"})

    def counted() -> tuple[Any, Any]:
        return redis.hget(item_key(ITEM), "charged"), redis.hget(credit_key(SHARD), "u:ann|USD")

    [verdict] = engine.place(bid("ann", MINOR_MAX - 100))
    assert isinstance(verdict, AcceptedBid)
    assert counted() == (b"ann|0", str(used).encode())
    # When somebody else leads, as much is given back as was counted.
    [verdict] = engine.place(bid("bob", MINOR_MAX))
    assert isinstance(verdict, AcceptedBid)
    assert counted() == (b"", str(used).encode())


def test_what_just_fits_is_counted(redis: Redis) -> None:
    engine = Engine(redis)
    engine.reset(Terms(ITEM, NOW_US, increment=Increment("flat", 1)), NOW_US)
    redis.hset(cursors_key(SHARD), "rulings", "S")
    redis.hset(credit_key(SHARD), mapping={"u:ann|USD": USED_MAX - 500, "l:ann|USD": "|1|1|0"})
    engine.place(bid("ann", 400))
    engine.place(bid("ann", 500))
    assert redis.hget(credit_key(SHARD), "u:ann|USD") == str(USED_MAX).encode()
    engine.place(bid("bob", 900))
    assert redis.hget(credit_key(SHARD), "u:ann|USD") == str(USED_MAX - 500).encode()
