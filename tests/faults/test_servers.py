"""Rows 7, 8, 10, 11, 13 and 15 of the table in docs/guarantees.md: a server is killed, hangs, is full or emptied."""

from __future__ import annotations

import asyncio
import shutil

import httpx2 as httpx
import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE
from shared.names import shard_of
from shared.redis_layout.keys import cursors_key, outbox_key
from tests.faults.rig.beside import Beside
from tests.faults.rig.harness import FaultRun, fault_run
from tests.faults.rig.outage import OUTAGE_S
from tests.stack import StackFactory
from tests.waiting import eventually


@pytest.mark.faults
async def test_row_07_nats_is_killed_in_a_loop(start_stack: StackFactory) -> None:
    """Bids go on all the while; everything is published and archived afterwards."""
    async with fault_run(start_stack) as run:
        async with run.bidders.bidding():
            for _ in range(4):
                await run.bidders.more(run.some(10, 40))
                await run.kill("nats")
                await run.bidders.more(run.some(10, 40))
                await run.start("nats")
        await run.prove()
        assert set(run.bidders.codes) == {"ok", "refused"}, run.bidders.codes


@pytest.mark.faults
async def test_row_07_nats_stands_still_for_thirty_seconds(start_stack: StackFactory) -> None:
    """The same while it takes connections and answers nothing."""
    async with fault_run(start_stack, bidders=4) as run:
        async with run.bidders.bidding():
            await run.bidders.more(20)
            run.suspend("nats")
            async with asyncio.timeout(60):
                await asyncio.gather(asyncio.sleep(30), run.bidders.more(300, within_s=40))
            run.resume("nats")
            await run.bidders.more(20)
        await run.prove()
        assert set(run.bidders.codes) == {"ok", "refused"}, run.bidders.codes


@pytest.mark.faults
async def test_row_08_nats_loses_its_disk(start_stack: StackFactory) -> None:
    """What was published and not archived yet is in the outbox still: the relay goes back and publishes it again."""
    async with fault_run(start_stack) as run:
        async with run.bidders.bidding():
            await run.bidders.more(30)
            await run.kill(ARCHIVAL_WORKER)
            await run.bidders.more(run.some(50, 100))
            await _published(run)
            await run.kill("nats")
            shutil.rmtree(run.stack.data_dir / "nats")
            run.fault("the data directory of NATS is deleted")
            await run.bidders.more(20)
            await run.start("nats")
            await run.start(ARCHIVAL_WORKER)
            await run.bidders.more(20)
        await run.prove()


async def _published(run: FaultRun) -> None:
    """Wait until JetStream has acknowledged entries that PostgreSQL does not have."""
    async with run.redis() as redis:

        async def ahead() -> bool:
            cursors = [await redis.hmget(cursors_key(shard_of(item)), "published", "archived") for item in run.items]
            run.note(f"published and archived: {cursors}")
            return all(int(published or 0) > int(archived or 0) + 5 for published, archived in cursors)

        await eventually(ahead)


async def test_row_10_redis_is_killed_in_a_burst(start_stack: StackFactory) -> None:
    """Every 201 is there after the restart, and nobody else's bid has its number."""
    async with fault_run(start_stack, bidders=16) as run:
        async with run.bidders.bidding():
            for _ in range(3):
                await run.bidders.more(run.some(30, 90))
                await run.kill("redis")
                await run.start("redis")
            await run.bidders.more(50)
        await run.prove()
        assert run.bidders.codes.keys() & {"UNAVAILABLE", "OUTCOME_UNKNOWN"}, "the kills must have been noticed"


async def test_row_11_a_wiped_redis_takes_no_bids(start_stack: StackFactory) -> None:
    """No item starts again at zero, not even for a client that never heard of it; the archive keeps what it has."""
    async with fault_run(start_stack, viewers=0) as run:
        async with run.bidders.bidding():
            await run.bidders.more(run.some(60, 120))
        before = await run.prove()
        async with run.redis() as redis:
            await redis.flushall()
            run.fault("FLUSHALL")
            accepted = run.bidders.acknowledged
            async with run.bidders.bidding():
                await run.bidders.told("BEING_REBUILT", 100)
            assert run.bidders.acknowledged == accepted
            assert not await redis.exists(*(outbox_key(shard_of(item)) for item in run.items))
        async with httpx.AsyncClient(base_url=run.stack.urls.gateway_url) as http:
            await eventually(lambda: _says_lost(http))
        async with run.postgres() as postgres:
            stored = await postgres.fetchval("SELECT count(*) FROM bids")
        assert stored == sum(len(history.rows) for history in before)


