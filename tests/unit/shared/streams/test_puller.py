"""What ends a request for messages: only what JetStream says of the one that is open."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from shared import names
from shared.clients.nats import StreamUnavailable
from shared.streams.puller import Pulled, Puller, PullOptions, ensure_consumer


class Line:
    """A connection that is up, and on which JetStream answers what the test has it say."""

    is_connected = True

    def __init__(self) -> None:
        self._answered: Callable[[Msg], Awaitable[None]] | None = None
        self.answer_to: list[str] = []
        self.sent: list[tuple[str, bytes]] = []
        self.error: Exception | None = None
        self.pulled: list[Pulled] = []
        self.ended = 0
        self.puller = Puller(
            cast(Any, self), PullOptions("counter"), on_message=self.pulled.append, on_ended=self._on_ended
        )

    def _on_ended(self) -> None:
        self.ended += 1

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str, *, cb: Callable[[Msg], Awaitable[None]]) -> None:
        assert subject == "_INBOX.x.*"
        self._answered = cb

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        if self.error is not None:
            raise self.error
        self.answer_to.append(reply)
        self.sent.append((subject, payload))

    async def says(self, request: int, status: str, description: str) -> None:
        assert self._answered is not None
        headers = {"Status": status, "Description": description}
        await self._answered(Msg(cast(Any, self), subject=self.answer_to[request], headers=headers))


@pytest.mark.parametrize(
    ("status", "description"), [("408", "Request Timeout"), ("409", "Consumer Deleted"), ("503", "")]
)
async def test_what_is_said_of_a_request_before_says_nothing_of_the_one_that_is_open(
    status: str, description: str
) -> None:
    line = Line()
    await line.puller.open()
    await line.puller.pull(10)
    await line.puller.pull(10)
    await line.says(0, status, description)
    line.puller.check(pulling=True)
    assert line.ended == 0, "otherwise more would be asked for while as much as may wait is on its way"


@pytest.mark.parametrize(
    ("status", "description", "is_failure"), [("408", "Request Timeout", False), ("409", "Consumer Deleted", True)]
)
async def test_the_open_request_ends_when_it_is_said_so(status: str, description: str, is_failure: bool) -> None:
    line = Line()
    await line.puller.open()
    await line.puller.pull(10)
    await line.puller.pull(10)
    await line.says(1, status, description)
    assert line.ended == 1
    if is_failure:
        with pytest.raises(StreamUnavailable, match=description):
            line.puller.check(pulling=True)
    else:
        line.puller.check(pulling=True)


async def test_a_request_is_bounded_in_messages_bytes_and_time() -> None:
    line = Line()
    await line.puller.pull(10)
    ((subject, payload),) = line.sent
    assert subject == f"$JS.API.CONSUMER.MSG.NEXT.{names.STREAM}.counter"
    assert json.loads(payload) == {"batch": 10, "max_bytes": 8 * 1024**2, "expires": 500_000_000}


@pytest.mark.parametrize(
    ("status", "description", "is_failure"),
    [
        ("404", "No Messages", False),
        ("409", "Message Size Exceeds MaxBytes", False),
        ("409", "Batch Completed", False),
        ("409", "Server Shutdown", True),
        ("503", "", True),
    ],
)
async def test_a_bound_that_is_reached_ends_a_request_in_the_ordinary_way(
    status: str, description: str, is_failure: bool
) -> None:
    line = Line()
    await line.puller.open()
    await line.puller.pull(10)
    await line.says(0, status, description)
    assert line.ended == 1
    assert (line.puller._failure is not None) is is_failure


async def test_silence_is_a_failure_while_a_request_is_open_and_anything_is_a_sign_of_life() -> None:
    line = Line()
    await line.puller.open()
    await line.puller.pull(10)
    line.puller._heard_s -= 2.0  # within half a second and two of patience
    line.puller.check(pulling=True)
    line.puller._heard_s -= 1.0
    line.puller.check(pulling=False)
    with pytest.raises(StreamUnavailable, match="no sign of life"):
        line.puller.check(pulling=True)
    assert line._answered is not None
    headers = {"Nats-Msg-Id": "s01:1:1"}
    await line._answered(Msg(cast(Any, line), subject="auction.events.s01.a", reply="ack", data=b"m", headers=headers))
    line.puller.check(pulling=True)
    assert line.pulled == [Pulled("auction.events.s01.a", b"m", "ack", "s01:1:1")]
    line.puller._heard_s -= 3.0
    await line.puller.pull(10)
    line.puller.check(pulling=True)


async def test_a_connection_that_is_lost_is_a_failure_and_nothing_is_given_back_on_it() -> None:
    line = Line()
    await line.puller.give_back(["a", "b"])
    await line.puller.acknowledge(["c"])
    assert line.sent == [("a", b"-NAK"), ("b", b"-NAK"), ("c", b"")]
    line.error = OSError("full")
    await line.puller.give_back(["d"])
    with pytest.raises(StreamUnavailable):
        await line.puller.acknowledge(["e"])
    line.error = None
    line.is_connected = False
    await line.puller.give_back(["f"])
    with pytest.raises(StreamUnavailable, match="disconnected"):
        line.puller.check(pulling=False)
    assert len(line.sent) == 3, "the client would send it when it is connected again, as a duplicate of the ack wait"


class NoConsumer:
    """A stream without this consumer."""

    def __init__(self) -> None:
        self.made: list[ConsumerConfig] = []

    async def consumer_info(self, stream: str, durable: str) -> None:
        raise NotFoundError

    async def add_consumer(self, stream: str, config: ConsumerConfig) -> None:
        self.made.append(config)


async def test_the_durable_consumer_begins_at_the_first_message_and_gives_up_none() -> None:
    stream = NoConsumer()
    await ensure_consumer(cast(Any, stream), PullOptions("counter", ack_wait_s=7, ack_pending_max=9))
    (config,) = stream.made
    assert (config.name, config.durable_name, config.filter_subject) == ("counter", "counter", names.SUBJECT_ALL)
    assert (config.deliver_policy, config.ack_policy) == (DeliverPolicy.ALL, AckPolicy.EXPLICIT)
    assert (config.ack_wait, config.max_ack_pending, config.max_deliver) == (7, 9, -1)
    assert (config.mem_storage, config.inactive_threshold) == (None, None), "it stays, whoever comes and goes"
