"""What a broadcaster asks the stream about items that Redis does not have, and what it remembers of the answers."""

from __future__ import annotations

from typing import Any, cast

import pytest

from broadcast_service.sources import losses
from broadcast_service.sources.losses import Losses
from shared import names


class WithoutItems:
    """Redis with the cursors of every shard and without any item. It is its own pipeline."""

    def pipeline(self, *, transaction: bool) -> WithoutItems:
        return self

    def hget(self, key: str, field: str) -> None: ...
    def sismember(self, key: str, member: str) -> None: ...
    def exists(self, *keys: str) -> None: ...

    async def execute(self) -> list[Any]:
        return [b"1", 0, 0, 0]


class Stream:
    """Has messages of the ``known`` items. ``asked``: of which items it was asked, in order."""

    def __init__(self, *known: str) -> None:
        self._known = known
        self.asked: list[str] = []
        self.is_silent = False

    async def has_message(self, subject: str, epoch: int) -> bool:
        item_id = names.item_of_subject(subject)
        self.asked.append(item_id)
        if self.is_silent:
            raise TimeoutError
        return item_id in self._known


def losses_of(stream: Stream) -> Losses:
    return Losses(cast(Any, WithoutItems()), stream.has_message)


async def test_a_no_of_the_stream_is_kept_and_a_yes_is_not() -> None:
    stream = Stream("lot")
    asked = losses_of(stream)
    assert [await asked.is_lost(item_id) for item_id in ("lot", "none", "lot", "none")] == [True, False, True, False]
    assert stream.asked == ["lot", "none", "lot"]


async def test_so_many_answers_are_kept_whoever_asks_for_random_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a further one the oldest makes room: it is asked about again, and the others are not."""
    monkeypatch.setattr(losses, "KEPT_MAX", 3)
    stream = Stream()
    asked = losses_of(stream)
    for item_id in ("a", "b", "c", "d", "d", "c", "b"):
        assert not await asked.is_lost(item_id)
    assert stream.asked == ["a", "b", "c", "d"]
    assert not await asked.is_lost("a")
    assert stream.asked == ["a", "b", "c", "d", "a"]


async def test_a_stream_that_does_not_answer_is_not_asked_for_a_while() -> None:
    stream = Stream("lot")
    asked = losses_of(stream)
    stream.is_silent = True
    assert not await asked.is_lost("a")
    stream.is_silent = False
    assert not await asked.is_lost("lot")
    assert stream.asked == ["a"]
