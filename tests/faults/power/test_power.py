"""Row 40 of the table in docs/guarantees.md: NATS and PostgreSQL lose power, and with it what was not forced to disk.

Where root may mount, a server's folder is a file system of its own, of which a copy is kept that lacks what is only in
the memory of the kernel. Elsewhere NATS gets an older copy of its folder back, which is more than power ever takes.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import httpx2 as httpx
import pytest

from infrastructure.local.services import ARCHIVAL_WORKER
from shared.names import shard_of
from shared.redis_layout.keys import cursors_key
from tests.faults.partitions.links import Line, Links
from tests.faults.rig.disks import needs_own_disk, own_disk_or_skip
from tests.faults.rig.harness import FaultRun, fault_run
from tests.faults.rig.history import violations
from tests.stack import StackFactory
from tests.waiting import eventually

_TO_POSTGRES = Line(ARCHIVAL_WORKER, "postgres")
_QUIET = "quiet"


async def test_row_40_nats_forgets_its_newest_messages(start_stack: StackFactory) -> None:
    """An older copy of its folder, and no moment's rest: busy shards have passed the place where the stream ended
    before anybody looks, and one shard has had its only bid, which nothing follows that would show the hole."""
    async with fault_run(start_stack) as run, httpx.AsyncClient(timeout=20) as http:
        await run.create({_QUIET: {}})
        async with run.bidders.bidding():
            await run.bidders.more(20)
            await run.kill(ARCHIVAL_WORKER)
            kept = _copy_of_nats(run)
            await _quiet_bid(run, http)
            await run.bidders.more(run.some(40, 80))
            await run.kill("nats")
            _put_back(run, kept)
            await run.start("nats")
            await run.start(ARCHIVAL_WORKER)
            await run.bidders.more(40)
        await run.prove()


async def _quiet_bid(run: FaultRun, http: httpx.AsyncClient) -> None:
    outcome = await run.bidders.place(http, run.stack.urls.gateway_url, "quiet-1", _QUIET, "ann", 100)
    assert outcome == "ok"


def _copy_of_nats(run: FaultRun) -> Path:
    """Its folder as it is at one moment."""
    run.suspend("nats")
    kept = run.stack.data_dir / "nats.kept"
    shutil.copytree(run.stack.data_dir / "nats", kept)
    run.resume("nats")
    return kept


def _put_back(run: FaultRun, kept: Path) -> None:
    folder = run.stack.data_dir / "nats"
    shutil.rmtree(folder)
    kept.rename(folder)
    run.fault("NATS has an older copy of its folder")


@pytest.mark.faults
@pytest.mark.timeout(300)
@needs_own_disk
async def test_row_40_nats_loses_power(start_stack: StackFactory) -> None:
    """With what `bidding up` sets, a flush each 10 s: what is lost is in the outbox still."""
    async with fault_run(start_stack) as run:
        await run.stack.stop_process("nats")
        with own_disk_or_skip(run.stack.data_dir / "nats", megabytes=8_192) as disk:
            await run.start("nats")
            async with run.bidders.bidding():
                await run.bidders.more(20)
                await run.kill(ARCHIVAL_WORKER)
                for _ in range(2):
                    os.sync()
                    await run.bidders.more(run.some(30, 60))
                    run.suspend("nats")
                    disk.cut_power()
                    run.fault("NATS loses power")
                    await run.kill("nats")
                    disk.power_again()
                    await run.start("nats")
                    await run.bidders.more(20)
                await run.start(ARCHIVAL_WORKER)
                await run.bidders.more(20)
            await run.prove()
            await run.stack.stop_process("nats")


@pytest.mark.faults
@pytest.mark.timeout(300)
@needs_own_disk
@pytest.mark.parametrize(("sync", "loses"), [("always", False), ("1h", True)])
async def test_row_40_nats_loses_power_and_redis_everything(
    start_stack: StackFactory, monkeypatch: pytest.MonkeyPatch, sync: str, loses: bool
) -> None:
    """`BID_ACK=log` on one machine: where NATS forces each message to disk before it confirms it, what was acknowledged
    survives the loss of Redis *and* of NATS' power, as the only place of it is that disk. Elsewhere the judge must see
    the loss."""
    monkeypatch.setenv("NATS_SYNC_INTERVAL", sync)
    async with fault_run(start_stack, viewers=0, env={"BID_ACK": "log"}) as run:
        await run.stack.stop_process("nats")
        with own_disk_or_skip(run.stack.data_dir / "nats", megabytes=8_192) as disk:
            await run.start("nats")
            async with run.bidders.bidding():
                await run.bidders.more(20)
                await run.kill(ARCHIVAL_WORKER)
                os.sync()
                await run.bidders.more(run.some(30, 60), within_s=60)
                run.suspend("nats")
                disk.cut_power()
                await run.kill("nats")
                async with run.redis() as redis:
                    await redis.flushall()
                    run.lost()
                run.fault("NATS has lost power and Redis everything")
                disk.power_again()
                await run.start("nats")
                await run.start(ARCHIVAL_WORKER)
                await run.bidders.told("BEING_REBUILT", 5, within_s=60)
                code, said = await run.recover()
                assert code == 0, said
                await run.bidders.more(20, within_s=60)
            if loses:
                found = [violation for history in await run.settle() for violation in violations(history)]
                assert any("acknowledged bids are lost" in violation for violation in found), found
            else:
                await run.prove()
            await run.stack.stop_process("nats")


async def _archived(run: FaultRun) -> int:
    """How many entries of the run's shards PostgreSQL has said that it stored."""
    async with run.redis() as redis:
        shards = {*map(shard_of, run.items)}
        return sum([int(await redis.hget(cursors_key(shard), "archived") or 0) for shard in shards])


