"""Items that Redis has lost are noted, within a bound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import pytest

from api_gateway.engine.loss import lost_items
from api_gateway.engine.loss.lost_items import LostItems
from shared import names
from shared.redis_layout.keys import lost_key


class FakeRedis:
    """Sets, as pipelines use them."""

    def __init__(self) -> None:
        self.sets: defaultdict[str, set[str]] = defaultdict(set)
        self._commands: list[Callable[[], Any]] = []

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        self._commands = []
        return self

    def scard(self, key: str) -> None:
        self._commands.append(lambda: len(self.sets[key]))

    def sadd(self, key: str, member: str) -> None:
        self._commands.append(lambda: self.sets[key].add(member))

    async def execute(self) -> list[Any]:
        return [command() for command in self._commands]


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
