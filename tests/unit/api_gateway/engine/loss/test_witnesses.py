"""What is known of the shards outside of Redis, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.errors import NoServersError
from nats.js.api import Header
from nats.js.errors import NotFoundError

from api_gateway.engine.loss import witnesses as module
from api_gateway.engine.loss.witnesses import Known, Witnesses
from api_gateway.reads.archive import Archive
from shared import names
from shared.clients.nats import NatsLink
from shared.domain.errors import Unavailable
from shared.redis_layout.outbox import EntryId


class FakeArchive:
    """The archived places; an error where it is away."""

    def __init__(self, *places: tuple[str, int, int]) -> None:
        self._places: list[tuple[str, int, int]] | None = list(places)

    def leave(self) -> None:
        self._places = None

    async def shard_places(self) -> list[tuple[str, int, int]]:
        if self._places is None:
            raise Unavailable("away")
        return self._places


class FakeStream:
    """The last messages by subject, each as its headers, and the link to them."""

    def __init__(self) -> None:
        self.last: dict[str, dict[str, str] | None] = {}
        self.error: Exception | None = None

    async def connected(self) -> FakeStream:
        if self.error is not None:
            raise self.error
        return self

    def jetstream(self) -> FakeStream:
        return self

    async def get_last_msg(self, stream: str, subject: str) -> Any:
        assert stream == names.STREAM
        if subject not in self.last:
            raise NotFoundError
        return SimpleNamespace(headers=self.last[subject])

    def publish(self, shard: str, message_id: str | None) -> None:
        self.last[f"{names.SUBJECT_PREFIX}.{shard}.*"] = None if message_id is None else {Header.MSG_ID: message_id}


def past(archive: FakeArchive, stream: FakeStream) -> Witnesses:
    return Witnesses(cast(Archive, archive), cast(NatsLink, stream))


@pytest.mark.parametrize(
    ("archived", "published", "place"),
    [
        ((1, 7), "s03:1:9:0123456789abcdef", EntryId(1, 9)),
        ((1, 7), "s03:1:5:0123456789abcdef", EntryId(1, 7)),
        ((2, 1), "s03:1:9:0123456789abcdef", EntryId(2, 1)),
        ((1, 9), "s03:2:1", EntryId(2, 1)),  # as it was published before ids had a digest
    ],
)
async def test_the_higher_of_the_two_places_counts(archived: tuple[int, int], published: str, place: EntryId) -> None:
    stream = FakeStream()
    stream.publish("s03", published)
    found = await past(FakeArchive(("s03", *archived)), stream).shards()
    assert found == Known({"s03": place}, archive_asked=True, stream_asked=True)
    assert found.is_complete


@pytest.mark.parametrize(
    "message_id", [None, "", "hello", "s03:x:1", "s03:1", "s03:1:1:short", "s04:1:9", "s03:1:9:0123456789ABCDEF"]
)
async def test_a_message_of_somebody_elses_is_no_place_but_the_shard_is_not_new(message_id: str | None) -> None:
    stream = FakeStream()
    stream.publish("s03", message_id)
    assert (await past(FakeArchive(), stream).shards()).places == {"s03": EntryId(0, 0)}
    assert (await past(FakeArchive(("s03", 1, 2)), stream).shards()).places == {"s03": EntryId(1, 2)}


async def test_it_says_who_could_not_be_asked() -> None:
    archive, stream = FakeArchive(("s03", 1, 2)), FakeStream()
    stream.publish("s04", "s04:1:3")
    stream.error = NoServersError()
    assert await past(archive, stream).shards() == Known({"s03": EntryId(1, 2)}, archive_asked=True, stream_asked=False)
    stream.error = None
    archive.leave()
    found = await past(archive, stream).shards()
    assert found == Known({"s04": EntryId(1, 3)}, archive_asked=False, stream_asked=True)
    assert not found.is_complete


async def test_the_highest_of_the_newest_messages_counts_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A relay that slept past its lease has published entries 5 and 2 once more."""
    newest = [names.OutboxEntry("s03", 1, 9), names.OutboxEntry("s03", 1, 5), names.OutboxEntry("s04", 2, 1)]

    async def newest_entries(_: Any, *, most: int) -> AsyncGenerator[names.OutboxEntry]:
        for entry in newest:
            yield entry

    monkeypatch.setattr(module, "newest_entries", newest_entries)
    stream = FakeStream()
    stream.publish("s03", "s03:1:5")
    stream.publish("s04", "s04:2:7")
    witnesses = past(FakeArchive(), stream)
    assert (await witnesses.shards()).places == {"s03": EntryId(1, 5), "s04": EntryId(2, 7)}
    assert (await witnesses.shards(look_back=True)).places == {"s03": EntryId(1, 9), "s04": EntryId(2, 7)}


async def test_a_stream_that_does_not_answer_was_not_asked() -> None:
    stream = FakeStream()

    async def connected() -> Any:
        await asyncio.Event().wait()

    stream.connected = connected  # type: ignore[method-assign]
    witnesses = Witnesses(cast(Archive, FakeArchive()), cast(NatsLink, stream), timeout_s=0.01)
    async with asyncio.timeout(10):
        assert not (await witnesses.shards()).stream_asked


async def test_a_stream_without_messages_was_asked() -> None:
    found = await past(FakeArchive(), FakeStream()).shards()
    assert found == Known({}, archive_asked=True, stream_asked=True)
    assert await past(FakeArchive(), FakeStream()).published_epochs(["lot-1"]) == {}


@pytest.mark.parametrize(("shard", "epoch"), [(names.shard_of("lot-1"), 7), ("s99", 0)])
async def test_the_newest_message_of_an_item_tells_its_epoch(shard: str, epoch: int) -> None:
    stream = FakeStream()
    stream.last[names.subject_of("lot-1")] = {Header.MSG_ID: f"{shard}:7:12"}
    assert await past(FakeArchive(), stream).published_epochs(["lot-1"]) == {"lot-1": epoch}
    stream.last[names.subject_of("lot-1")] = None
    assert await past(FakeArchive(), stream).published_epochs(["lot-1"]) == {"lot-1": 0}
