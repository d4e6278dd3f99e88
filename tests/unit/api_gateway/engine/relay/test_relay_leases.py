"""The relay without a network: a shard that is another's meanwhile, or another one, is published no more."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.clients.cluster.pipeline import NodeAway
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.scripts import Call, Script
from tests.unit.api_gateway.engine.relay.bench import BRIEF_MS, SHARD, Bench
from tests.waiting import eventually


@pytest.mark.parametrize("change", [{"epoch": 2}, {"run": "run-2"}, {"epoch": None}])
async def test_an_outbox_that_was_exchanged_is_not_read_on_at_the_old_number(change: dict[str, Any]) -> None:
    """The relay stood still while the shard was rebuilt, or Redis failed over. What is there has another identity."""
    bench = Bench(1, lease_ms=BRIEF_MS, published=0)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()  # so that nothing else tells it
        for name, value in change.items():
            setattr(bench.redis.cursors, name, value)
        bench.redis.entries = [2]
        bench.relay.notice(SHARD)

        async def forgotten() -> bool:
            return not bench.relay.owned_shards()

        await eventually(forgotten, seconds=30)
        assert bench.stream.ids == [1]
        bench.redis.cursors.published, bench.redis.entries = 0, [1, 2]
        bench.scripts.may_lease.set()
        if bench.redis.cursors.epoch is None:
            await asyncio.sleep(0.1)
            assert bench.stream.ids == [1]
            return
        await bench.reached(2)
    lineage = Lineage(bench.redis.cursors.run, bench.redis.cursors.epoch)
    assert {moved for moved, _ in bench.moves[1:]} == {lineage}


async def test_nothing_is_published_after_the_lease_ran_out() -> None:
    """Renewing it takes too long, or the process stood still: meanwhile the shard may be another's, and rebuilt."""
    bench = Bench(1, lease_ms=BRIEF_MS)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()
        await asyncio.sleep(0.2)
        bench.redis.entries.append(2)
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.1)
        assert bench.stream.ids == [1]
        bench.scripts.may_lease.set()
        await bench.reached(2)


async def test_a_lease_that_cannot_be_renewed_leaves_the_others_theirs() -> None:
    bench = Bench(1)
    lease = bench.scripts.lease
    broken = next(at for at, shard in enumerate(names.SHARDS) if shard != SHARD)

    async def fail(*asked: Any, **more: Any) -> list[Any]:
        answers: list[Any] = await lease(*asked, **more)
        answers[broken] = ResponseError("WRONGTYPE")
        return answers

    bench.scripts.lease = fail  # type: ignore[method-assign]
    async with bench.running():
        await bench.reached(1)
        await eventually(lambda: bench.relay.health.failures_total > 0)
        assert list(bench.relay.owned_shards()) == [SHARD]


async def test_a_shard_whose_lease_cannot_be_renewed_is_no_longer_ours() -> None:
    bench = Bench(1, lease_ms=BRIEF_MS)
    lease = bench.scripts.lease

    async def fail(*asked: Any, **more: Any) -> list[Any]:
        return [ResponseError("WRONGTYPE") if ours else ours for ours in await lease(*asked, **more)]

    async with bench.running():
        await bench.reached(1)
        bench.scripts.lease = fail  # type: ignore[method-assign]
        await eventually(lambda: not bench.relay.owned_shards())


READ_ONLY = ResponseError("READONLY")


@pytest.mark.parametrize(
    ("told", "results"),
    [
        ([], [True, True]),
        ([2, 1], [True, False]),
        ([1, READ_ONLY], [READ_ONLY, True]),
        ([1, NodeAway("away"), 2, READ_ONLY], [False, READ_ONLY]),
    ],
)
async def test_a_lease_is_ours_where_redis_tells_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch, told: list[Any], results: list[Any]
) -> None:
    async def run_all(script: Script, redis: Any, calls: list[Call]) -> list[Any]:
        return [told]

    monkeypatch.setattr(Script, "run_all", run_all)
    assert await ShardScripts(cast(Any, None)).lease(names.SHARDS[:2], "mine", 6_000) == results


