"""Loads on demand: one per item at a time, one more if it was requested meanwhile, retries after failures."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from broadcast_service.core.feed import Recovery, Wanted
from broadcast_service.metrics import Metrics
from broadcast_service.sources.left_items import ArchiveAway
from broadcast_service.sources.loader import WORKERS, Loader
from tests.unit.broadcast_service.builders import ITEM, item
from tests.waiting import eventually


class SlowReader:
    """Answers when it is told to: ``answers`` in order, then the item at seq 1."""

    def __init__(self, *answers: Recovery | Exception | None) -> None:
        self.answers = list(answers)
        self.started: asyncio.Queue[str] = asyncio.Queue()
        self.may_answer = asyncio.Semaphore(0)
        self.reading: dict[str, int] = defaultdict(int)
        self.reads = 0
        self.lost = False
        self.may_answer_left = asyncio.Event()
        self.may_answer_left.set()
        self.left: Recovery | Exception | None = None

    async def read_left(self, item_id: str, wanted: Wanted) -> Recovery | None:
        await self.may_answer_left.wait()
        if isinstance(self.left, Exception):
            raise self.left
        return self.left

    async def is_lost(self, item_id: str) -> bool:
        return self.lost

    async def read(self, item_id: str, wanted: Wanted) -> Recovery | None:
        self.reads += 1
        self.reading[item_id] += 1
        assert self.reading[item_id] == 1, "two reads of one item at a time"
        self.started.put_nowait(item_id)
        await self.may_answer.acquire()
        self.reading[item_id] -= 1
        answer = self.answers.pop(0) if self.answers else Recovery(item(1))
        if isinstance(answer, Exception):
            raise answer
        return answer


class Diary:
    """Records all calls."""

    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.unwatched: set[str] = set()

    def watches(self, item_id: str) -> bool:
        return item_id not in self.unwatched

    def history_wanted(self, item_id: str) -> Wanted:
        return {}

    def loaded(self, item_id: str, recovery: Recovery, *, again: bool) -> None:
        self.told.put_nowait(("loaded, again" if again else "loaded", item_id))

    def missing(self, item_id: str) -> None:
        self.told.put_nowait(("missing", item_id))

    def lost(self, item_id: str) -> None:
        self.told.put_nowait(("lost", item_id))

    def load_failed(self, item_id: str) -> None:
        self.told.put_nowait(("failed", item_id))


@asynccontextmanager
async def running(reader: SlowReader, diary: Diary) -> AsyncIterator[Loader]:
    loader = Loader(reader, Metrics())
    task = asyncio.create_task(loader.run(diary))
    try:
        async with asyncio.timeout(10):
            yield loader
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_many_requests_are_one_read() -> None:
    reader, diary = SlowReader(), Diary()
    async with running(reader, diary) as loader:
        for _ in range(100):
            loader.request(ITEM)
        await reader.started.get()
        reader.may_answer.release()
        assert await diary.told.get() == ("loaded", ITEM)
        assert reader.reads == 1


async def test_a_request_during_a_read_is_one_more_read() -> None:
    reader, diary = SlowReader(), Diary()
    async with running(reader, diary) as loader:
        loader.request(ITEM)
        await reader.started.get()
        for _ in range(100):
            loader.request(ITEM)
        reader.may_answer.release()
        assert await diary.told.get() == ("loaded, again", ITEM)
        reader.may_answer.release()
        assert await diary.told.get() == ("loaded", ITEM)
        assert reader.reads == 2


async def test_items_are_read_side_by_side_up_to_a_bound() -> None:
    reader, diary = SlowReader(), Diary()
    async with running(reader, diary) as loader:
        for number in range(WORKERS + 5):
            loader.request(f"item-{number}")
        for _ in range(WORKERS):
            await reader.started.get()
        assert reader.started.empty()
        for _ in range(WORKERS + 5):
            reader.may_answer.release()
        told = {await diary.told.get() for _ in range(WORKERS + 5)}
        assert told == {("loaded", f"item-{number}") for number in range(WORKERS + 5)}


async def test_a_failed_read_is_told_and_tried_again() -> None:
    reader = SlowReader(RedisConnectionError("away"), TimeoutError(), ValueError("not an item"))
    diary = Diary()
    async with running(reader, diary) as loader:
        loader.request(ITEM)
        for _ in range(4):
            reader.may_answer.release()
        assert [await diary.told.get() for _ in range(4)] == [("failed", ITEM)] * 3 + [("loaded", ITEM)]


async def test_each_outage_is_told_once_and_the_first_pause_after_it_is_short(
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = RedisConnectionError("away")
    reader, diary = SlowReader(away, away, Recovery(item(1)), away, Recovery(item(2))), Diary()
    async with running(reader, diary) as loader:
        for outcomes in (["failed", "failed", "loaded"], ["failed", "loaded"]):
            loader.request(ITEM)
            for _ in outcomes:
                reader.may_answer.release()
            assert [(await diary.told.get())[0] for _ in outcomes] == outcomes
            assert loader._backoff.failures == 0
        assert (loader._metrics.loads, loader._metrics.loads_failed) == (5, 3)
    assert sum("cannot be asked" in record.message for record in caplog.records) == 2


async def test_a_missing_item_that_may_exist_by_now_is_read_again_first() -> None:
    reader, diary = SlowReader(None, None), Diary()
    async with running(reader, diary) as loader:
        loader.request(ITEM)
        await reader.started.get()
        loader.request(ITEM)
        reader.may_answer.release()
        reader.may_answer.release()
        assert await diary.told.get() == ("missing", ITEM)
        assert reader.reads == 2


async def test_an_item_that_was_created_during_the_read_is_never_said_to_be_missing() -> None:
    """A viewer who is told so is sent away."""
    reader, diary = SlowReader(None), Diary()
    async with running(reader, diary) as loader:
        loader.request(ITEM)
        await reader.started.get()
        loader.request(ITEM)
        reader.may_answer.release()
        reader.may_answer.release()
        assert await diary.told.get() == ("loaded", ITEM)


async def test_items_that_nobody_watches_any_more_are_not_read() -> None:
    reader, diary = SlowReader(), Diary()
    diary.unwatched.add("left")
    async with running(reader, diary) as loader:
        loader.request("left")
        loader.request(ITEM)
        reader.may_answer.release()
        assert await diary.told.get() == ("loaded", ITEM)
        assert reader.reads == 1
        diary.unwatched.clear()
        loader.request("left")
        reader.may_answer.release()
        assert await diary.told.get() == ("loaded", "left")


async def test_an_item_that_is_lost_is_told_from_one_that_never_was() -> None:
    reader, diary = SlowReader(None, None), Diary()
    async with running(reader, diary) as loader:
        for reader.lost, expected in ((True, "lost"), (False, "missing")):
            loader.request(ITEM)
            reader.may_answer.release()
            assert await diary.told.get() == (expected, ITEM)


async def test_what_redis_does_not_have_may_have_left_it() -> None:
    reader, diary = SlowReader(None, None), Diary()
    async with running(reader, diary) as loader:
        for reader.left, expected in ((Recovery(item(1)), "loaded"), (ArchiveAway("it hangs"), "lost")):
            loader.request(ITEM)
            reader.may_answer.release()
            assert await diary.told.get() == (expected, ITEM)


async def test_a_hanging_archive_keeps_no_live_item_waiting() -> None:
    absent = [f"gone-{number}" for number in range(100)]
    reader, diary = SlowReader(*[None] * len(absent)), Diary()
    reader.may_answer_left.clear()
    async with running(reader, diary) as loader:
        for item_id in absent:
            loader.request(item_id)
            reader.may_answer.release()
        loader.request("live")
        reader.may_answer.release()
        assert await diary.told.get() == ("loaded", "live")
        diary.unwatched.update(absent[50:])
        reader.may_answer_left.set()
        assert {(await diary.told.get())[0] for _ in range(50)} == {"missing"}
        await eventually(loader._absent.empty)
        assert diary.told.empty(), "nobody asks for the others any more"
        for item_id in absent:
            loader.request(item_id)  # nothing is left of the former requests
        diary.unwatched.clear()
