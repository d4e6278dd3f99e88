"""What the stream holds now: every message from a number on, in however many pages, and none is passed over."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header
from nats.js.errors import NotFoundError

from api_gateway.engine.relay.options import RelayOptions
from shared import names
from shared.clients.nats import StreamUnavailable
from shared.names import OutboxEntry
from shared.streams import reader
from shared.streams.reader import last_id, newest_entries, read_from

Told = dict[int, tuple[str, str | None]]
"""By its number in the stream, the shard under whose subject a message is, and its Nats-Msg-Id."""


class Stream:
    """JetStream with these messages, and a consumer of them. ``state`` may be older than what is read afterwards."""

    def __init__(self, messages: Mapping[int, tuple[str, str | None]] | None, *, at_once: int = 10_000) -> None:
        self._messages = messages
        self._at_once = at_once
        numbers = sorted(messages or ()) or [0]
        self.state = SimpleNamespace(first_seq=numbers[0], last_seq=numbers[-1])
        self.lost: set[int] = set()
        """The consumer's numbers of messages that get lost on the way."""
        self.error: Exception | None = None
        self.configs: list[ConsumerConfig] = []
        self.asked: list[int] = []
        self.unsubscribed = 0
        self._given = 0

    async def stream_info(self, name: str) -> Any:
        assert name == names.STREAM
        if self._messages is None:
            raise NotFoundError
        return SimpleNamespace(state=self.state)

    async def pull_subscribe(self, subject: str, *, stream: str, config: ConsumerConfig) -> Stream:
        assert (subject, stream) == (names.SUBJECT_ALL, names.STREAM)
        if self._messages is None:
            raise NotFoundError
        self.configs.append(config)
        return self

    @property
    def _of_consumer(self) -> list[int]:
        return [seq for seq in sorted(self._messages or {}) if seq >= (self.configs[-1].opt_start_seq or 0)]

    async def consumer_info(self) -> Any:
        return SimpleNamespace(num_pending=len(self._of_consumer))

    async def fetch(self, batch: int, **_: float) -> list[Any]:
        self.asked.append(batch)
        if self.error is not None:
            raise self.error
        found = []
        for seq in self._of_consumer[self._given : self._given + min(batch, self._at_once)]:
            self._given += 1
            shard, message_id = (self._messages or {})[seq]
            left = len(self._of_consumer) - self._given
            place = SimpleNamespace(stream=seq, consumer=self._given)
            headers = None if message_id is None else {Header.MSG_ID: message_id}
            metadata = SimpleNamespace(sequence=place, num_pending=left)
            found.append(SimpleNamespace(subject=f"auction.events.{shard}.lot", headers=headers, metadata=metadata))
        return [each for each in found if each.metadata.sequence.consumer not in self.lost]

    async def unsubscribe(self) -> None:
        self.unsubscribed += 1

    async def get_last_msg(self, stream: str, subject: str) -> Any:
        if self._messages is None:
            raise NotFoundError
        return SimpleNamespace(headers=None)


def entries(first: int, last: int) -> Told:
    return {seq: ("s01", f"s01:1:{seq}") for seq in range(first, last + 1)}


async def numbers(stream: Stream, first_seq: int) -> list[int]:
    pages = [page async for page in read_from(cast(Any, stream), first_seq)]
    return [message.metadata.sequence.stream for page in pages for message in page]


@pytest.mark.parametrize("at_once", [10_000, 7])
async def test_every_page_is_read_in_order_and_no_page_is_longer_than_it_may_be(at_once: int) -> None:
    """A server may also give less than it is asked for."""
    stream = Stream(entries(1, 1_203), at_once=at_once)
    assert await numbers(stream, 2) == list(range(2, 1_204))
    assert max(stream.asked) == 500
    (config,) = stream.configs
    assert (config.deliver_policy, config.opt_start_seq) == (DeliverPolicy.BY_START_SEQUENCE, 2)
    assert (config.ack_policy, config.headers_only) == (AckPolicy.NONE, False)
    assert stream.unsubscribed == 1


@pytest.mark.parametrize("lost", [1, 2, 501, 703])
async def test_a_message_that_gets_lost_on_the_way_is_noticed(lost: int) -> None:
    """Whoever rebuilds a shard would leave out what was acknowledged."""
    stream = Stream(entries(1, 800))
    stream.lost = {lost}
    with pytest.raises(StreamUnavailable, match="got lost"):
        await numbers(stream, 1)
    assert stream.unsubscribed == 1


@pytest.mark.parametrize("error", [TimeoutError(), NatsError(), ConnectionResetError()])
async def test_a_stream_that_cannot_be_read_is_not_taken_for_an_empty_one(error: Exception) -> None:
    stream = Stream(entries(1, 3))
    stream.error = error
    with pytest.raises(StreamUnavailable):
        await numbers(stream, 1)


async def test_where_there_is_no_stream_or_nothing_in_it_there_is_nothing_to_read() -> None:
    for stream in (Stream(None), Stream({}), Stream(entries(1, 3))):
        assert await numbers(stream, 4) == []
        assert stream.asked == []
    assert await last_id(cast(Any, Stream(None)), "auction.events.s01.*") is None
    assert await last_id(cast(Any, Stream({})), "auction.events.s01.*") == "", "a message without any id"


async def newest(stream: Stream, most: int) -> list[int]:
    return [entry.n async for entry in newest_entries(cast(Any, stream), most=most)]


@pytest.mark.parametrize(("most", "found"), [(1, [9]), (3, [7, 8, 9]), (5, [5, 6, 7, 8, 9]), (6, [5, 6, 7, 8, 9])])
@pytest.mark.parametrize("at_once", [10, 2])
async def test_the_newest_are_so_many_and_the_last_is_one_of_them(most: int, found: list[int], at_once: int) -> None:
    """The first four have left the stream."""
    stream = Stream(entries(5, 9), at_once=at_once)
    assert await newest(stream, most) == found
    assert stream.configs[0].headers_only
    assert stream.unsubscribed == 1


async def test_what_is_published_meanwhile_makes_nobody_read_on() -> None:
    stream = Stream(entries(1, 40), at_once=3)
    stream.state.last_seq = 10
    assert await newest(stream, 4) == [7, 8, 9, 10]
    assert len(stream.asked) == 2
    assert stream.unsubscribed == 1


async def test_foreign_messages_are_no_entries_and_count_among_the_newest() -> None:
    """One without an id, one with somebody else's, and one that names another shard than its subject does."""
    stream = Stream(
        {1: ("s01", "s01:1:1"), 2: ("s01", None), 3: ("s01", "hello"), 4: ("s02", "s01:9:9"), 5: ("s02", "s02:3:5")}
    )
    found = [entry async for entry in newest_entries(cast(Any, stream), most=4)]
    assert found == [OutboxEntry("s02", 3, 5)]
    assert [entry.n async for entry in newest_entries(cast(Any, Stream(None)))] == []


def test_more_is_looked_back_at_than_a_relay_may_have_on_its_way() -> None:
    assert 4 * RelayOptions().entries_per_turn <= reader.LOOK_BACK_MESSAGES
