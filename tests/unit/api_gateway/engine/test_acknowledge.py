from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from api_gateway.engine.acknowledge import LogAcknowledger
from shared.domain.errors import OutcomeUnknown


class FakeRedis:
    """The `published` cursors, as a pipeline of HGETs finds them; also that pipeline."""

    def __init__(self, published: int) -> None:
        self._published = published
        self._asked = 0

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        self._asked = 0
        return self

    def hget(self, key: str, field: str) -> None:
        self._asked += 1

    async def execute(self) -> list[bytes]:
        return [b"%d" % self._published] * self._asked


def acknowledger(timeout_s: float = 1.0, *, published: int = 0) -> LogAcknowledger:
    return LogAcknowledger(cast(Any, FakeRedis(published)), timeout_s=timeout_s)


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


async def test_what_was_published_before_anybody_waited_is_found_by_looking() -> None:
    """The relay may be faster than the answer of a large flush; nobody tells again of an entry that is published."""
    log = acknowledger(timeout_s=10, published=7)
    looking = asyncio.create_task(log.run())
    log.published("s01", 7)
    await asyncio.wait_for(log.confirm("s01", 7), 5)
    looking.cancel()
