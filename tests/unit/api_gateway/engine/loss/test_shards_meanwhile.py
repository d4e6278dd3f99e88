"""What the watch over the shards makes of what changes between two looks, or during one."""

from __future__ import annotations

import asyncio
import logging

import pytest

from api_gateway.engine.loss import shards as module
from shared import names
from shared.domain.errors import Unavailable
from shared.redis_layout.outbox import EntryId
from tests.unit.api_gateway.engine.loss.shards_bench import Bench


async def test_an_archive_that_is_behind_is_told_once_and_so_is_that_it_catches_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The alarm is at 10 entries that wait in one outbox."""
    bench = Bench()
    health = bench.shards.health
    bench.redis.places |= {"s07": EntryId(1, 12), "s08": EntryId(3, 5)}
    with caplog.at_level(logging.WARNING):
        told = []
        for archived in (3, 2, 2, 3, 3):
            bench.redis.archived = {"s07": archived, "s08": 4}
            await bench.shards.look()
            told.append((health.archive_is_behind, health.backlog_longest, health.backlog_total))
    assert told == [(False, 9, 10), (True, 10, 11), (True, 10, 11), (False, 9, 10), (False, 9, 10)]
    assert [(each.levelname, "10 entries" in each.message) for each in caplog.records] == [
        ("ERROR", True),
        ("WARNING", True),
    ]


@pytest.mark.parametrize("archive", [True, False])
async def test_the_next_comparison_is_soon_where_somebody_could_not_be_asked(archive: bool) -> None:
    bench = Bench()
    bench.knows(archive=archive, stream=True)
    now_s = asyncio.get_running_loop().time()
    await bench.shards.compare()
    assert (bench.shards._compare_at_s - now_s < 2 * module._PAUSE_S) is not archive


async def test_shards_with_the_mark_of_another_run_are_compared_at_once() -> None:
    bench = Bench()
    await bench.shards.look()
    await bench.shards.compare()
    bench.redis.marks["s07"] = "b"
    await bench.shards.look()
    assert bench.shards._compare_at_s == 0


async def test_what_was_seen_of_a_shard_ends_with_the_shard() -> None:
    """It is gone, and nobody knows anything of it: what begins in its place has nothing to do with what was seen."""
    bench = Bench()
    bench.redis.places["s07"] = EntryId(1, 9)
    await bench.shards.look()
    bench.redis.places["s07"] = None
    await bench.shards.look()
    assert bench.scripts.made == ["s07"]
    await bench.shards.compare()
    assert bench.scripts.closed == {}


async def test_a_run_that_this_process_has_admitted_needs_no_mark() -> None:
    """Each of its shards was rebuilt since, by somebody who does not know of runs."""
    bench = Bench()
    await bench.shards.compare("a")
    bench.redis.marks = dict.fromkeys(names.SHARDS, "")
    bench.knows(archive=True, stream=False)
    await bench.shards.compare("a")
    assert set(bench.redis.marks.values()) == {"a"}


async def test_relays_are_told_of_shards_that_somebody_else_has_opened_again() -> None:
    bench = Bench()
    bench.redis.places["s07"] = None
    bench.redis.stale.add("s07")
    await bench.shards.look()
    told = bench.initialised
    bench.redis.places["s07"] = EntryId(2, 0)
    await bench.shards.look()
    assert bench.initialised == told + 1
    await bench.shards.look()
    assert bench.initialised == told + 1, "nothing is new"


async def test_a_redis_that_is_replaced_while_a_shard_is_closed_is_not_admitted() -> None:
    bench = Bench()
    bench.redis.places["s07"] = EntryId(1, 7)
    bench.knows({"s07": EntryId(1, 9)}, archive=True, stream=True)
    bench.scripts.moves = lambda: setattr(bench.redis, "run", "b")
    with pytest.raises(Unavailable, match="being replaced"):
        await bench.shards.compare("a")


async def test_lost_shards_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.redis.places["s07"] = None
    bench.knows({"s07": EntryId(1, 7)}, archive=True, stream=True)
    for _ in range(3):
        await bench.shards.look()
    assert [each.levelname for each in caplog.records] == ["CRITICAL"]


async def test_who_is_looked_into_twice_is_compared_by_what_it_has_given_out_by_then() -> None:
    """First what is known, then the cursors: those of a sound Redis have passed it."""
    bench = Bench()
    bench.redis.places["s07"] = EntryId(1, 7)
    bench.redis.marks["s08"] = "b"

    def goes_on() -> None:
        bench.redis.places["s07"] = EntryId(1, 9)
        bench.knows({"s07": EntryId(1, 9)}, archive=True, stream=True)

    bench.past.on_look_back = goes_on
    await bench.shards.compare()
    assert bench.past.looks_back == [False, True]
    assert bench.scripts.closed == {}
