"""Archived cursors on their way to Redis: what waits, what is sent again, and what is an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError

from archival_worker.errors import ArchiveUnavailable
from archival_worker.metrics import Metrics
from archival_worker.outbox.cursors import CopyOptions, CursorCopier
from shared.redis_layout.outbox import EntryId
from tests.waiting import eventually

SELDOM = CopyOptions(interval_s=0.001, unpublished_s=0.001, resync_s=3_600)


class FakeRedis:
    """Answers the script as a test says, by the cursors' key; otherwise each cursor has moved."""

    def __init__(self) -> None:
        self.sent: list[dict[str, EntryId]] = []
        self.replies: dict[str, list[Any]] = {}
        self.fails = 0
        self.on_send: Callable[[], None] = lambda: None

    async def evalsha(self, sha: str, key_count: int, *told: Any) -> list[Any]:
        keys, arguments = told[:key_count:3], told[key_count:]
        places = [EntryId(*arguments[at + 2 : at + 4]) for at in range(0, len(arguments), 4)]
        self.on_send()
        if self.fails:
            self.fails -= 1
            raise RedisConnectionError("away")
        call = {key[1:4]: place for key, place in zip(keys, places, strict=True)}
        self.sent.append(call)
        return [self._reply(shard, place) for shard, place in call.items()]

    def _reply(self, shard: str, place: EntryId) -> Any:
        replies = self.replies.get(shard, [])
        return replies.pop(0) if replies else [1, place.epoch, place.n]


class Bench:
    """A copier, and what PostgreSQL has: one answer for each time it is asked, the last one for ever."""

    def __init__(self, *archived: dict[str, EntryId], options: CopyOptions = SELDOM) -> None:
        self.redis, self.metrics = FakeRedis(), Metrics()
        self._archived = list(archived) or [{}]
        self.reads = self.away = 0
        self.copier = CursorCopier(cast(Any, self.redis), self._read_all, self.metrics, options)

    async def _read_all(self) -> dict[str, EntryId]:
        self.reads += 1
        if self.away:
            self.away -= 1
            raise ArchiveUnavailable("away")
        return self._archived.pop(0) if len(self._archived) > 1 else self._archived[0]


async def test_a_newer_position_that_came_during_a_copy_that_failed_is_the_one_that_is_sent_again() -> None:
    bench = Bench()
    bench.redis.fails = 1
    bench.redis.on_send = lambda: bench.copier.offer({"s01": EntryId(1, 8), "s02": EntryId(1, 1)})
    bench.copier.offer({"s01": EntryId(1, 9), "s03": EntryId(2, 4)})
    with pytest.raises(RedisConnectionError):
        await bench.copier._copy_pending()
    assert bench.copier.pending == 3
    bench.redis.on_send = lambda: None
    await bench.copier._copy_pending()
    assert bench.redis.sent == [{"s01": EntryId(1, 9), "s02": EntryId(1, 1), "s03": EntryId(2, 4)}]
    assert (bench.copier.pending, bench.metrics.cursor_copies) == (0, 3)


async def test_only_the_newest_position_of_a_shard_waits_and_that_there_is_none_is_not_told() -> None:
    bench = Bench()
    bench.copier.offer({"s01": EntryId(1, 0), "s02": EntryId(3, 0)})
    assert bench.copier.pending == 0
    for place in (EntryId(1, 5), EntryId(2, 1), EntryId(1, 9), EntryId(2, 0)):
        bench.copier.offer({"s01": place})
    await bench.copier._copy_pending()
    assert bench.redis.sent == [{"s01": EntryId(2, 1)}]
    await bench.copier._copy_pending()
    assert len(bench.redis.sent) == 1, "nothing to tell is no call"


async def test_a_position_past_what_is_published_is_sent_again() -> None:
    bench = Bench()
    bench.redis.replies["s01"] = [[5, 1, 3]]
    bench.copier.offer({"s01": EntryId(1, 9), "s02": EntryId(1, 2)})
    await bench.copier._copy_pending()
    assert bench.metrics.cursor_copies == 1
    await eventually(lambda: bench.copier.pending == 1)
    await bench.copier._copy_pending()
    assert bench.redis.sent[1:] == [{"s01": EntryId(1, 9)}]


async def test_a_shard_that_cannot_take_its_position_keeps_no_other_one_and_is_tried_again() -> None:
    bench = Bench(options=replace(SELDOM, away_s=0.001))
    bench.redis.replies["s01"] = [ResponseError("WRONGTYPE")]
    bench.copier.offer({"s01": EntryId(1, 9), "s02": EntryId(1, 2)})
    await bench.copier._copy_pending()
    assert (bench.metrics.cursor_copies, bench.metrics.failures_by) == (1, {"redis": 1})
    await eventually(lambda: bench.copier.pending == 1)
    await bench.copier._copy_pending()
    assert bench.redis.sent[1:] == [{"s01": EntryId(1, 9)}]


