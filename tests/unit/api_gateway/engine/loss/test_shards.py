"""What the watch over the shards goes on doing while a part of it fails."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from api_gateway.engine.loss import shards as module
from api_gateway.engine.loss.shards import Shards
from shared.domain.errors import Unavailable
from tests.waiting import eventually


class Watch(Shards):
    """Counts the rounds; looks fail with ``failure``."""

    def __init__(self, failure: Exception) -> None:
        away = cast(Any, object())
        super().__init__(away, away, away, away, on_initialised=lambda: None, outbox_alarm_entries=1)
        self._failure = failure
        self.looks = self.compared = 0

    async def look(self) -> None:
        self.looks += 1
        raise self._failure

    async def compare(self, run: str | None = None) -> None:
        self.compared += 1


@pytest.mark.parametrize("failure", [Unavailable("the archive is away"), TimeoutError()], ids=["unavailable", "late"])
async def test_a_look_that_fails_does_not_keep_it_from_comparing(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While PostgreSQL is away and a shard is missing, each look fails. The open shards must be compared all the
    same."""
    monkeypatch.setattr(module, "_PAUSE_FAILED_S", 0.001)

    told: list[str] = []

    async def on_not_admitted() -> None:
        told.append(str(watch.health.not_admitted))

    watch = Watch(failure)
    watch.health.not_admitted = "an older copy"
    task = asyncio.create_task(watch.run(on_not_admitted))

    async def has_gone_on() -> bool:
        return watch.looks > 10 and watch.compared > 0

    try:
        assert await eventually(has_gone_on, seconds=5)
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert set(told) == {"an older copy"}, "no connection to it may be used any longer"
