"""What a broadcaster sees of its viewers' shards, once a second."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from broadcast_service.sources import shards as module
from broadcast_service.sources.shards import ShardWatch
from shared.redis_layout.keys import cursors_key, rebuilding_key
from tests.waiting import eventually


class FakeRedis:
    """Epochs, and the marks of rebuildings under way. It is its own pipeline."""

    def __init__(self, epochs: dict[str, bytes], *marked: str) -> None:
        self._epochs = {cursors_key(shard): epoch for shard, epoch in epochs.items()}
        self._marked = {rebuilding_key(shard) for shard in marked}
        self._answers: list[Any] = []
        self.fails = 0

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        self._answers = []
        return self

    def hget(self, key: str, field: str) -> None:
        self._answers.append(self._epochs.get(key))

    def exists(self, key: str) -> None:
        self._answers.append(int(key in self._marked))

    async def execute(self) -> list[Any]:
        if self.fails:
            self.fails -= 1
            raise RedisConnectionError("away")
        return self._answers


class Diary:
    def __init__(self, *watched: str) -> None:
        self._watched = set(watched)
        self.seen: list[tuple[dict[str, int], list[str]]] = []

    def shards_watched(self) -> set[str]:
        return self._watched

    def shards_seen(self, epochs: Mapping[str, int], rebuilt: Collection[str]) -> None:
        self.seen.append((dict(epochs), list(rebuilt)))


async def test_open_shards_have_an_epoch_and_of_the_others_those_that_are_rebuilt_are_told() -> None:
    """A mark that is left on an open shard says nothing: the rebuilding ended when the shard was opened."""
    redis, diary = FakeRedis({"s01": b"3", "s02": b"4"}, "s02", "s03"), Diary("s01", "s02", "s03", "s04")
    await ShardWatch(cast(Any, redis)).look(diary)
    assert diary.seen == [({"s01": 3, "s02": 4}, ["s03"])]
    await ShardWatch(cast(Any, None)).look(Diary())


async def test_what_cannot_be_seen_now_is_seen_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.001)
    redis, diary = FakeRedis({"s01": b"3"}), Diary("s01")
    redis.fails = 2
    task = asyncio.create_task(ShardWatch(cast(Any, redis)).run(diary))
    try:
        await eventually(lambda: len(diary.seen) >= 2)
    finally:
        task.cancel()
        await asyncio.wait([task])
