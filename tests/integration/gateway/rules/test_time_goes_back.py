"""What an item makes of a clock of Redis that goes back, on a real Redis with the clock in a key (decision 0040).

With the whole platform around it, and a server whose clock really jumps: tests/faults/redis_clock/.
"""

from __future__ import annotations

from shared.domain.auction import Terms
from shared.domain.bidding import Bid
from shared.redis_layout.verdicts import AcceptedBid
from tests.histories import KeyedBid
from tests.integration.gateway.rules.rule_engine import ITEM, Engine

_START_US = 1_700_000_000_000_000
_HOUR_US = 3_600_000_000


def _opened(engine: Engine, end_us: int | None = None) -> None:
    engine.reset(Terms(ITEM, _START_US, end_us=end_us), _START_US)


def test_an_item_that_was_open_stays_open(engine: Engine) -> None:
    _opened(engine)
    engine.set_clock(_START_US - _HOUR_US)
    bid = Bid(bid_id="a-1", user_id="ann", amount=100)
    (verdict,) = engine.place((KeyedBid(bid, key="a-1", key_is_bid_id=True),))
    assert isinstance(verdict, AcceptedBid), verdict
    assert engine.item().updated_us == _START_US, "no event is before the one before it"


def test_a_pause_takes_no_time_away(engine: Engine) -> None:
    _opened(engine, end_us=_START_US + _HOUR_US)
    assert engine.operate("pause")
    engine.set_clock(_START_US - _HOUR_US)
    assert engine.operate("resume")
    assert engine.item().state.end_us == _START_US + _HOUR_US
