from __future__ import annotations

import asyncio
from typing import Any

import pytest

from api_gateway.engine.acknowledge import LogAcknowledger
from shared.domain.errors import OutcomeUnknown


def acknowledger(timeout_s: float = 1.0) -> LogAcknowledger:
    no_redis: Any = None
    return LogAcknowledger(no_redis, owned_shards=lambda: {"s01"}, timeout_s=timeout_s)


async def test_everything_up_to_the_published_entry_is_confirmed() -> None:
    log = acknowledger()
    waiting = [asyncio.create_task(log.confirm("s01", entry)) for entry in (5, 3, 4, 9)]
    await asyncio.sleep(0)
    log.published("s01", 5)
    done, _ = await asyncio.wait(waiting, timeout=0.05)
    assert done == set(waiting[:3])
    log.published("s02", 9)
    assert not waiting[3].done()
    log.published("s01", 9)
    await waiting[3]


async def test_what_is_not_published_in_time_is_unknown() -> None:
    log = acknowledger(timeout_s=0.01)
    with pytest.raises(OutcomeUnknown):
        await log.confirm("s01", 1)
    log.published("s01", 1)  # too late, and harmless