@pytest.mark.parametrize("told", [READ_ONLY, [1, READ_ONLY, 2, READ_ONLY]])
async def test_no_lease_is_known_where_all_fail(monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    async def run_all(script: Script, redis: Any, calls: list[Call]) -> list[Any]:
        return [told]

    monkeypatch.setattr(Script, "run_all", run_all)
    with pytest.raises(ResponseError, match="READONLY"):
        await ShardScripts(cast(Any, None)).lease(names.SHARDS[:2], "mine", 6_000)
    with pytest.raises(ResponseError, match="READONLY"):
        await ShardScripts(cast(Any, None)).find_unpublished(names.SHARDS[:2], stream_id="one", last_seq=7)


def stand_still() -> None:
    """Past the lease of a bench."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + 0.2
    while loop.time() < until_s:
        pass


async def test_entries_that_were_read_before_the_process_stood_still_are_not_published() -> None:
    bench = Bench(1, lease_ms=BRIEF_MS)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()
        await asyncio.sleep(0.1)
        published_before = len(bench.stream.published)
        bench.redis.entries.append(2)
        bench.redis.on_read = stand_still
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.1)
        assert len(bench.stream.published) == published_before
        bench.redis.on_read = lambda: None
        bench.scripts.may_lease.set()
        await bench.reached(2)


async def test_when_the_process_stands_still_in_the_middle_the_other_entries_are_not_published() -> None:
    bench = Bench(1, lease_ms=BRIEF_MS)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()
        bench.stream.on_publish = stand_still
        bench.redis.entries += [2, 3]
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.1)
        assert 3 not in bench.stream.ids
        bench.stream.on_publish = lambda: None
        bench.scripts.may_lease.set()
        await bench.reached(3)


async def test_a_lease_that_comes_back_after_it_ran_out_is_begun_at_the_cursor() -> None:
    """1. This relay has published three entries, and loses Redis. 2. The stream is lost; another relay goes back to the
    archived cursor, and dies. 3. This one has its lease again: what it knew of the cursor is over."""
    bench = Bench(1, 2, 3, lease_ms=BRIEF_MS)
    async with bench.running():
        await bench.reached(3)

        def away() -> None:
            raise ConnectionError("Redis is away")

        bench.redis.on_read = away
        bench.scripts.may_lease.clear()
        # Long past the end of a lease that was asked for just now.
        await asyncio.sleep(4 * BRIEF_MS / 1_000)
        bench.redis.cursors.published, bench.redis.cursors.stream_id = 0, "two"
        bench.redis.cursors.stream_seq, bench.stream.created = 0, "two"
        bench.redis.entries.append(4)
        published_before = len(bench.stream.ids)
        bench.redis.on_read = lambda: None
        bench.scripts.may_lease.set()
        await bench.reached(4)
    assert bench.stream.ids[published_before:] == [1, 2, 3, 4]


async def test_what_was_on_its_way_when_a_shard_was_left_is_not_settled() -> None:
    """NATS does not answer, and answers after all: meanwhile anybody may have taken the shard."""
    bench = Bench(1, lease_ms=BRIEF_MS)
    async with bench.running():
        await bench.reached(1)
        bench.stream.is_connected = False

        async def has_left() -> bool:
            return bench.relay.health.cut_off and bench.scripts.holds[-1] == "leave"

        await eventually(has_left)
        # Nobody has taken it, so its items are closed here.
        await eventually(lambda: set(bench.relay.owned_shards()) == {SHARD})
        bench.redis.entries.append(2)
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.05)
        assert bench.stream.ids == [1]
        bench.scripts.may_lease.clear()  # so that it goes on leaving
        bench.stream.is_connected = True
        await asyncio.sleep(0.1)
        assert bench.stream.ids == [1], "it is not its own again before Redis has said so"
        bench.scripts.may_lease.set()
        await bench.reached(2)
    assert bench.scripts.holds[-1] == "take"
    assert not bench.relay.health.cut_off


async def test_a_shard_that_another_gateway_took_is_not_taken_back() -> None:
    bench = Bench(1, lease_ms=BRIEF_MS)

    async def is_cut_off() -> bool:
        return bench.relay.health.cut_off

    async def has_lost_it() -> bool:
        return not bench.relay.owned_shards()

    async def is_back() -> bool:
        return not bench.relay.health.cut_off

    async with bench.running():
        await bench.reached(1)
        bench.stream.is_connected = False
        await eventually(is_cut_off)
        bench.scripts.is_ours = False
        await eventually(has_lost_it)
        bench.stream.is_connected = True
        await eventually(is_back)
        bench.redis.entries.append(2)
        await asyncio.sleep(0.1)
    assert bench.stream.ids == [1]
