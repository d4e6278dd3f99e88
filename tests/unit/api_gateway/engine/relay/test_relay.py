"""The relay without a network: what it publishes, what it takes for published, and how far the cursors move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import Header, PubAck
from nats.js.errors import NotFoundError
from redis.exceptions import ConnectionError as RedisConnectionError

from api_gateway.engine.relay.options import RelayOptions
from api_gateway.engine.relay.relay import Relay
from api_gateway.engine.relay.shard_scripts import Advance, Hold, ShardScripts
from shared import names
from shared.clients.nats import NatsLink
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key, outbox_key
from tests.waiting import eventually

ITEM = "lot"
SHARD = names.shard_of(ITEM)
OURS = Lineage("run-1", 1)
FIELDS = {b"item": ITEM.encode(), b"events": b"[]"}


@dataclass
class Cursors:
    """One shard's, as Redis has them."""

    run: str = OURS.run
    epoch: int | None = OURS.epoch
    published: int = 0
    archived: int = 0
    stream_id: str = ""
    stream_seq: int = 0
    republish: str | None = None
    next: int = 0
    stale: int | None = None

    def read(self, fields: Sequence[str]) -> list[bytes | None]:
        values = [getattr(self, name) for name in fields]
        return [None if value is None else str(value).encode() for value in values]


class FakeRedis:
    """One shard: its outbox and cursors, as pipelines read them; other shards have neither."""

    def __init__(self) -> None:
        self.entries: list[int] = []
        self.cursors = Cursors()
        self.on_read: Callable[[], None] = lambda: None

    def pipeline(self, *, transaction: bool) -> FakePipeline:
        return FakePipeline(self)


class FakePipeline:
    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._commands: list[Callable[[], Any]] = []

    def xrange(self, key: str, first: str, last: str, *, count: int) -> None:
        after = int(first.removeprefix("(").partition("-")[0])
        self._commands.append(
            lambda: [(b"%d-0" % n, FIELDS) for n in self._redis.entries if n > after and key == outbox_key(SHARD)]
        )

    def hmget(self, key: str, fields: Sequence[str]) -> None:
        ours = key == cursors_key(SHARD)
        self._commands.append(lambda: self._redis.cursors.read(fields) if ours else [None] * len(fields))

    async def execute(self) -> list[Any]:
        answers = [command() for command in self._commands]
        self._redis.on_read()
        return answers


