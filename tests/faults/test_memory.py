"""Row 32 of the table in docs/guarantees.md: Redis is full of what NATS has not taken."""

from __future__ import annotations

from typing import Any, cast

import pytest

from infrastructure.local.services import API_GATEWAY
from shared.redis_layout.keys import item_key
from tests.faults.rig.harness import fault_run
from tests.stack import StackFactory
from tests.waiting import eventually

_ROOM_BYTES = 300_000


@pytest.mark.timeout(240)
async def test_row_32_a_full_redis_empties_itself_once_nats_is_back(start_stack: StackFactory) -> None:
    """Meanwhile the gateway is killed, so nobody has the leases, and an item ends. Nobody helps."""
    async with fault_run(start_stack, items=2, viewers=0) as run, run.redis() as redis:
        async with run.bidders.bidding():
            await run.bidders.more(20)
            await run.kill("nats")
            await run.create({"ends": {"duration_s": 12}})
            used = (await redis.info("memory"))["used_memory"]
            await redis.config_set("maxmemory", str(used + _ROOM_BYTES))
            run.fault(f"Redis may use {_ROOM_BYTES} bytes more than it does")
            await run.bidders.told("UNAVAILABLE", 50, within_s=120)
            waiting = sum([await redis.xlen(outbox) for outbox in run.outboxes])
            run.note(f"{waiting} entries wait in the outboxes of a full Redis")
            await run.kill(API_GATEWAY)
            await run.start(API_GATEWAY)

            async def is_closed() -> bool:
                return bool(await cast(Any, redis.hget(item_key("ends"), "status")) == b"unsold")

            await eventually(is_closed, seconds=40)
            run.note("the item that ended is closed")
            assert None not in await redis.mget(run.leases)
            await run.bidders.told("UNAVAILABLE", 20)
            accepted = run.bidders.codes["ok"]
            await run.start("nats")

            async def is_drained() -> bool:
                return sum([await redis.xlen(outbox) for outbox in run.outboxes]) < waiting / 2

            await eventually(is_drained, seconds=60)
            # From when NATS was back: what an accepted bid leaves in Redis soon takes all of the room again.
            await eventually(lambda: run.bidders.codes["ok"] >= accepted + 20, "20 accepted bids", seconds=90)
            await redis.config_set("maxmemory", "0")
            run.note("Redis may use what it needs")
        await run.prove()
