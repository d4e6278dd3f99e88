"""What a broadcaster asks the stream about items that Redis does not have, and what it remembers of the answers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from broadcast_service.sources import losses
from broadcast_service.sources.losses import Losses
from shared import names
from tests.waiting import eventually


class WithoutItems:
    """Redis with the cursors of every shard and without any item, unless ``told`` says otherwise. It is its own
    pipeline."""

    told: tuple[Any, ...] = (b"1", 0, 0, 0)

    def pipeline(self, *, transaction: bool) -> WithoutItems:
        return self

    def hget(self, key: str, field: str) -> None: ...
    def sismember(self, key: str, member: str) -> None: ...
    def exists(self, *keys: str) -> None: ...

    async def execute(self) -> list[Any]:
        return list(self.told)


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


@pytest.mark.parametrize(
    ("told", "is_lost"),
    [
        ((None, 0, 0, 0), True),  # its shard
        ((b"1", 1, 0, 0), True),  # a gateway has noted it
        ((b"1", 0, 2, 0), True),  # other keys of it are there
        ((b"1", 1, 2, 1), False),  # it was opened, or is back
        ((b"1", 0, 0, 0), False),
    ],
)
async def test_redis_has_other_traces_of_an_item(told: tuple[Any, ...], is_lost: bool) -> None:
    stream, redis = Stream(), WithoutItems()
    redis.told = told
    assert await Losses(cast(Any, redis), stream.has_message).is_lost("lot") is is_lost
    assert stream.asked == (["lot"] if told == (b"1", 0, 0, 0) else [])


async def test_of_many_who_wait_for_their_turn_none_asks_a_stream_that_went_silent() -> None:
    stream = Stream()
    may_answer = asyncio.Event()

    async def has_message(subject: str, epoch: int) -> bool:
        stream.is_silent = True
        stream.asked.append(subject)
        await may_answer.wait()
        raise TimeoutError

    asked = Losses(cast(Any, WithoutItems()), has_message)
    asking = [asyncio.create_task(asked.is_lost(f"x-{number}")) for number in range(20)]
    await eventually(lambda: len(stream.asked) == losses.ASKING_MAX)
    may_answer.set()
    assert not any(await asyncio.gather(*asking))
    assert len(stream.asked) == losses.ASKING_MAX


async def test_a_no_that_was_told_anew_is_a_young_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "KEPT_MAX", 2)
    stream = Stream()
    asked = losses_of(stream)
    for item_id in ("a", "b"):
        await asked.is_lost(item_id)
    asked._unknown["a"] = 0.0
    for item_id in ("a", "c", "a"):
        await asked.is_lost(item_id)
    assert stream.asked == ["a", "b", "a", "c"]