class FakeScripts:
    """The shard's scripts on that Redis; the lease is ours unless it is made to wait, or somebody else has it."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self.may_lease = asyncio.Event()
        self.may_lease.set()
        self.is_ours = True
        self.holds: list[Hold] = []
        self.refuses = 0
        self.rewinds = 0
        self.stopped: list[Lineage] = []

    async def lease(self, shards: Sequence[str], token: str, ttl_ms: int, *, hold: Hold) -> list[bool]:
        await self.may_lease.wait()
        self.holds.append(hold)
        return [shard == SHARD and self.is_ours for shard in shards]

    async def advance_published(self, advances: Sequence[Advance], *, token: str, stream_id: str) -> list[bool]:
        moved: list[bool] = []
        for advance in advances:
            if self.refuses or not self._may_move(advance, stream_id):
                self.refuses = max(0, self.refuses - 1)
                moved.append(False)
                continue
            self._redis.cursors.published = advance.entry
            self._redis.cursors.stream_id, self._redis.cursors.stream_seq = stream_id, advance.stream_seq
            moved.append(True)
        return moved

    def _may_move(self, advance: Advance, stream_id: str) -> bool:
        cursors = self._redis.cursors
        is_left = not self.is_ours or self.holds[-1:] == ["leave"]
        is_same = advance.lineage == Lineage(cursors.run, cursors.epoch or 0)
        return not is_left and is_same and cursors.stream_id in ("", stream_id) and advance.after <= cursors.published

    async def rewind_published(self, shard: str, *, token: str, stream_id: str) -> bool:
        self.rewinds += 1
        cursors = self._redis.cursors
        cursors.published, cursors.stream_id, cursors.stream_seq = cursors.archived, stream_id, 0
        cursors.republish = None
        return True

    async def stop_shard(self, shard: str, lineage: Lineage, *, token: str) -> bool:
        self.stopped.append(lineage)
        self._redis.cursors.epoch = None
        return True


@dataclass
class FakeStream:
    """JetStream, its client, and the link to it. ``answers`` are given to publications in turn; then each is stored."""

    answers: list[PubAck | Exception] = field(default_factory=list)
    published: list[tuple[str, bytes]] = field(default_factory=list)
    looks: list[Any] = field(default_factory=list)
    looked_at: list[int] = field(default_factory=list)
    created: str = "one"
    last_seq: int = 100
    is_connected: bool = True
    on_publish: Callable[[], None] = lambda: None

    @property
    def client(self) -> FakeStream | None:
        return self if self.is_connected else None

    @property
    def ids(self) -> list[int]:
        """The entries that were published, in order."""
        entries = [names.entry_of_message_id(message_id) for message_id, _ in self.published]
        return [entry.n for entry in entries if entry is not None]

    async def connected(self) -> FakeStream:
        if not self.is_connected:
            raise ConnectionError("NATS is disconnected")
        return self

    async def subscribe(self, subject: str, *, cb: Any) -> None:
        return

    def jetstream(self, *, publish_async_max_pending: int) -> FakeStream:
        return self

    async def stream_info(self, name: str) -> Any:
        return SimpleNamespace(created=self.created, state=SimpleNamespace(last_seq=self.last_seq))

    async def publish_async(self, subject: str, payload: bytes, *, headers: dict[Header, str]) -> Any:
        self.published.append((headers[Header.MSG_ID], payload))
        self.on_publish()
        answer = self.answers.pop(0) if self.answers else PubAck(stream=names.STREAM, seq=len(self.published))
        future: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future

    async def get_msg(self, stream: str, *, seq: int) -> Any:
        self.looked_at.append(seq)
        look = self.looks.pop(0)
        if isinstance(look, Exception):
            raise look
        return look


class Bench:
    """A relay that runs, and what it told of."""

    def __init__(self, *entries: int, **cursors: Any) -> None:
        self.redis, self.stream = FakeRedis(), FakeStream()
        self.redis.entries, self.redis.cursors = list(entries), Cursors(**cursors)
        self.scripts = FakeScripts(self.redis)
        self.moves: list[tuple[Lineage, int]] = []
        self.read: list[tuple[str, int, int]] = []
        self.relay = Relay(
            cast(Any, self.redis),
            cast(ShardScripts, self.scripts),
            cast(NatsLink, self.stream),
            options=RelayOptions(lease_ms=150, poll_ms=5, ack_timeout_s=0.1, backoff_max_s=0.01),
            on_published=lambda shard, lineage, entry: self.moves.append((lineage, entry)),
            on_read=lambda *place: self.read.append(place),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.relay.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def reached(self, entry: int) -> None:
        async def there() -> bool:
            return self.redis.cursors.published >= entry

        await eventually(there, seconds=5)


def duplicate(seq: int) -> PubAck:
    return PubAck(stream=names.STREAM, seq=seq, duplicate=True)


async def test_the_cursor_stops_before_an_entry_without_a_puback_whatever_came_after_it() -> None:
    bench = Bench(1, 2, 3)
    first, third = (PubAck(stream=names.STREAM, seq=seq) for seq in (1, 3))
    bench.stream.answers = [first, NatsTimeoutError(), third]
    async with bench.running():
        await bench.reached(3)
    assert [entry for _, entry in bench.moves] == [1, 3]
    assert bench.stream.ids == [1, 2, 3, 2, 3]
    assert bench.relay.health.failures_total == 1


async def test_what_is_sent_is_told_before_and_whatever_becomes_of_it() -> None:
    """It may arrive after a failover to a replica that lacks it: then this process knows that it was given out."""
    bench = Bench(1, 2, epoch=4)
    bench.stream.answers = [NatsTimeoutError(), NatsTimeoutError()]
    async with bench.running():

        async def sent() -> bool:
            return len(bench.stream.ids) >= 2

        await eventually(sent)
    assert bench.read[:2] == [(SHARD, 4, 1), (SHARD, 4, 2)]


async def test_the_same_entry_has_the_same_id_and_another_content_another_one() -> None:
    bench = Bench(1)
    bench.stream.answers = [NatsTimeoutError()]
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

        await eventually(again, seconds=5)
        bench.stream.last_seq = 100
        await bench.reached(2)
    assert bench.stream.ids[:4] == [1, 2, 1, 2]


async def test_a_stream_that_lost_its_tail_is_known_by_the_next_puback() -> None:
    """It goes on at a number that was given before. The next look at the stream may find it longer than it ever was."""
    bench = Bench(1, 2)
    async with bench.running():
        await bench.reached(2)
        bench.stream.answers = [PubAck(stream=names.STREAM, seq=2)]
        bench.redis.entries.append(3)
        bench.relay.notice(SHARD)
        await bench.reached(3)
    assert bench.stream.ids == [1, 2, 3, 1, 2, 3]
    assert (bench.scripts.rewinds, bench.relay.health.rewinds_total) == (1, 1)
    assert [entry for _, entry in bench.moves] == [2, 3], "not before it was looked into"


async def test_what_was_published_before_the_tail_that_was_lost_is_not_published_again() -> None:
    bench = Bench(1, 2)
    bench.stream.answers = [PubAck(stream=names.STREAM, seq=seq) for seq in (11, 12)]
    async with bench.running():
        await bench.reached(2)
        bench.redis.cursors.stream_seq = 5  # what the lost messages were of is another shard
        bench.stream.answers = [PubAck(stream=names.STREAM, seq=seq) for seq in (6, 7)]
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
    bench.stream.looks = [NatsTimeoutError(), Stored(bench.stream, 1)]
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
    bench = Bench(1, 2, 3)
    first, third = (PubAck(stream=names.STREAM, seq=seq) for seq in (10, 11))
    bench.stream.answers = [first, duplicate(9), third]
    bench.stream.looks = [Stored(bench.stream, 2, **other)]
    async with bench.running():

        async def stopped() -> bool:
            return bool(bench.scripts.stopped)

        await eventually(stopped, seconds=5)
        await asyncio.sleep(0.1)
    assert bench.scripts.stopped == [OURS]
    assert (bench.moves, bench.redis.cursors.published) == ([(OURS, 1)], 1), "neither it nor what follows is published"
    assert bench.relay.health.foreign_total == 1
    (loud,) = [record.message for record in caplog.records if record.levelname == "CRITICAL"]
    assert "another message in the place of entry 1:2" in loud


@pytest.mark.parametrize("change", [{"epoch": 2}, {"run": "run-2"}, {"epoch": None}])
async def test_an_outbox_that_was_exchanged_is_not_read_on_at_the_old_number(change: dict[str, Any]) -> None:
    """The relay stood still while the shard was rebuilt, or Redis failed over. What is there has another identity."""
    bench = Bench(1, published=0)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()  # so that nothing else tells it
        for name, value in change.items():
            setattr(bench.redis.cursors, name, value)
        bench.redis.entries = [2]
        bench.relay.notice(SHARD)

        async def forgotten() -> bool:
            return not bench.relay.owned_shards()

        await eventually(forgotten, seconds=5)
        assert bench.stream.ids == [1]
        bench.redis.cursors.published, bench.redis.entries = 0, [1, 2]
        bench.scripts.may_lease.set()
        if bench.redis.cursors.epoch is None:
            await asyncio.sleep(0.1)
            assert bench.stream.ids == [1]
            return
        await bench.reached(2)
    lineage = Lineage(bench.redis.cursors.run, bench.redis.cursors.epoch)
    assert {moved for moved, _ in bench.moves[1:]} == {lineage}


async def test_nothing_is_published_after_the_lease_ran_out() -> None:
    """Renewing it takes too long, or the process stood still: meanwhile the shard may be another's, and rebuilt."""
    bench = Bench(1)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()
        await asyncio.sleep(0.2)
        bench.redis.entries.append(2)
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.1)
        assert bench.stream.ids == [1]
        bench.scripts.may_lease.set()
        await bench.reached(2)


