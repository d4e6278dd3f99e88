"""Messages that JetStream numbers without a gap: one that is missing is noticed, by the next one or by a heartbeat."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, DeliverPolicy
from nats.js.errors import NotFoundError

from shared import names
from shared.streams import follower as module
from shared.streams.ack_subject import consumer_sequence, stream_sequence
from shared.streams.follower import Follower, _Consumer


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


async def test_the_number_in_the_stream_is_known_when_the_listener_is_told() -> None:
    line = Line()
    at: list[tuple[int, int]] = []
    line.consumer = _Consumer(cast(Any, line.answers), line.heard, lambda n: at.append((n, len(line.heard.messages))))
    for sequence in (1, 2):
        await line.message(sequence)
    assert at == [(101, 0), (102, 1)]


def test_the_number_of_a_message_in_its_stream() -> None:
    assert stream_sequence("$JS.ACK.domain.hash.EVENTS.c.1.107.7.175.0.token") == 107
    assert stream_sequence("$JS.ACK.domain.hash.EVENTS.c.1.107.7.175.0") == 107
    assert stream_sequence("$JS.ACK.EVENTS.c.1.107.7.175.0") == 107
    assert stream_sequence("_INBOX.x") == 0


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


async def test_a_follower_hears_of_what_is_new_and_its_consumer_goes_with_it() -> None:
    """Whoever asks for all there is would have days of messages handled before the first new one."""
    config = Follower("nats://nowhere", name="feed", heartbeat_s=7)._config("inbox")
    assert (config.deliver_policy, config.ack_policy, config.max_deliver) == (DeliverPolicy.NEW, AckPolicy.NONE, 1)
    assert (config.deliver_subject, config.filter_subject) == ("inbox", names.SUBJECT_ALL)
    assert (config.flow_control, config.idle_heartbeat) == (True, 7), "or a slow process loses its connection"
    assert (config.mem_storage, config.num_replicas, config.inactive_threshold) == (True, 1, 10)


class Connection:
    """A client that is connected, or not, for the so many-th time."""

    def __init__(self, *, is_connected: bool = True, reconnects: int = 3) -> None:
        self.is_connected = is_connected
        self.stats = {"reconnects": reconnects}


@pytest.mark.parametrize(
    ("connection", "silent_s", "wrong"),
    [
        (Connection(), 0.0, None),
        (Connection(), 290.0, None),
        (Connection(), 310.0, "nothing was heard for 310"),
        (Connection(is_connected=False), 0.0, "connection was lost"),
        (Connection(reconnects=4), 0.0, "connection was lost"),
    ],
)
async def test_three_heartbeats_that_do_not_come_or_another_connection_end_a_consumer(
    connection: Connection, silent_s: float, wrong: str | None
) -> None:
    source = Follower("nats://nowhere", name="feed", heartbeat_s=100)
    line = Line()
    line.consumer.heard_s -= silent_s
    found = source._what_is_wrong(cast(Any, connection), line.consumer, 3)
    assert (found is None) == (wrong is None)
    assert wrong is None or wrong in str(found)


async def test_whatever_comes_is_a_sign_of_life() -> None:
    line = Line()
    line.consumer.heard_s -= 1_000
    await line.status("100", Nats_Last_Consumer="0")
    assert asyncio.get_running_loop().time() - line.consumer.heard_s < 500


async def test_a_consumer_that_somebody_found_to_be_wrong_says_why_and_tells_nothing_more() -> None:
    source = Follower("nats://nowhere", name="feed", heartbeat_s=1)
    source.begin_anew("there is none")
    line = Line()
    source._consumer = line.consumer
    source.begin_anew("it lacks messages")
    assert source._what_is_wrong(cast(Any, Connection()), line.consumer, 3) == "it lacks messages"
    await line.message(1)
    assert line.heard.messages == []


async def test_a_connection_that_is_lost_ends_the_consumer_at_once() -> None:
    """Nothing looks for it every now and then."""
    source, line = Follower("nats://nowhere", name="feed", heartbeat_s=1_000), Line()
    source._on_lost()
    source._consumer = line.consumer
    waiting = asyncio.create_task(line.consumer.broken.wait())
    source._on_lost()
    async with asyncio.timeout(10):
        await waiting
    assert line.consumer.reason == "the connection was lost"


class Stream:
    """A connection whose consumer never tells anything, and a listener of it."""

    def __init__(self) -> None:
        self.is_connected = True
        self.stats = {"reconnects": 0}
        self.told: list[str] = []

    def jetstream(self) -> Stream:
        return self

    def new_inbox(self) -> str:
        return "_INBOX.a"

    async def subscribe(self, subject: str, *, cb: Any) -> Stream:
        return self

    async def unsubscribe(self) -> None:
        self.told.append("unsubscribed")

    async def add_consumer(self, stream: str, config: Any) -> None:
        pass

    def on_message(self, subject: str, data: bytes) -> None:
        raise AssertionError

    def on_stream_up(self) -> None:
        self.told.append("up")

    def on_stream_down(self) -> None:
        self.told.append("down")


async def test_a_consumer_that_falls_silent_is_given_up_after_three_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    async def is_there(jetstream: Any) -> None:
        pass

    monkeypatch.setattr(module, "ensure_stream", is_there)
    stream, loop = Stream(), asyncio.get_running_loop()
    began_s = loop.time()
    async with asyncio.timeout(10):
        await Follower("nats://nowhere", name="feed", heartbeat_s=0.1)._follow(cast(Any, stream), stream)
    assert loop.time() - began_s >= 0.3
    assert stream.told == ["up", "down", "unsubscribed"]


async def test_the_connection_tells_when_it_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    source, opened = Follower("nats://nowhere", name="feed", heartbeat_s=1), asyncio.Event()

    async def open_nats(url: str, *, name: str, on_lost: Any) -> Any:
        assert on_lost == source._on_lost
        opened.set()
        await asyncio.Future()

    monkeypatch.setattr(module, "open_nats", open_nats)
    task = asyncio.create_task(source.run(Heard()))
    async with asyncio.timeout(10):
        await opened.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_published_while_the_stream_is_away() -> None:
    """The client would keep it and send it later, when it is no longer true."""
    source, line = Follower("nats://nowhere", name="feed", heartbeat_s=1), Answers()
    await source.publish("viewers", b"5")
    source._client = cast(Any, line)
    await source.publish("viewers", b"5")
    with pytest.raises(TimeoutError):
        await source.has_message("auction.events.s01.a")
    assert line.subjects == []
