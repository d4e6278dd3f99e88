"""Messages that JetStream numbers without a gap: one that is missing is noticed, by the next one or by a heartbeat."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from shared.streams.follower import Follower, _Consumer, consumer_sequence


class Answers:
    """Where the consumer publishes its answers to the flow control."""

    def __init__(self) -> None:
        self.subjects: list[str] = []

    async def publish(self, subject: str) -> None:
        self.subjects.append(subject)


class Heard:
    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def on_message(self, subject: str, data: bytes) -> None:
        if data == b"bad":
            raise ValueError(data)
        self.messages.append(data)

    def on_stream_up(self) -> None:
        raise AssertionError

    def on_stream_down(self) -> None:
        raise AssertionError


class Line:
    """A consumer, and what comes to it."""

    def __init__(self) -> None:
        self.answers, self.heard = Answers(), Heard()
        self.consumer = _Consumer(cast(Any, self.answers), self.heard)

    async def message(self, sequence: int, data: bytes = b"m") -> None:
        reply = f"$JS.ACK.EVENTS.c.1.{sequence + 100}.{sequence}.1750000000000000000.0"
        await self.consumer.on_message(Msg(cast(Any, None), subject="auction.events.s01.a", reply=reply, data=data))

    async def status(self, status: str, *, reply: str = "", **headers: str) -> None:
        told = {"Status": status, **{name.replace("_", "-"): value for name, value in headers.items()}}
        await self.consumer.on_message(Msg(cast(Any, None), subject="inbox", reply=reply, data=b"", headers=told))

    @property
    def is_broken(self) -> bool:
        return self.consumer.broken.is_set()


async def test_messages_without_a_gap_are_passed_on() -> None:
    line = Line()
    for sequence in (1, 2, 3):
        await line.message(sequence, b"%d" % sequence)
    await line.status("100", Nats_Last_Consumer="3")
    assert (line.heard.messages, line.is_broken) == ([b"1", b"2", b"3"], False)


@pytest.mark.parametrize(("first", "second"), [(1, 3), (1, 1), (2, 3)])
async def test_a_message_that_is_missing_is_noticed_by_the_next_one(first: int, second: int) -> None:
    line = Line()
    await line.message(first, b"first")
    await line.message(second, b"second")
    assert line.is_broken
    assert line.heard.messages == [b"first"][: int(first == 1)], "what comes after a gap is left to the next consumer"
    assert "came after" in line.consumer.reason


async def test_the_last_message_that_is_missing_is_noticed_by_a_heartbeat() -> None:
    line = Line()
    await line.message(1)
    await line.status("100", Nats_Last_Consumer="2")
    assert (line.is_broken, "speaks of message 2" in line.consumer.reason) == (True, True)


async def test_the_flow_control_is_answered_and_another_status_is_the_end() -> None:
    line = Line()
    await line.status("100", reply="answer.here")
    await line.status("100", Nats_Consumer_Stalled="answer.there")
    assert (line.answers.subjects, line.is_broken) == (["answer.here", "answer.there"], False)
    await line.status("409", Description="Consumer Deleted")
    assert line.is_broken


async def test_a_message_that_could_not_be_handled_counts_as_missing() -> None:
    line = Line()
    await line.message(1, b"bad")
    await line.message(2, b"after")
    assert (line.is_broken, line.heard.messages) == (True, [])


def test_a_message_of_somebody_else_has_no_number() -> None:
    assert consumer_sequence("$JS.ACK.domain.hash.EVENTS.c.1.107.7.175.0.token") == 7
    assert consumer_sequence("$JS.ACK.EVENTS.c.1.107.7.175.0") == 7
    assert consumer_sequence("_INBOX.x") is None


class Newest:
    """A client, and the newest message of any subject; None for no message."""

    def __init__(self, headers: dict[str, str] | None) -> None:
        self._headers = headers

    def jetstream(self) -> Newest:
        return self

    async def get_last_msg(self, stream: str, subject: str) -> Any:
        if self._headers is None:
            raise NotFoundError
        return SimpleNamespace(headers=self._headers)


@pytest.mark.parametrize(
    ("headers", "is_there"),
    [
        (None, False),
        ({}, True),
        ({"Nats-Msg-Id": "of somebody else"}, True),
        ({"Nats-Msg-Id": "s01:1:9"}, False),
        ({"Nats-Msg-Id": "s01:2:9"}, True),
        ({"Nats-Msg-Id": "s01:3:9"}, True),
    ],
)
async def test_a_message_of_a_former_epoch_is_none(headers: dict[str, str] | None, is_there: bool) -> None:
    source = Follower("nats://nowhere", name="feed", heartbeat_s=1)
    source._client, source._is_up = cast(Any, Newest(headers)), True
    assert await source.has_message("auction.events.s01.a", 2) is is_there
