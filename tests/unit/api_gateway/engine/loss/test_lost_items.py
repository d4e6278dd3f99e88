"""Items that Redis has lost are noted, within a bound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from api_gateway.engine.loss import lost_items
from api_gateway.engine.loss.lost_items import LostItems
from shared import names
from shared.redis_layout.keys import item_key, lost_key


class FakeRedis:
    """Sets, as pipelines use them."""

    def __init__(self) -> None:
        self.sets: defaultdict[str, set[str]] = defaultdict(set)
        self.there: set[str] = set()
        self.is_away = False
        self._commands: list[Callable[[], Any]] = []

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        self._commands = []
        return self

    def scard(self, key: str) -> None:
        self._commands.append(lambda: len(self.sets[key]))

    def sadd(self, key: str, member: str) -> None:
        self._commands.append(lambda: self.sets[key].add(member))

    def exists(self, key: str) -> None:
        self._commands.append(lambda: int(key in self.there))

    async def execute(self) -> list[Any]:
        if self.is_away:
            raise RedisConnectionError("away")
        return [command() for command in self._commands]

    async def smembers(self, key: str) -> set[bytes]:
        return {member.encode() for member in self.sets[key]}

    async def srem(self, key: str, *members: str) -> None:
        self.sets[key].difference_update(members)


async def test_the_notes_of_a_shard_are_bounded_and_leave_room_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_items, "NOTED_MAX", 3)
    redis = FakeRedis()
    lost = LostItems(cast(Any, redis))
    items = [f"lot-{n}" for n in range(2_000)]
    full = [item for item in items if names.shard_of(item) == "s01"][:5]
    other = next(item for item in items if names.shard_of(item) == "s02")
    for item in full:
        await lost.note(item, other)
    assert redis.sets[lost_key("s01")] == set(full[:3])
    assert redis.sets[lost_key("s02")] == {other}


async def test_items_that_are_back_are_struck_off_and_told_of_when_they_are_lost_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    redis = FakeRedis()
    lost = LostItems(cast(Any, redis))
    items = ["a", "b", "c"]
    shards = sorted({names.shard_of(item) for item in items})
    await lost.note(*items)
    assert await lost.review(shards) == 3
    redis.there = {item_key("a"), item_key("c")}
    assert await lost.review(shards) == 1
    assert {item for noted in redis.sets.values() for item in noted} == {"b"}
    caplog.clear()
    await lost.note("a", "b")
    assert [each.message.split()[1] for each in caplog.records if each.levelname == "CRITICAL"] == ["a"]


async def test_how_many_are_told_of_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_items, "_TOLD_MAX", 2)
    await LostItems(cast(Any, FakeRedis())).note("a", "b", "c")
    assert len(caplog.records) == 2


async def test_a_note_that_cannot_be_written_is_no_failure() -> None:
    """Whoever asks again finds out again."""
    redis = FakeRedis()
    redis.is_away = True
    await LostItems(cast(Any, redis)).note("a")
    assert not any(redis.sets.values())
