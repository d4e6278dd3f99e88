"""What a worker does around a write: whom it tells, in which order, and what it gives back where that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from archival_worker.consume import worker as module
from archival_worker.consume.batcher import Batcher, BatchLimits, Pull
from archival_worker.consume.deliveries import Delivery
from archival_worker.consume.worker import Worker, WorkerOptions
from archival_worker.errors import ArchiveUnavailable
from archival_worker.metrics import Metrics
from archival_worker.store.archive import Stored
from shared.clients.nats import StreamUnavailable
from shared.redis_layout.outbox import EntryId
from shared.streams.puller import Puller, PullOptions
from tests.unit.archival_worker.events import bid, delivery
from tests.waiting import eventually

PLACE = {"s01": EntryId(1, 3)}


class Around:
    """The archive, the cursors, the stream: all that a worker tells of a write, in order."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.store_fails = self.stream_fails = self.pull_fails = self.is_away = False
        self.copies, self.copy_fails, self.stops_at_once = True, False, False
        self.batcher: Batcher[Delivery] = Batcher(BatchLimits(rows_max=2, pull_messages=2))
        self.metrics = Metrics()
        self.worker = Worker(
            cast(Any, None),
            cast(Any, self),
            cast(Any, self),
            self.metrics,
            after_commit=self._after_commit,
            on_items=lambda items: self.told.append(("items", sorted(items))),
        )

    async def store(
        self, deliveries: list[Delivery], *, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> Stored:
        self.told.append("store")
        if self.stops_at_once:
            self.worker.request_stop()
        if self.store_fails:
            raise ArchiveUnavailable("away")
        if meanwhile is not None and self.copies:
            await meanwhile()
            await meanwhile()
            if self.copy_fails:
                raise ArchiveUnavailable("away")
            self.told.append("copied")
        return Stored(bids=len(deliveries), positions=PLACE)

    async def check_writable(self) -> None:
        return

    async def _after_commit(self) -> None:
        self.told.append("committed")

    def offer(self, positions: Mapping[str, EntryId]) -> None:
        self.told.append(("cursors", dict(positions)))

    async def acknowledge(self, replies: Iterable[str]) -> None:
        self.told.append(("acknowledged", list(replies)))
        if self.stream_fails:
            raise StreamUnavailable("away")

    async def give_back(self, replies: Iterable[str]) -> None:
        self.told.append(("given back", list(replies)))

    def check(self, *, pulling: bool) -> None:
        self.told.append(("check", pulling))
        if self.is_away:
            raise StreamUnavailable("away")

    silent_at_s = float("inf")

    async def close(self) -> None:
        self.told.append(("closed", None))

    def leave_request(self) -> None:
        pass

    async def pull(self, messages: int) -> None:
        self.told.append(("pull", messages))
        if self.pull_fails:
            raise StreamUnavailable("away")

    async def consume(self) -> None:
        """One batch of two messages, which are all that was asked for; the next pull asks for two."""
        assert self.batcher.next(0.0) == Pull(2)
        for n, item in enumerate("ab", start=1):
            each = delivery(n, bid(item, 1))
            self.batcher.received(each, each.rows, 0.0)
        assert not self.batcher.pulling
        try:
            await self.worker._consume(cast(Any, self), self.batcher)
        finally:
            self.told = [each for each in self.told if each[0] not in ("items", "cursors")]

    async def write(self) -> None:
        poison = delivery(3, bid("c", 1)).as_poison("why")
        await self.worker._write(cast(Any, self), [delivery(1, bid("a", 1)), delivery(2, bid("b", 1)), poison])


@pytest.mark.parametrize("stream_fails", [False, True])
async def test_cursors_and_items_are_told_before_the_acknowledgement_which_may_fail(stream_fails: bool) -> None:
    around = Around()
    around.stream_fails = stream_fails
    if stream_fails:
        with pytest.raises(StreamUnavailable):
            await around.write()
    else:
        await around.write()
    store, committed, cursors, items, (acknowledged, replies) = around.told
    assert (store, committed, cursors) == ("store", "committed", ("cursors", PLACE))
    assert (items, acknowledged, len(replies)) == (("items", ["a", "b"]), "acknowledged", 3)
    assert (around.metrics.messages, around.metrics.acks) == (3, 0 if stream_fails else 3)


async def test_what_is_not_stored_is_given_back_and_the_next_batch_is_smaller() -> None:
    around = Around()
    around.store_fails = True
    with pytest.raises(ArchiveUnavailable):
        await around.write()
    store, (given_back, replies) = around.told
    assert (store, given_back, len(replies)) == ("store", "given back", 3)
    assert (around.metrics.given_back, around.metrics.messages) == (3, 0)
    assert around.worker._pace.rows == 1
    around.store_fails = False
    around.worker._backoff.failed()
    await around.write()
    assert around.worker._pace.rows == 2
    assert around.worker._backoff.failures == 0


async def _stop_at_the_acknowledgement(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    acknowledge = around.acknowledge

    async def and_stop(replies: Iterable[str]) -> None:
        around.worker.request_stop()
        await acknowledge(replies)

    monkeypatch.setattr(around, "acknowledge", and_stop)


@pytest.mark.parametrize("copies", [True, False])
async def test_the_next_messages_are_asked_for_once_in_the_middle_of_a_write_or_else_right_after_it(
    copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = Around()
    around.copies = copies
    await _stop_at_the_acknowledgement(around, monkeypatch)
    await around.consume()
    check, *told, (acknowledged, _) = around.told
    assert check == ("check", False), "no sign of life is due before the pull is made"
    assert told == ["store", ("pull", 2), *(["copied"] if copies else []), "committed"]
    assert acknowledged == "acknowledged"
    assert around.batcher.pulling


@pytest.mark.parametrize("copies", [True, False])
async def test_nothing_is_asked_for_once_the_worker_is_to_stop(copies: bool) -> None:
    """The write waits for a lock, say. What came then would only be given back."""
    around = Around()
    around.copies, around.stops_at_once = copies, True
    await around.consume()
    assert [each for each in around.told if each[0] == "pull"] == []
    assert around.told[-1][0] == "acknowledged"
    assert not around.batcher.pulling, "nothing is to come"


async def test_a_stream_that_is_away_in_the_middle_of_a_write_does_not_undo_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    around = Around()
    around.pull_fails = True
    await _stop_at_the_acknowledgement(around, monkeypatch)
    await around.consume()
    assert around.told[1:5] == ["store", ("pull", 2), "copied", "committed"]
    assert around.metrics.messages == 2
    assert not around.batcher.pulling, "nothing is to come"


async def test_a_write_that_fails_before_the_pull_leaves_nothing_to_wait_for() -> None:
    around = Around()
    around.store_fails = True
    with pytest.raises(ArchiveUnavailable):
        await around.consume()
    assert [each[0] if isinstance(each, tuple) else each for each in around.told] == ["check", "store", "given back"]
    assert not around.batcher.pulling


async def test_what_was_asked_for_in_a_write_that_failed_is_waited_for() -> None:
    """Otherwise nobody would give it back."""
    around = Around()
    around.copy_fails = True
    with pytest.raises(ArchiveUnavailable):
        await around.consume()
    assert around.told[1:3] == ["store", ("pull", 2)]
    assert around.batcher.pulling


class Client:
    """The connection of a real puller: it keeps the subjects on which requests want their answers."""

    is_connected = True

    def __init__(self) -> None:
        self.requests: list[str] = []

    def new_inbox(self) -> str:
        return "_INBOX.test"

    async def subscribe(self, subject: str, *, cb: Callable[[Any], Awaitable[None]]) -> None:
        self.tell = cb

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        if subject.startswith("$JS.API"):
            self.requests.append(reply)

    def jetstream(self) -> None:
        return

    async def message(self) -> None:
        await self.tell(SimpleNamespace(subject="auction.events", data=b"?", reply="", headers=None))

    async def ends(self, request: str) -> None:
        headers = {"Status": "409", "Description": "Batch Completed"}
        await self.tell(SimpleNamespace(subject=request, data=b"", reply="", headers=headers))


async def test_the_end_of_a_request_that_is_told_late_does_not_end_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """JetStream tells it after the last message. By then the write has begun, and the next pull is yet to be made."""
    around, client = Around(), Client()
    source = Puller(
        cast(Any, client), PullOptions("test"), on_message=lambda _: None, on_ended=around.batcher.pull_ended
    )
    await source.open()
    store = around.store

    async def store_late(deliveries: list[Delivery], **more: Any) -> Stored:
        await client.ends(client.requests[0])
        return await store(deliveries, **more)

    async def acknowledge_and_stop(replies: Iterable[str]) -> None:
        around.worker.request_stop()

    monkeypatch.setattr(around, "store", store_late)
    monkeypatch.setattr(source, "acknowledge", acknowledge_and_stop)
    assert around.batcher.next(0.0) == Pull(2)
    await source.pull(2)
    for n, item in enumerate("ab", start=1):
        around.batcher.received(delivery(n, bid(item, 1)), 1, 0.0)
    await around.worker._consume(source, around.batcher)
    assert len(client.requests) == 2
    assert around.batcher.pulling, "the second one is open"
    await client.ends(client.requests[1])
    assert not around.batcher.pulling


async def test_a_message_and_the_end_of_a_request_wake_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither came, it would wait for an hour."""

    async def is_there(*_: object) -> None:
        return

    for name in ("ensure_stream", "ensure_consumer"):
        monkeypatch.setattr(module, name, is_there)
    around, client = Around(), Client()

    async def connect() -> Any:
        return client

    options = WorkerOptions(source=PullOptions("test", pull_expires_s=3_600))
    worker = Worker(connect, cast(Any, around), cast(Any, around), around.metrics, options)
    task = asyncio.create_task(worker.run())
    await eventually(lambda: len(client.requests) == 1)
    await asyncio.sleep(0.01)
    await client.ends(client.requests[0])
    await eventually(lambda: len(client.requests) == 2)
    await asyncio.sleep(0.01)
    await client.message()
    await eventually(lambda: "store" in around.told)
    worker.request_stop()
    await asyncio.sleep(0.01)
    assert not task.done(), "more may come of the last request"
    await client.message()
    await client.ends(client.requests[-1])
    await asyncio.wait_for(task, 10)
    assert around.metrics.given_back == 1


async def test_a_stop_does_not_wait_for_a_stream_that_is_away() -> None:
    around = Around()
    around.batcher.next(0.0)
    around.batcher.received(delivery(1, bid("a", 1)), 1, 0.0)
    around.is_away = True
    async with asyncio.timeout(10):
        await around.worker._end(cast(Any, around), around.batcher)
    assert [each[0] for each in around.told] == ["check", "closed", "given back"]


async def test_a_session_that_lasted_is_no_failure_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(event: asyncio.Event, seconds: float) -> bool:
        pauses.append(seconds)
        return False

    monkeypatch.setattr(module, "set_within", pause)
    worker = Around().worker
    for lasted_s in (0.0, 0.0, 0.0, 11.0, 0.0):
        await worker._pause("stream", StreamUnavailable("away"), lasted_s)
        pauses.append(worker._backoff.failures)
    assert pauses[1::2] == [1, 2, 3, 1, 2]
    assert worker._metrics.failures_by["stream"] == 5