def stand_still() -> None:
    """Past the lease of a bench."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 0.2
    while loop.time() < until_s:
        pass


async def test_entries_that_were_read_before_the_process_stood_still_are_not_published() -> None:
    bench = Bench(1)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()
        await asyncio.sleep(0.1)
        published_before = len(bench.stream.published)
        bench.redis.entries.append(2)
        bench.redis.on_read = stand_still
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.1)
        assert len(bench.stream.published) == published_before
        bench.redis.on_read = lambda: None
        bench.scripts.may_lease.set()
        await bench.reached(2)


async def test_when_the_process_stands_still_in_the_middle_the_other_entries_are_not_published() -> None:
    bench = Bench(1)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()
        bench.stream.on_publish = stand_still
        bench.redis.entries += [2, 3]
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.1)
        assert 3 not in bench.stream.ids
        bench.stream.on_publish = lambda: None
        bench.scripts.may_lease.set()
        await bench.reached(3)


async def test_a_cursor_that_may_not_be_moved_is_read_again() -> None:
    bench = Bench(1)
    bench.scripts.refuses = 1
    async with bench.running():
        await bench.reached(1)
    assert bench.stream.ids == [1, 1]
    assert bench.moves == [(OURS, 1)], "nobody is told of a move that was none"


async def test_a_lease_that_comes_back_after_it_ran_out_is_begun_at_the_cursor() -> None:
    """1. This relay has published three entries, and loses Redis. 2. The stream is lost; another relay goes back to the
    archived cursor, and dies. 3. This one has its lease again: what it knew of the cursor is over."""
    bench = Bench(1, 2, 3)
    async with bench.running():
        await bench.reached(3)

        def away() -> None:
            raise ConnectionError("Redis is away")

        bench.redis.on_read = away
        bench.scripts.may_lease.clear()
        await asyncio.sleep(0.2)
        bench.redis.cursors.published, bench.redis.cursors.stream_id = 0, "two"
        bench.redis.cursors.stream_seq, bench.stream.created = 0, "two"
        bench.redis.entries.append(4)
        published_before = len(bench.stream.ids)
        bench.redis.on_read = lambda: None
        bench.scripts.may_lease.set()
        await bench.reached(4)
    assert bench.stream.ids[published_before:] == [1, 2, 3, 4]


async def test_what_was_on_its_way_when_a_shard_was_left_is_not_settled() -> None:
    """NATS does not answer, and answers after all: meanwhile anybody may have taken the shard."""
    bench = Bench(1)
    async with bench.running():
        await bench.reached(1)
        bench.stream.is_connected = False

        async def has_left() -> bool:
            return bench.relay.health.cut_off and bench.scripts.holds[-1] == "leave"

        await eventually(has_left)
        assert set(bench.relay.owned_shards()) == {SHARD}, "nobody has taken it, so its items are closed here"
        bench.redis.entries.append(2)
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.05)
        assert bench.stream.ids == [1]
        bench.scripts.may_lease.clear()  # so that it goes on leaving
        bench.stream.is_connected = True
        await asyncio.sleep(0.1)
        assert bench.stream.ids == [1], "it is not its own again before Redis has said so"
        bench.scripts.may_lease.set()
        await bench.reached(2)
    assert bench.scripts.holds[-1] == "take"
    assert not bench.relay.health.cut_off


async def test_a_shard_that_another_gateway_took_is_not_taken_back() -> None:
    bench = Bench(1)

    async def is_cut_off() -> bool:
        return bench.relay.health.cut_off

    async def has_lost_it() -> bool:
        return not bench.relay.owned_shards()

    async def is_back() -> bool:
        return not bench.relay.health.cut_off

    async with bench.running():
        await bench.reached(1)
        bench.stream.is_connected = False
        await eventually(is_cut_off)
        bench.scripts.is_ours = False
        await eventually(has_lost_it)
        bench.stream.is_connected = True
        await eventually(is_back)
        bench.redis.entries.append(2)
        await asyncio.sleep(0.1)
    assert bench.stream.ids == [1]


@pytest.mark.parametrize("redis_is_away", [True, False])
async def test_it_stops_while_pubacks_are_awaited_and_redis_is_away(redis_is_away: bool) -> None:
    """What is acknowledged is written to Redis before the end; that Redis refuses must not take the end's place."""
    bench = Bench(1, 2)
    never: asyncio.Future[PubAck] = asyncio.get_running_loop().create_future()
    publish = bench.stream.publish_async

    async def publish_async(subject: str, payload: bytes, *, headers: dict[Header, str]) -> Any:
        return await publish(subject, payload, headers=headers) if not bench.stream.published else never

    async def refuse(*_: Any, **__: Any) -> list[bool]:
        raise RedisConnectionError("Connection refused")

    bench.stream.publish_async = publish_async  # type: ignore[method-assign]
    bench.relay._options = RelayOptions(ack_timeout_s=60)
    if redis_is_away:
        bench.scripts.advance_published = refuse  # type: ignore[method-assign]
    task = asyncio.create_task(bench.relay.run())

    async def is_waiting() -> bool:
        return len(bench.stream.published) == 1

    await eventually(is_waiting)
    await asyncio.sleep(0.05)
    task.cancel()
    _, running = await asyncio.wait([task], timeout=2)
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
        async with asyncio.timeout(2):
            await bench.relay.run()
