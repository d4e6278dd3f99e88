"""Rows 3, 4, 5, 6, 9 and 12 of the table in docs/guarantees.md: between a bid and its event's publication."""

from __future__ import annotations

import asyncio

import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared.names import STREAM, shard_of
from shared.redis_layout.keys import cursors_key
from tests.faults.rig.harness import fault_run
from tests.faults.rig.proxy import FaultyProxy
from tests.stack import StackFactory
from tests.waiting import eventually


async def test_row_03_answers_of_redis_that_get_lost(start_stack: StackFactory) -> None:
    """The scripts ran, nobody heard of it: each bid is found by its key, or repeated, and never accepted twice."""
    async with fault_run(start_stack) as run, FaultyProxy(run.stack.ports.redis) as proxy:
        await run.reconfigure(API_GATEWAY, REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0")
        async with run.bidders.bidding():
            for _ in range(3):
                await run.bidders.more(run.some(20, 60))
                async with proxy.eating_answers():
                    run.fault("the answers of Redis are eaten")
                    await proxy.ate()
                    if run.chance.random() < 0.5:
                        await asyncio.sleep(run.chance.uniform(0, 1.2))
                run.note(f"{proxy.eaten} bytes eaten, connections cut")
            await run.bidders.more(50)
        await run.prove()
        assert proxy.eaten > 0
        assert proxy.cuts > 0


@pytest.mark.faults
async def test_row_03_a_line_to_redis_that_is_slow_and_breaks(start_stack: StackFactory) -> None:
    """Answers come late, connections are cut in the middle, and for a while there are none."""
    async with fault_run(start_stack) as run, FaultyProxy(run.stack.ports.redis) as proxy:
        await run.reconfigure(API_GATEWAY, REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0")
        async with run.bidders.bidding():
            for _ in range(3):
                await run.bidders.more(run.some(20, 60))
                proxy.delay_s = run.chance.uniform(0.02, 0.1)
                run.fault(f"answers take {proxy.delay_s:.3f} s longer")
                await run.bidders.more(run.some(20, 60))
                run.fault("connections cut")
                proxy.cut()
                proxy.delay_s = 0.0
                await run.bidders.more(run.some(20, 60))
                async with proxy.away():
                    run.fault("Redis cannot be reached")
                    await run.bidders.told("UNAVAILABLE", 20)
            await run.bidders.more(50)
        await run.prove()


@pytest.mark.faults
@pytest.mark.parametrize("place", ["bids.decided", "relay.published", "relay.advanced"])
async def test_rows_04_and_05_the_gateway_dies_between_two_steps(start_stack: StackFactory, place: str) -> None:
    """Between the script and its answer; between PubAck and cursor; between cursor and everything after it."""
    async with fault_run(start_stack) as run:
        async with run.bidders.bidding():
            await run.bidders.more(run.some(20, 60))
            await run.crash_at(API_GATEWAY, place, times=run.some(3, 30))
            await run.bidders.more(50)
        assert run.bidders.codes["NO_ANSWER"] > 0, "the crash must have hit requests in flight"
        await run.prove()


@pytest.mark.faults
async def test_row_04_the_gateway_is_killed_before_the_relay_published(start_stack: StackFactory) -> None:
    """With NATS away nothing can be published: all that the killed gateway acknowledged is in the outbox alone."""
    async with fault_run(start_stack) as run:
        async with run.bidders.bidding():
            await run.bidders.more(20)
            await run.kill("nats")
            await run.bidders.more(run.some(50, 100))
            await run.kill(API_GATEWAY)
            await run.start("nats")
            await run.start(API_GATEWAY)
            await run.bidders.more(20)
        await run.prove()


@pytest.mark.faults
async def test_row_06_two_relays_that_both_believe_to_own_a_shard(start_stack: StackFactory) -> None:
    """One gateway is suspended past its lease, another takes the shards over, then the first wakes up."""
    async with fault_run(start_stack) as run:
        first = run.stack.urls.gateway_url
        second = await run.add_gateway("second")
        async with run.redis() as redis, run.bidders.bidding():
            for asleep, awake in ((API_GATEWAY, second), ("second", first)):
                await run.bidders.more(run.some(50, 100))
                before = await redis.mget(run.leases)
                assert len(set(before)) == 1, "one gateway relays all of them"
                run.suspend(asleep)
                run.bidders.gateways = [awake]

                async def taken_over(before: list[bytes | str | None] = before) -> bool:
                    now = await redis.mget(run.leases)
                    return all(new is not None and new != old for new, old in zip(now, before, strict=True))

                await eventually(taken_over, seconds=40)
                run.note("the other gateway has taken the shards over")
                await run.bidders.more(run.some(50, 100))
                run.resume(asleep)
                run.bidders.gateways = [first, second]
            await run.bidders.more(50)
        await run.prove()


@pytest.mark.faults
async def test_row_09_the_outbox_at_its_bound(start_stack: StackFactory) -> None:
    """Bids are refused with Retry-After before memory runs out, nothing is thrown away, and it ends by itself."""
    async with fault_run(start_stack, items=1, env={"OUTBOX_ENTRIES_MAX": "50"}) as run:
        async with run.bidders.bidding(), run.redis() as redis:
            await run.bidders.more(20)
            await run.kill("nats")
            await run.bidders.told("OUTBOX_FULL", 1)
            shard = shard_of(run.items[0])
            full = await redis.xlen(f"{{{shard}}}:outbox")
            run.note(f"the outbox holds {full} entries")
            accepted = run.bidders.acknowledged
            await run.bidders.told("OUTBOX_FULL", 50)
            assert run.bidders.acknowledged <= accepted + run.bidders.codes["NO_ANSWER"]
            assert await redis.xlen(f"{{{shard}}}:outbox") == full
            assert int(run.bidders.headers_of["OUTBOX_FULL"]["retry-after"]) > 0
            await run.start("nats")
            await run.bidders.more(60)
        await run.prove()


@pytest.mark.faults
async def test_row_09_the_stream_is_full(start_stack: StackFactory) -> None:
    """It refuses what is new instead of dropping what is old, the outbox grows to its bound, and then bids are refused.

    Once the archiver is back it makes room in the stream by itself.
    """
    async with fault_run(start_stack, items=1, env={"OUTBOX_ENTRIES_MAX": "80"}) as run, run.jetstream() as jetstream:
        async with run.bidders.bidding(), run.redis() as redis:
            await run.bidders.more(20)
            await run.kill(ARCHIVAL_WORKER)
            before = await jetstream.stream_info(STREAM)
            bound = before.state.bytes + 10_000
            await jetstream.update_stream(before.config, max_bytes=bound)
            run.fault(f"the stream holds {before.state.bytes} bytes and may hold 10,000 more")
            await run.bidders.told("OUTBOX_FULL", 50)
            full = (await jetstream.stream_info(STREAM)).state
            run.note(f"the stream holds {full.bytes} bytes in {full.messages} messages")
            assert bound - 5_000 < full.bytes <= bound
            assert (full.first_seq, full.messages) == (before.state.first_seq, full.last_seq - full.first_seq + 1)
            published, newest = await redis.hmget(cursors_key(shard_of(run.items[0])), ["published", "next"])
            assert int(newest or 0) - int(published or 0) > 20, "the outbox must have grown"
            assert int(run.bidders.headers_of["OUTBOX_FULL"]["retry-after"]) > 0
            assert "maximum bytes exceeded" in run.log(API_GATEWAY)
            await run.start(ARCHIVAL_WORKER)
            await run.bidders.more(10, within_s=60)
            # So little a stream would go on in small steps; what is to be seen has been seen.
            await jetstream.update_stream(before.config, max_bytes=before.config.max_bytes)
            run.note("the stream may hold what it could before")
            await run.bidders.more(30)
        await run.prove()


async def test_row_12_the_scripts_are_flushed_under_load(start_stack: StackFactory) -> None:
    """No client notices. Gateway and clients wait longer than a machine with other work stands still."""
    async with fault_run(start_stack, env={"REDIS_TIMEOUT_MS": "20000"}, timeout_s=30) as run:
        async with run.bidders.bidding(), run.redis() as redis:
            for _ in range(8):
                await run.bidders.more(run.some(10, 30))
                await redis.script_flush()
                run.fault("SCRIPT FLUSH")
            await run.bidders.more(30)
        await run.prove()
        assert set(run.bidders.codes) == {"ok", "refused"}, run.bidders.codes


@pytest.mark.faults
async def test_row_26_gateways_and_broadcaster_restart_one_by_one(start_stack: StackFactory) -> None:
    """No 201 is lost; viewers are told 1012 and come back to where they were."""
    async with fault_run(start_stack) as run:
        second = await run.add_gateway("second")
        run.bidders.gateways.append(second)
        async with run.bidders.bidding():
            for name in (API_GATEWAY, "second", "broadcast_service"):
                await run.bidders.more(run.some(20, 60))
                run.fault(f"{name} restarts in good order")
                await run.stack.restart(name)
            await run.bidders.more(50)
        await run.prove()
        assert all(watcher.close_codes == [1012] for watcher in run.watchers)
        assert all(watcher.connections == 2 for watcher in run.watchers)
