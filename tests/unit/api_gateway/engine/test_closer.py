from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import pytest

from api_gateway.engine.closer import Closer
from api_gateway.engine.item_scripts import ItemScripts
from shared.domain.errors import BiddingError, ItemNotFound


class FakeScripts:
    """Items that are due, in their order; those that begin with ``lost`` cannot be advanced."""

    def __init__(self, *due: str) -> None:
        self.waiting = list(due)
        self.calls: list[str] = []

    async def due(self, shards: Sequence[str], *, count: int) -> dict[str, list[str]]:
        return {shards[0]: self.waiting[:count]} if self.waiting else {}

    async def advance(self, item_ids: Sequence[str]) -> list[int | BiddingError]:
        self.calls += item_ids
        self.waiting = [item_id for item_id in self.waiting if item_id.startswith("lost") or item_id not in item_ids]
        return [ItemNotFound(item_id) if item_id.startswith("lost") else 1 for item_id in item_ids]


def closer(scripts: FakeScripts) -> Closer:
    return Closer(cast(ItemScripts, scripts), owned_shards=lambda: ["s00"], on_outbox=lambda shard: None)


async def test_items_that_cannot_be_closed_do_not_hold_up_those_behind_them(caplog: pytest.LogCaptureFixture) -> None:
    lost = [f"lost-{number}" for number in range(150)]
    scripts = FakeScripts(*lost, "sound")
    one = closer(scripts)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await one.look()
    assert scripts.waiting == lost, "the one behind them is closed"
    assert sorted(scripts.calls) == sorted([*lost, "sound"]), "the others are not called again at once"
    assert len(caplog.records) == len(lost), "and are told once"


async def test_what_is_due_and_more_is_looked_for_at_once() -> None:
    scripts = FakeScripts(*(f"item-{number}" for number in range(130)))
    one = closer(scripts)
    assert await one.look(), "a full look may not have been all"
    assert not await one.look()
    assert (scripts.waiting, one.advanced_total) == ([], 130)