async def _has_archived_more(run: FaultRun, entries: int) -> bool:
    return await _archived(run) > entries


@pytest.mark.faults
@pytest.mark.timeout(300)
@needs_own_disk
@pytest.mark.parametrize(("fsync", "loses"), [("on", False), ("off", True)])
async def test_row_40_postgresql_loses_power(start_stack: StackFactory, fsync: str, loses: bool) -> None:
    """What is committed is no longer in the outbox, so PostgreSQL's disk is the only place of it.

    The power goes after the last answer that the archiver could hear: what is answered later, it never learns. With
    `fsync` off the judge must see the loss.
    """
    async with Links() as links, fault_run(start_stack, viewers=0, lines=links.between) as run:
        await run.stack.stop_process("postgres")
        folder = run.stack.data_dir / "postgres"
        with (folder / "postgresql.conf").open("a") as settings:
            settings.write(f"\nfsync = {fsync}\n")
        with own_disk_or_skip(folder, megabytes=512) as disk:
            await run.start("postgres")
            async with run.bidders.bidding():
                await run.bidders.more(20)
                os.sync()
                on_disk = await _archived(run)
                for _ in range(1 if loses else 3):
                    await run.bidders.more(run.some(40, 80))
                    if loses:
                        # Only what the archiver knows to be stored can be lost.
                        await eventually(lambda: _has_archived_more(run, on_disk))
                    links.part(_TO_POSTGRES, "no answers")
                    disk.cut_power()
                    run.fault("PostgreSQL loses power")
                    await run.kill("postgres")
                    disk.power_again()
                    await run.start("postgres")
                    links.proxies[_TO_POSTGRES].heal(late=False)
                    await run.bidders.more(20)
            if loses:
                # What was last on its way to the disk is gone: bids, or only the event that an item was made.
                found = [violation for history in await run.settle(within_s=10) for violation in violations(history)]
                assert any("are lost" in violation or "not in PostgreSQL" in violation for violation in found), found
            else:
                await run.prove()
            for name in (ARCHIVAL_WORKER, "postgres"):
                await run.stack.stop_process(name)
