"""How far the archive is, by what JetStream tells of the stream and of the archiver's consumer."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.js.errors import NotFoundError

from shared.archive_cache.progress import ArchiveProgress, Head, Progress

MADE = datetime(2026, 11, 29, 7, 0, 0, 123_456, tzinfo=UTC)
MADE_US = int(MADE.timestamp()) * 1_000_000 + 123_456


class FakeJetStream:
    """A stream whose messages have these numbers, and a consumer that acknowledged up to ``floor``."""

    def __init__(
        self, held: list[int], last: int, *, floor: int | None, pending: int = 0, unacknowledged: int = 0
    ) -> None:
        self._held = held
        self._last = last
        self._consumer = SimpleNamespace(
            num_pending=pending,
            num_ack_pending=unacknowledged,
            ack_floor=None if floor is None else SimpleNamespace(stream_seq=floor),
        )
        self.messages_asked = 0

    async def connected(self) -> FakeJetStream:
        return self

    def jetstream(self, *, timeout: float) -> FakeJetStream:
        return self

    async def stream_info(self, name: str) -> Any:
        state = SimpleNamespace(last_seq=self._last, messages=len(self._held))
        return SimpleNamespace(state=state, created=MADE)

    async def consumer_info(self, stream: str, name: str) -> Any:
        return self._consumer

    async def get_msg(self, stream: str, seq: int, subject: str, *, next: bool) -> Any:
        self.messages_asked += 1
        assert next
        if not any(held >= seq for held in self._held):
            raise NotFoundError
        return object()


async def progress_of(jetstream: FakeJetStream) -> Progress:
    return await ArchiveProgress(cast(Any, jetstream)).ask()


@pytest.mark.parametrize(
    ("held", "last", "floor", "archived"),
    [
        pytest.param([1, 2, 3, 4, 5, 6], 6, 6, 6, id="all of it"),
        pytest.param([1, 2, 3, 4, 5, 6], 6, 5, 5, id="the consumer's leader has not heard of the last message"),
        pytest.param([6], 6, None, 0, id="a consumer that has not begun"),
        pytest.param([], 6, 5, 6, id="purged"),
        pytest.param([], 6, None, 6, id="purged before the consumer was made"),
        pytest.param([1, 2, 3], 6, 3, 6, id="the last ones were removed"),
    ],
)
async def test_that_nothing_is_pending_is_not_enough(
    held: list[int], last: int, floor: int | None, archived: int
) -> None:
    """Stream and consumer have leaders of their own, and that of the consumer may be behind the stream."""
    assert await progress_of(FakeJetStream(held, last, floor=floor)) == Progress(last, archived, MADE_US)


async def test_the_stream_alone_can_be_asked_for() -> None:
    assert await ArchiveProgress(cast(Any, FakeJetStream([5, 6], 6, floor=None))).head() == Head(6, MADE_US)


async def test_in_the_usual_case_no_message_is_asked_for() -> None:
    for jetstream in (
        FakeJetStream([5, 6], 6, floor=6),
        FakeJetStream([5, 6], 6, floor=5, pending=1),
        FakeJetStream([5, 6], 6, floor=5, unacknowledged=1),
        FakeJetStream([], 6, floor=None),
    ):
        await progress_of(jetstream)
        assert jetstream.messages_asked == 0


class Without(FakeJetStream):
    """The stream or the consumer is not there."""

    def __init__(self, *missing: str) -> None:
        super().__init__([1, 2], 2, floor=2)
        self._missing = missing

    async def stream_info(self, name: str) -> Any:
        if "stream" in self._missing:
            raise NotFoundError
        return await super().stream_info(name)

    async def consumer_info(self, stream: str, name: str) -> Any:
        if "consumer" in self._missing:
            raise NotFoundError
        return await super().consumer_info(stream, name)


async def test_without_an_archiver_nothing_is_archived_and_without_a_stream_there_is_nothing() -> None:
    assert await progress_of(Without("consumer")) == Progress(2, 0, MADE_US)
    assert await progress_of(Without("stream")) == Progress(0, 0, 0)
    assert await ArchiveProgress(cast(Any, Without("stream"))).head() == Head(0, 0)
