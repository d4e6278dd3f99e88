"""How the operations of viewers are counted: what one of them may ask for, and what happens beyond that."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from broadcast_service.core.close_codes import TOO_MANY_ERRORS, TOO_MANY_OPERATIONS
from broadcast_service.core.quota import NOISE_BURST, REFUSED_MAX, SINCE_COST
from broadcast_service.endpoints.watch import ERRORS_MAX, Session
from broadcast_service.service import Service
from broadcast_service.transport.connection import Connection
from shared import feed_tokens
from shared.feed_tokens import Identity
from tests.unit.broadcast_service.test_service import new_service
from tests.unit.broadcast_service.transport.test_connection import Clock, Pipe

SECRET = "a secret that is long enough for HS256"
ITEMS_MAX = 20
BURST = ITEMS_MAX * (SINCE_COST + 1) + 100
RATE = 10


class Talk:
    """A viewer that sends operations, and the answers to it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.service: Service = new_service(
            feed_items_per_connection_max=ITEMS_MAX, feed_operations_rate_max=RATE, feed_token_secret=SECRET
        )
        self.service.clock = self.clock
        self.pipe = Pipe(room=100_000)
        limits, metrics = self.service.outgoing_limits, self.service.metrics
        self.connection = Connection(self.pipe, "c", single=False, limits=limits, metrics=metrics, clock=self.clock)
        self.service.enter(self.connection, address="192.0.2.1")
        self.session = Session(self.service, self.connection, full=False)

    def say(self, op: str, **fields: Any) -> list[dict[str, Any]]:
        """The answers to an operation."""
        self.pipe.written.clear()
        self.session.on_message(json.dumps({"op": op, **fields}))
        return self.pipe.contents

    def left(self) -> int:
        """How many pings are answered until the quota is used up."""
        count = 0
        while self.say("ping")[0]["type"] == "pong":
            count += 1
        return count

    @property
    def followed(self) -> set[str]:
        return set(self.service.hub.items_of(self.connection))


@pytest.fixture
async def talk() -> Talk:
    return Talk()


def ids(count: int) -> list[str]:
    return [f"item-{number}" for number in range(count)]


async def test_an_item_that_is_named_again_and_again_counts_each_time(talk: Talk) -> None:
    [error] = talk.say("subscribe", items=["a"] * 2_000 + ["b"])
    assert (error["code"], error["item_id"]) == ("TOO_MANY_OPERATIONS", "a")
    assert talk.followed == {"a"}
    assert talk.left() == 0


async def test_what_comes_after_the_item_that_was_too_much_is_not_done_either(talk: Talk) -> None:
    talk.say("subscribe", items=["x"] * (BURST - 1 - 1 - 2))
    [error] = talk.say("subscribe", items=["a", "b", "c", "d"])
    assert (error["code"], error["item_id"]) == ("TOO_MANY_OPERATIONS", "c")
    assert talk.followed == {"x", "a", "b"}
    talk.clock.now_s += 1
    assert talk.say("subscribe", items=["c", "d"]) == []
    assert talk.followed == {"x", "a", "b", "c", "d"}


@pytest.mark.parametrize(
    ("operation", "counts"),
    [
        ({"op": "subscribe", "items": ["b", "c"]}, 1 + 2),
        ({"op": "subscribe", "items": ["b", "c"], "since": {"c": "1:0"}}, 1 + 1 + SINCE_COST),
        ({"op": "subscribe", "items": ["?"]}, 1 + 1),
        ({"op": "unsubscribe", "items": ids(300)}, 1),
        ({"op": "standing", "items": ["a", "b"]}, 1 + 1),
        ({"op": "authenticate", "token": "nonsense"}, 1 + 10),
        ({"op": "authenticate", "token": feed_tokens.mint(SECRET, Identity("ann", 4_000_000_000))}, 1 + 10),
        ({"op": "none"}, 1),
    ],
    ids=json.dumps,
)
async def test_what_an_operation_counts(talk: Talk, operation: dict[str, Any], counts: int) -> None:
    talk.say("subscribe", items=ids(10))
    talk.clock.now_s += 1_000
    talk.say(**operation)
    assert talk.left() == BURST - counts
    assert talk.service.metrics.operations == 1 + 10 + BURST + 1
    assert talk.service.metrics.operations_refused == 1


async def test_who_goes_on_is_closed_and_named_in_the_log(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert talk.left() == BURST
    for _ in range(REFUSED_MAX - 1):
        [error] = talk.say("nonsense")
        assert error["code"] == "TOO_MANY_OPERATIONS"
    assert talk.pipe.finished == []
    talk.say("ping")
    assert talk.pipe.finished == [TOO_MANY_OPERATIONS.code]
    assert "192.0.2.1" in caplog.text
    assert talk.service.metrics.operations_failed == 0, "nothing was wrong with what was refused"


async def test_who_is_told_to_wait_and_does_is_served_for_ever(talk: Talk) -> None:
    """Even after many more refusals than the allowed number of errors."""
    for _ in range(3 * ERRORS_MAX):
        talk.left()
        talk.clock.now_s += 1
    assert talk.pipe.finished == []
    talk.clock.now_s += 1
    assert talk.say("ping")[0]["type"] == "pong"


async def test_nonsense_is_final_before_it_is_too_much(talk: Talk) -> None:
    for _ in range(ERRORS_MAX + 1):
        talk.say("nonsense")
    assert talk.pipe.finished == [TOO_MANY_ERRORS.code]


async def test_what_is_no_message_has_a_quota_of_its_own(talk: Talk) -> None:
    """Nobody is told again and again that it is used up: telling would take as long."""
    for _ in range(NOISE_BURST):
        talk.session.on_noise()
    assert talk.left() == BURST
    talk.pipe.written.clear()
    assert talk.pipe.finished == []
    talk.session.on_noise()
    assert talk.pipe.contents == []
    assert talk.pipe.finished == [TOO_MANY_OPERATIONS.code]
