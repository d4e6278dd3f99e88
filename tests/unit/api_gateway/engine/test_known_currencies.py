"""How many items' currencies a gateway remembers."""

from __future__ import annotations

from typing import Any, cast

import pytest

from api_gateway.engine import items as module
from api_gateway.engine.items import Items
from shared.redis_layout.keys import item_key


class FakeRedis:
    """The currency of every item but one."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def hget(self, key: str, field: str) -> bytes | None:
        assert field == "currency"
        self.asked.append(key)
        return None if key == item_key("none") else b"JPY" if key == item_key("yen") else b"USD"


async def test_the_oldest_is_forgotten_and_that_there_is_none_is_never_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KNOWN_ITEMS_MAX", 2)
    redis, nothing = FakeRedis(), cast(Any, None)
    items = Items(
        cast(Any, redis), nothing, nothing, nothing, nothing, open_catalogue=True, on_outbox=lambda shard: None
    )
    found = [await items.find_exponent(item_id) for item_id in ("a", "yen", "a", "none", "none", "b", "yen", "a")]
    assert found == [2, 0, 2, None, None, 2, 0, 2]
    assert redis.asked == [item_key(item_id) for item_id in ("a", "yen", "none", "none", "b", "a")]
    assert len(items.known) == 2
