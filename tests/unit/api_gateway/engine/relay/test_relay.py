"""The relay without a network: what it publishes, what it takes for published, and how far the cursors move."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from nats.js.api import Header
from nats.js.errors import NotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError

from api_gateway.engine.relay.in_flight import InFlight, PubAck
from api_gateway.engine.relay.options import RelayOptions
from api_gateway.engine.relay.publisher import Publisher
from shared import names
from shared.redis_layout.cursors import Lineage
from tests.unit.api_gateway.engine.relay.bench import ITEM, OURS, SHARD, Bench, Cursors, FakeStream, duplicate
from tests.waiting import eventually


async def test_the_cursor_stops_before_an_entry_without_a_puback_whatever_came_after_it() -> None:
    bench = Bench(1, 2, 3)
    first, third = (PubAck(seq) for seq in (1, 3))
    bench.stream.answers = [first, None, third]
    async with bench.running():
        await bench.reached(3)
    assert [entry for _, entry in bench.moves] == [1, 3]
    assert bench.stream.ids == [1, 2, 3, 2, 3]
    assert bench.relay.health.failures_total == 1


async def test_a_shard_that_is_rebuilt_while_its_cursor_moves_begins_at_its_new_first_entry() -> None:
    """The answer that the cursor has moved comes after the next renewal of the lease, which finds another outbox."""
    bench = Bench(1, 2, 3)
    renewed = Lineage(OURS.run, 2)

    async def rebuild() -> None:
        if bench.redis.cursors.epoch == renewed.epoch:
            return
        bench.redis.entries, bench.redis.cursors = [1], Cursors(epoch=renewed.epoch)
        renewals = len(bench.scripts.holds)
        # The first of them adopts the shard again; the second shows that this is over.
        await eventually(lambda: len(bench.scripts.holds) >= renewals + 2)

    bench.scripts.on_moved = rebuild
    async with bench.running():
        await eventually(lambda: bench.redis.cursors.epoch == 2 and bench.redis.cursors.published == 1)
    assert bench.moves[-1] == (renewed, 1)


async def test_what_is_sent_is_told_before_and_whatever_becomes_of_it() -> None:
    """It may arrive after a failover to a replica that lacks it: then this process knows that it was given out."""
    bench = Bench(1, 2, epoch=4)
    bench.stream.answers = [None, None]
    async with bench.running():

        async def sent() -> bool:
            return len(bench.stream.ids) >= 2

        await eventually(sent)
    assert bench.read[:2] == [(SHARD, 4, 1), (SHARD, 4, 2)]


async def test_the_same_entry_has_the_same_id_and_another_content_another_one() -> None:
    bench = Bench(1)
    bench.stream.answers = [None]
    async with bench.running():
        await bench.reached(1)
    (first, _), (again, payload) = bench.stream.published
    assert first == again == names.message_id(SHARD, 1, 1, payload)
    assert names.message_id(SHARD, 1, 1, payload + b" ") != first


@pytest.mark.parametrize(
    ("cursors", "is_lost"),
    [
        ({"stream_id": "one", "stream_seq": 100}, False),
        ({"stream_id": "one", "stream_seq": 101}, True),
        ({"stream_id": "other", "stream_seq": 5}, True),
        ({"stream_id": "", "stream_seq": 0}, False),
        ({"stream_id": "one", "stream_seq": 5, "republish": "1"}, True),
    ],
)
async def test_what_the_stream_has_lost_is_published_again(cursors: dict[str, Any], is_lost: bool) -> None:
    """Its tail (a last sequence below one that was acknowledged), all of it (another stream), or what the archive
    misses."""
    bench = Bench(4, 5, 6, 7, published=6, archived=3, **cursors)
    bench.stream.last_seq = 100
    async with bench.running():
        await bench.reached(7)
    assert bench.stream.ids == ([4, 5, 6, 7] if is_lost else [7])
    assert (bench.scripts.rewinds, bench.relay.health.rewinds_total) == ((1, 1) if is_lost else (0, 0))


async def test_a_stream_that_loses_its_tail_while_the_relay_runs_gets_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api_gateway.engine.relay.relay._CHECK_STREAM_EVERY_S", 0.01)
    bench = Bench(1, 2)
    async with bench.running():
        await bench.reached(2)
        bench.stream.last_seq = 1

        async def again() -> bool:
            return len(bench.stream.ids) >= 4

        await eventually(again, seconds=30)
        await bench.reached(2)
    assert bench.stream.ids[:4] == [1, 2, 1, 2]


async def test_a_stream_that_lost_its_tail_is_known_by_the_next_puback() -> None:
    """It goes on at a number that was given before. The next look at the stream may find it longer than it ever was."""
    bench = Bench(1, 2)
    async with bench.running():
        await bench.reached(2)
        bench.stream.answers = [PubAck(2)]
        bench.redis.entries.append(3)
        bench.relay.notice(SHARD)
        await bench.reached(3)
    assert bench.stream.ids == [1, 2, 3, 1, 2, 3]
    assert (bench.scripts.rewinds, bench.relay.health.rewinds_total) == (1, 1)
    assert [entry for _, entry in bench.moves] == [2, 3], "not before it was looked into"


async def test_a_tail_that_the_last_owner_of_a_shard_published_is_missed_as_well() -> None:
    """The relay itself has no PubAck yet. The stream had 100 messages when it looked, and then loses the last ten."""
    bench = Bench(1, 2, 3, published=2, stream_id="one", stream_seq=100)
    bench.stream.last_seq = 100
    bench.stream.answers = [PubAck(91)]
    async with bench.running():
        await bench.reached(3)
    assert bench.stream.ids == [3, 1, 2, 3]
    assert [entry for _, entry in bench.moves] == [3], "not before it was looked into"


async def test_what_was_published_before_the_tail_that_was_lost_is_not_published_again() -> None:
    bench = Bench(1, 2)
    bench.stream.answers = [PubAck(seq) for seq in (11, 12)]
    async with bench.running():
        await bench.reached(2)
        bench.redis.cursors.stream_seq = 5  # what the lost messages were of is another shard
        bench.stream.answers = [PubAck(seq) for seq in (6, 7)]
        bench.redis.entries.append(3)
        bench.relay.notice(SHARD)
        await bench.reached(3)
    assert bench.stream.ids == [1, 2, 3, 3]
    assert bench.scripts.rewinds == 0


async def test_a_duplicate_tells_an_old_number_and_nothing_of_the_stream() -> None:
    bench = Bench(1, 2)
    async with bench.running():
        await bench.reached(2)
        bench.stream.answers, bench.stream.looks = [duplicate(1)], [NotFoundError()]
        bench.redis.entries.append(3)
        bench.relay.notice(SHARD)
        await bench.reached(3)
    assert (bench.stream.ids, bench.scripts.rewinds) == ([1, 2, 3], 0)


class Stored:
    """A message that JetStream has already: what was published as the n-th, where nothing else is said."""

    def __init__(
        self, stream: FakeStream, n: int, *, subject: str = names.subject_of(ITEM), data: bytes | None = b""
    ) -> None:
        self._stream, self._n = stream, n
        self.subject, self._data = subject, data

    @property
    def data(self) -> bytes | None:
        return self._stream.published[self._n - 1][1] if self._data == b"" else self._data


async def test_a_duplicate_that_is_ours_counts() -> None:
    bench = Bench(1)
    bench.stream.answers = [duplicate(9), duplicate(9)]
    bench.stream.looks = [None, Stored(bench.stream, 1)]
    async with bench.running():
        await bench.reached(1)
    # An answer that did not come left the entry as it was.
    assert (bench.stream.ids, bench.stream.looked_at) == ([1, 1], [9, 9])
    assert bench.scripts.stopped == []
    assert bench.moves == [(OURS, 1)]


async def test_a_duplicate_that_was_purged_since_counts() -> None:
    """As archived messages are; its id has the digest of what was sent."""
    bench = Bench(1)
    bench.stream.answers, bench.stream.looks = [duplicate(9)], [NotFoundError()]
    async with bench.running():
        await bench.reached(1)
    assert bench.scripts.stopped == []


@pytest.mark.parametrize(
    "other", [{"data": b"something else"}, {"data": None}, {"subject": "auction.events.s00.other"}]
)
async def test_a_duplicate_that_is_not_ours_stops_the_shard(
    other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(1, 2, 3, lease_ms=1_500)
    first, third = (PubAck(seq) for seq in (10, 11))
    bench.stream.answers = [first, duplicate(9), third]
    bench.stream.looks = [Stored(bench.stream, 2, **other)]
    async with bench.running():

        async def stopped() -> bool:
            return bool(bench.scripts.stopped)

        await eventually(stopped, seconds=30)
        # Its lease is renewed, and that begins nothing anew.
        renewed = len(bench.scripts.holds) + 2
        await eventually(lambda: len(bench.scripts.holds) >= renewed, seconds=30)
    assert bench.scripts.stopped == [OURS]
    assert (bench.moves, bench.redis.cursors.published) == ([(OURS, 1)], 1), "neither it nor what follows is published"
    assert bench.relay.health.foreign_total == 1
    (loud,) = [record.message for record in caplog.records if record.levelname == "CRITICAL"]
    assert "another message in the place of entry 1:2" in loud


async def test_an_entry_that_jetstream_refuses_is_published_again_and_the_reason_is_told() -> None:
    bench = Bench(1, 2)
    bench.stream.answers = [PubAck(1), {"code": 503, "err_code": 10077, "description": "maximum bytes exceeded"}]
    reasons: list[str | None] = []
    bench.stream.on_publish = lambda: reasons.append(bench.relay.health.last_error)
    async with bench.running():
        await bench.reached(2)
    assert bench.stream.ids == [1, 2, 2]
    assert "maximum bytes exceeded" in str(reasons[-1])


@pytest.mark.parametrize(
    "answer",
    [{}, {"stream": "OTHER", "seq": 7}, {"stream": names.STREAM, "seq": 0}, {"error": {"what": "odd"}}, {"error": {}}],
)
async def test_an_answer_that_is_none_of_the_stream_is_no_puback(answer: dict[str, Any]) -> None:
    """Another stream may be on our subjects, for a moment after ours was deleted."""
    bench = Bench(1)
    publish = bench.stream.publish

    async def somebody(subject: str, payload: bytes, *, reply: str, headers: dict[Header, str]) -> None:
        bench.stream.publish = publish  # type: ignore[method-assign]
        bench.stream.published.append((headers[Header.MSG_ID], payload))
        await bench.stream.on_answer(SimpleNamespace(subject=reply, data=msgspec.json.encode(answer)))

    bench.stream.publish = somebody  # type: ignore[method-assign]
    reasons: list[str | None] = []
    bench.stream.on_publish = lambda: reasons.append(bench.relay.health.last_error)
    async with bench.running():
        await bench.reached(1)
    assert bench.stream.ids == [1, 1], "it is published again"
    assert "APIError" in str(reasons[-1])


async def test_a_publication_that_fails_after_its_answer_fails_by_its_own_error() -> None:
    class Client:
        def new_inbox(self) -> str:
            return "_INBOX.x"

        async def publish(self, subject: str, payload: bytes, *, reply: str, headers: Any) -> None:
            await publisher._on_answer(cast(Any, SimpleNamespace(subject=reply, data=b'{"stream":"x","seq":1}')))
            raise ConnectionError("the line broke")

    publisher = Publisher(cast(Any, Client()))
    with pytest.raises(ConnectionError, match="the line broke"):
        await publisher.publish(InFlight(SHARD, OURS, 0, 1, "subject", b""), "id")
    assert await publisher.answered(timeout_s=0.0), "nobody waits"


async def test_where_nobody_listens_it_is_told_that_there_is_no_stream() -> None:
    bench = Bench(1)
    publish = bench.stream.publish

    async def nobody(subject: str, payload: bytes, *, reply: str, headers: dict[Header, str]) -> None:
        bench.stream.publish = publish  # type: ignore[method-assign]
        bench.stream.published.append((headers[Header.MSG_ID], payload))
        await bench.stream.on_answer(SimpleNamespace(subject=reply, data=b""))

    bench.stream.publish = nobody  # type: ignore[method-assign]
    reasons: list[str | None] = []
    bench.stream.on_publish = lambda: reasons.append(bench.relay.health.last_error)
    async with bench.running():
        await bench.reached(1)
    assert bench.stream.ids == [1, 1]
    assert "NoStreamResponseError" in str(reasons[-1])


async def test_an_answer_that_comes_too_late_says_nothing_of_what_was_published_again() -> None:
    """1. Entry 1 is published, and its PubAck is late. 2. It is published again. 3. The first PubAck comes."""
    bench = Bench(1)
    late: list[str] = []
    publish = bench.stream.publish

    async def slow(subject: str, payload: bytes, *, reply: str, headers: dict[Header, str]) -> None:
        if not late:
            late.append(reply)
            bench.stream.published.append((headers[Header.MSG_ID], payload))
            return
        answer = msgspec.json.encode({"stream": names.STREAM, "seq": 77})
        await bench.stream.on_answer(SimpleNamespace(subject=late[0], data=answer))
        await publish(subject, payload, reply=reply, headers=headers)

    bench.stream.publish = slow  # type: ignore[method-assign]
    async with bench.running():
        await bench.reached(1)
    assert bench.redis.cursors.stream_seq == 1, "the number of the second one"


async def test_a_cursor_that_may_not_be_moved_is_read_again() -> None:
    bench = Bench(1)
    bench.scripts.refuses = 1
    async with bench.running():
        await bench.reached(1)
    assert bench.stream.ids == [1, 1]
    assert bench.moves == [(OURS, 1)], "nobody is told of a move that was none"


@pytest.mark.parametrize("redis_is_away", [True, False])
async def test_it_stops_while_pubacks_are_awaited_and_redis_is_away(redis_is_away: bool) -> None:
    """What is acknowledged is written to Redis before the end; that Redis refuses must not take the end's place."""
    bench = Bench(1, 2)
    bench.stream.answers = [PubAck(1), None]

    read = bench.scripts.turn

    async def refuse(advances: Any, *others: Any, **more: Any) -> Any:
        if advances:
            raise RedisConnectionError("Connection refused")
        return await read(advances, *others, **more)

    bench.relay._options = RelayOptions(ack_timeout_s=60)
    if redis_is_away:
        bench.scripts.turn = refuse  # type: ignore[method-assign]
    task = asyncio.create_task(bench.relay.run())

    async def is_waiting() -> bool:
        return len(bench.stream.published) == 2

    await eventually(is_waiting)
    await asyncio.sleep(0.05)
    task.cancel()
    _, running = await asyncio.wait([task], timeout=30)
    assert not running, "the relay did not end"
    assert task.cancelled()
    assert [entry for _, entry in bench.moves] == ([] if redis_is_away else [1])


async def test_half_of_it_that_ends_does_not_end_unnoticed() -> None:
    """Something that it waits for is cancelled, and it is not: a group of tasks would take that for an orderly end."""
    bench = Bench(1)

    async def cancelled() -> Any:
        raise asyncio.CancelledError

    bench.stream.connected = cancelled  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(30):
            await bench.relay.run()