async def test_a_shard_whose_epoch_is_no_number_keeps_no_other_one() -> None:
    """The reply of a script ends before a value that is no number."""
    bench = Bench()
    bench.redis.replies["s01"] = [[2]]
    bench.copier.offer({"s01": EntryId(1, 9), "s02": EntryId(1, 2)})
    await bench.copier._copy_pending()
    assert (bench.metrics.cursor_copies, bench.metrics.failures_by) == (1, {"redis": 1})
    assert "no numbers" in bench.copier.alarms["s01"]


async def test_a_redis_that_carries_no_script_out_is_a_failed_copy() -> None:
    bench = Bench()
    bench.redis.replies["s01"] = [ReadOnlyError("READONLY")]
    bench.copier.offer({"s01": EntryId(1, 9), "s02": EntryId(1, 2)})
    with pytest.raises(ReadOnlyError):
        await bench.copier._copy_pending()
    assert bench.copier.pending == 2


async def test_a_damaged_shard_is_an_alarm_of_its_own_beside_those_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench({"s01": EntryId(1, 9), "s02": EntryId(1, 7)})
    for _ in range(2):
        bench.redis.replies = {"s01": [ResponseError("WRONGTYPE of s01")], "s02": [[3, 0, 0]]}
        await bench.copier._resync()
        assert "WRONGTYPE of s01" in bench.copier.alarms["s01"]
        assert "Redis lost data" in bench.copier.alarms["s02"]
    assert sum(record.levelname == "ERROR" for record in caplog.records) == 2, "each is told once"
    await bench.copier._resync()
    assert bench.copier.alarms == {}


LATER = {"s01": EntryId(1, 9)}


@pytest.mark.parametrize(
    ("archived", "again", "reply", "alarm"),
    [
        ((1, 7), LATER, [1, 1, 7], None),
        ((1, 7), LATER, [0, 1, 7], None),
        ((1, 7), LATER, [3, 0, 0], "Redis lost data"),
        ((1, 0), LATER, [3, 0, 0], None),
        ((2, 7), LATER, [2, 1, 3], "Redis went back"),
        ((1, 7), LATER, [2, 2, 3], "PostgreSQL lost data"),
        ((1, 7), {"s01": EntryId(2, 3)}, [2, 2, 3], None),
        ((1, 7), LATER, [4, 1, 3], "Redis went back"),
        ((1, 7), LATER, [5, 1, 3], None),
        ((1, 7), LATER, [0, 1, 9], None),  # another archiver has moved both
        ((1, 7), LATER, [0, 1, 10], "PostgreSQL lost data"),
    ],
)
async def test_sides_that_contradict_each_other_are_an_alarm(
    archived: tuple[int, int],
    again: dict[str, EntryId],
    reply: list[int],
    alarm: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench({"s01": EntryId(*archived)}, again)
    bench.redis.replies["s01"] = [reply]
    await bench.copier._resync()
    if alarm is None:
        assert bench.copier.alarms == {}
        return
    assert alarm in bench.copier.alarms["s01"]
    bench._archived, bench.redis.replies["s01"] = [{"s01": EntryId(*archived)}, again], [reply]
    await bench.copier._resync()
    assert [record.levelname for record in caplog.records] == ["ERROR"], "told once"
    bench._archived, bench.redis.replies["s01"] = [{"s01": EntryId(1, 9)}], [[0, 1, 9]]
    await bench.copier._resync()
    assert bench.copier.alarms == {}


async def test_what_waits_is_copied_while_postgresql_is_away_and_at_the_end() -> None:
    bench = Bench({"s05": EntryId(1, 1)})
    bench.away = 2
    bench.copier.offer({"s01": EntryId(1, 9)})
    task = asyncio.create_task(bench.copier.run())
    await eventually(lambda: bench.reads == 3)
    assert bench.redis.sent[0] == {"s01": EntryId(1, 9)}
    await eventually(lambda: bench.redis.sent[-1] == {"s05": EntryId(1, 1)})
    assert bench.metrics.failures_by == {"archive": 2}
    bench.copier.request_stop()
    bench.copier.offer({"s01": EntryId(1, 10)})
    await asyncio.wait_for(task, 10)
    assert bench.redis.sent[-1] == {"s01": EntryId(1, 10)}


async def test_an_end_without_redis_is_an_end_all_the_same() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.copier.run())
    await eventually(lambda: bench.reads == 1)
    bench.redis.fails = 1_000
    bench.copier.offer({"s01": EntryId(1, 10)})
    bench.copier.request_stop()
    await asyncio.wait_for(task, 30)
    assert bench.copier.pending == 1


async def test_all_positions_are_sent_again_now_and_then() -> None:
    """Redis may have lost the newest of them, by a failover."""
    bench = Bench({"s05": EntryId(1, 1)}, options=CopyOptions(resync_s=0.01))
    task = asyncio.create_task(bench.copier.run())
    await eventually(lambda: len(bench.redis.sent) >= 3)
    bench.copier.request_stop()
    await asyncio.wait_for(task, 10)
    assert all(sent == {"s05": EntryId(1, 1)} for sent in bench.redis.sent)
