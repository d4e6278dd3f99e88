"""How many questions about items that Redis does not have reach the archive."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from api_gateway.engine.closed import reads as reads_module
from api_gateway.engine.closed.closed_items import ArchiveAway, ClosedItems
from api_gateway.engine.closed.reads import READS_AT_ONCE, READS_WAITING_MAX, InTurns, open_reads
from shared.clients.nats import NatsLink
from shared.read_cache.settings import Mode, ReadCacheSettings
from tests.waiting import eventually


class FakeRedis:
    """Has no item, and shards in epoch 1. Some items are noted as lost."""

    def __init__(self, *lost: str) -> None:
        self._lost = lost
        self._answers: list[Any] = []

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        return FakeRedis(*self._lost)

    def hget(self, key: str, field: str) -> None:
        self._answers.append(b"1")

    def exists(self, key: str) -> None:
        self._answers.append(0)

    def sismember(self, key: str, item_id: str) -> None:
        self._answers.append(item_id in self._lost)

    async def execute(self) -> list[Any]:
        return self._answers


class Reads:
    """An archive without closed items, which answers when it may."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()

    async def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        await self.may_answer.wait()
        return None

    async def states(self, item_ids: Sequence[str]) -> dict[str, bytes]:
        self.asked.extend(item_ids)
        await self.may_answer.wait()
        return {}


def closed(reads: Reads, *lost: str) -> ClosedItems:
    return ClosedItems(cast(Any, FakeRedis(*lost)), InTurns(reads), cast(Any, None))


async def outcomes(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return [type(outcome) for outcome in await asyncio.gather(*tasks, return_exceptions=True)]


async def test_a_flood_of_ids_leaves_the_archive_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads_module, "TURN_S", 0.2)
    reads = Reads()
    items = closed(reads)
    finds = [asyncio.create_task(items.find(f"x-{n}")) for n in range(READS_WAITING_MAX + 50)]
    await asyncio.sleep(0)
    done, _ = await asyncio.wait(finds, return_when=asyncio.FIRST_COMPLETED)
    assert len(reads.asked) == READS_AT_ONCE
    assert {type(task.exception()) for task in done} == {ArchiveAway}, "refused at once, or after its turn"
    histories = [asyncio.create_task(items.history(f"x-{n}", cursor=None, limit=5)) for n in range(20)]
    assert await outcomes(histories) == [ArchiveAway] * 20
    await eventually(lambda: sum(find.done() for find in finds) == len(finds) - READS_AT_ONCE)
    reads.may_answer.set()
    told = await outcomes(finds)
    assert told.count(type(None)) == READS_AT_ONCE
    assert set(told) == {type(None), ArchiveAway}
    assert len(reads.asked) == READS_AT_ONCE
    assert await items.find("later") is None


async def test_one_question_for_all_who_ask_for_an_item() -> None:
    reads = Reads()
    items = closed(reads)
    finds = [asyncio.create_task(items.find("x")) for _ in range(READS_WAITING_MAX * 2)]
    await asyncio.sleep(0.01)
    reads.may_answer.set()
    assert set(await outcomes(finds)) == {type(None)}
    assert reads.asked == ["states/x"]


async def test_an_item_that_is_noted_as_lost_is_asked_about_once_in_a_while() -> None:
    reads = Reads()
    reads.may_answer.set()
    items = closed(reads, "lost")
    for _ in range(5):
        assert await items.find("lost") is None
        assert await items.find("new") is None, "it may be opened, closed, and leave at any moment"
    assert (reads.asked.count("states/lost"), reads.asked.count("states/new")) == (1, 5)


class SlowReads:
    """An archive without closed items, which counts who asks at a time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._running = 0
        self.running_max = 0

    async def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        self._running += 1
        self.running_max = max(self.running_max, self._running)
        await asyncio.sleep(0.01)
        self._running -= 1
        return None

    async def states(self, item_ids: Sequence[str]) -> dict[str, bytes]:
        await self.get(",".join(item_ids))
        return {}


@pytest.mark.parametrize("mode", ["off", "local", "cluster"])
async def test_in_every_mode_a_few_questions_at_a_time_reach_the_archive(mode: Mode) -> None:
    """Those that fill the cache, and those that confirm that there is none."""
    archive, nowhere = SlowReads(), "nats://127.0.0.1:9"
    settings = ReadCacheSettings(read_cache=mode)
    nats = NatsLink(nowhere, name="test")
    async with open_reads(settings, archive, cast(Any, FakeRedis()), nats) as reads:
        found = await asyncio.gather(*(reads.archive.get(f"items/random-{number}") for number in range(20)))
    await nats.close()
    assert found == [None] * 20
    assert len(archive.asked) >= 20
    assert archive.running_max == READS_AT_ONCE
