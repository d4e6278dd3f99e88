"""When everything works again after a part was killed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest
from redis.exceptions import BusyLoadingError

from load_tests.experiments.resilience import phases


@pytest.mark.parametrize(
    "trouble", [BusyLoadingError("reading its data"), asyncpg.CannotConnectNowError("starting"), ConnectionError()]
)
async def test_a_store_that_starts_is_waited_for(monkeypatch: pytest.MonkeyPatch, trouble: Exception) -> None:
    version = {"lot": (1, 5)}
    pressure = SimpleNamespace(counts=SimpleNamespace(bids=0), shown={"viewer": version})
    looks = 0

    async def item_versions(*_: object) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise trouble
        pressure.counts.bids += 1
        return version, version

    async def missing(*_: object) -> int:
        return 0

    monkeypatch.setattr(phases, "item_versions", item_versions)
    monkeypatch.setattr(phases, "missing_in_archive", missing)
    assert await phases._works_again(cast("Any", None), cast("Any", pressure), ["lot"])
    assert looks == 2
