"""What the stream holds beyond the archive, and in which epochs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.js.errors import NotFoundError

from archival_worker.consume.backlog import first_unarchived, newest_epochs
from shared.clients.nats import StreamUnavailable
from shared.names import OutboxEntry, entry_of_message_id
from shared.streams import reader


class Stream:
    """A consumer that has acknowledged up to a message, or does not exist, or cannot be read."""

    def __init__(self, floor: Any) -> None:
        self._floor = floor

    async def consumer_info(self, stream: str, durable: str) -> Any:
        if isinstance(self._floor, Exception):
            raise self._floor
        return SimpleNamespace(ack_floor=None if self._floor is None else SimpleNamespace(stream_seq=self._floor))


@pytest.mark.parametrize(("floor", "first"), [(0, 1), (41, 42), (None, 1), (NotFoundError(), 1)])
async def test_what_comes_after_the_last_acknowledgement_is_not_archived_for_certain(floor: Any, first: int) -> None:
    assert await first_unarchived(cast(Any, Stream(floor))) == first


async def test_that_nobody_tells_is_not_taken_for_nothing() -> None:
    with pytest.raises(StreamUnavailable):
        await first_unarchived(cast(Any, Stream(TimeoutError())))


async def test_the_highest_epoch_of_the_last_and_the_newest_messages_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of a foreign message, which must not use up the epochs, nor that of a shard that nobody asked for."""
    last = {"s01": "s01:3:9", "s02": "s02:1:1", "s03": None, "s04": f"s04:{2**30}:1", "s05": "s01:8:1"}
    newest = [
        OutboxEntry("s01", 2, 7),
        OutboxEntry("s02", 4, 2),
        OutboxEntry("s07", 9, 1),
        OutboxEntry("s04", 2**30, 1),
    ]

    async def last_id(_: Any, subject: str) -> str | None:
        return last[subject.split(".")[2]]

    async def newest_entries(_: Any) -> Any:
        for entry in newest:
            yield entry

    monkeypatch.setattr(reader, "last_id", last_id)
    monkeypatch.setattr(reader, "newest_entries", newest_entries)
    assert entry_of_message_id("s05:8:1") is not None
    assert await newest_epochs(cast(Any, None), last) == {"s01": 3, "s02": 4}
    last["s04"] = f"s04:{2**30 - 1}:1"
    assert (await newest_epochs(cast(Any, None), ["s04"])) == {"s04": 2**30 - 1}