async def test_row_11_a_shard_that_is_not_archived_yet_does_not_begin_anew(start_stack: StackFactory) -> None:
    """Its only bid is acknowledged, and nobody has heard of it: NATS was away. That other shards are known to be lost
    must hold it back, too."""
    async with fault_run(start_stack, viewers=0) as run, run.redis() as redis:
        async with run.bidders.bidding():
            await run.bidders.more(20)
        await run.prove()
        await run.kill(ARCHIVAL_WORKER)
        await run.kill("nats")
        assert shard_of("late") not in {shard_of(item) for item in run.items}
        async with httpx.AsyncClient(base_url=run.stack.urls.gateway_url) as http:
            first = await http.post("/api/v1/items/late/bid", json={"user_id": "ann", "amount": 50})
            assert first.status_code == 201
            await redis.flushall()
            run.fault("FLUSHALL")
            await run.start("nats")

            await eventually(lambda: _says_lost(http))
            again = await http.post("/api/v1/items/late/bid", json={"user_id": "bob", "amount": 1})
            assert (again.status_code, again.json()["code"]) == (503, "BEING_REBUILT")


async def _says_lost(http: httpx.AsyncClient) -> bool:
    ready = await http.get("/ready")
    return ready.status_code == 503 and "were lost" in ready.json()["degraded"].get("shards", "")


async def test_row_13_redis_out_of_memory(start_stack: StackFactory) -> None:
    """A clean 503 for each bid; the price and the outbox agree, and it goes on when there is room."""
    async with fault_run(start_stack, timeout_s=30) as run:
        async with run.bidders.bidding(), run.redis() as redis:
            for _ in range(2):
                await run.bidders.more(run.some(20, 60))
                await redis.config_set("maxmemory", "1mb")
                run.fault("Redis may use 1 MB, less than it does")
                await run.bidders.told("UNAVAILABLE", 50)
                await redis.config_set("maxmemory", "0")
                run.note("Redis may use what it needs")
            await run.bidders.more(30)
        await run.prove()
        assert run.bidders.codes["NO_ANSWER"] == 0


@pytest.mark.faults
async def test_row_15_postgresql_is_killed_and_read_only_for_a_while(start_stack: StackFactory) -> None:
    """Bids do not notice; the archive catches up without a restart of anything else."""
    async with fault_run(start_stack) as run:
        workers = [run.stack.pid(name) for name in (API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE)]
        async with run.bidders.bidding():
            await run.bidders.more(20)
            await run.kill("postgres")
            await run.bidders.more(run.some(100, 200))
            await run.start("postgres")
            await run.bidders.more(20)
            await _read_only(run, "on")
            await run.bidders.more(run.some(100, 200))
            await _read_only(run, "off")
            await run.bidders.more(20)
        await run.prove()
        assert set(run.bidders.codes) == {"ok", "refused"}, run.bidders.codes
        assert [run.stack.pid(name) for name in (API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE)] == workers


async def _read_only(run: FaultRun, value: str) -> None:
    """As after a failover: new transactions may not write, and connections are broken."""
    tell = run.fault if value == "on" else run.note
    tell(f"default_transaction_read_only = {value}")
    async with run.postgres() as postgres:
        database = await postgres.fetchval("SELECT current_database()")
        await postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = {value}")
        await postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()",
            database,
        )


@pytest.mark.faults
@pytest.mark.timeout(OUTAGE_S + 240)
async def test_row_15_postgresql_is_away_for_five_minutes(long_outage: Beside) -> None:
    """Bids do not notice, nothing is restarted, and the archive catches up by itself.

    The run is in ``outage.py``, and began with the first test of the session.
    """
    await long_outage.outcome()
