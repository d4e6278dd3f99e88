"""Row 28 of the table in docs/guarantees.md, a full disk, and the loss of power: with the setting that survives it and
with one that does not, which the judge must catch."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import asyncpg
import pytest

from infrastructure.local.servers.redis_and_nats import AppendFsync
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from tests.faults.rig.disks import limit_files, needs_own_disk, needs_prlimit, own_disk_or_skip
from tests.faults.rig.harness import FaultRun, fault_run
from tests.faults.rig.history import violations
from tests.faults.rig.proxy import FaultyProxy
from tests.stack import StackFactory, new_data_dir
from tests.waiting import eventually

_WAL_SEGMENT_BYTES = 16 * 1024**2
_PAGE_BYTES = 8 * 1024
# Less than a file of the write-ahead log, more than the 1 MB of shared memory that a start of PostgreSQL takes. That
# memory is a file for the kernel, no disk that is full denies it, and PostgreSQL may hang where it does not get it.
_FILE_BYTES = 4 * 1024**2

# Seven rows of 1,160 bytes, with ids of six letters, fill a page to the last 20 bytes: the table grows faster than its
# indexes, and no page of it has room left.
_FILL = """
INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, leader_id, placed_at)
SELECT $3, 1, n, lpad(n::text, 8, '0'), 'nobody', n, n - 1, 'bid', repeat(md5(n::text), 33), now()
FROM generate_series($1::bigint, $2::bigint) AS n
"""


@needs_prlimit
async def test_row_28_the_disk_is_full_under_redis(start_stack: StackFactory) -> None:
    """Its file may not grow: Redis ends instead of acknowledging what is not on disk. Then there is space again."""
    async with fault_run(start_stack) as run:
        async with run.bidders.bidding():
            await run.bidders.more(run.some(30, 60))
            size = _append_only_file(run).stat().st_size
            limit_files(_pid(run, "redis"), size + 2_000)
            run.fault(f"the append-only file has {size} bytes and may grow by 2,000")
            await run.died("redis")
            await run.bidders.told("UNAVAILABLE", 50)
            await run.start("redis")
            await run.bidders.more(30)
        await run.prove()


@pytest.mark.faults
@needs_prlimit
async def test_row_28_the_files_of_nats_may_not_grow(start_stack: StackFactory) -> None:
    """NATS lives on, takes nothing, and says why. Bids do not notice; started again with room, it takes everything."""
    async with fault_run(start_stack) as run:
        async with run.bidders.bidding():
            await run.bidders.more(run.some(30, 60))
            size = max(path.stat().st_size for path in (run.stack.data_dir / "nats").rglob("*.blk"))
            limit_files(_pid(run, "nats"), size + 2_000)
            run.fault(f"the largest file of NATS has {size} bytes and may grow by 2,000")
            await _says(run, "nats", "file too large")
            await run.bidders.more(run.some(50, 100))
            await _says(run, API_GATEWAY, "relay: publish: ")
            await run.stack.restart("nats")
            run.note("nats was started again, without the limit")
            await run.bidders.more(20)
        await run.prove()
        assert set(run.bidders.codes) == {"ok", "refused"}, run.bidders.codes


@pytest.mark.faults
@needs_own_disk
async def test_row_28_the_disk_is_full_under_nats(start_stack: StackFactory) -> None:
    """A disk without space: NATS lives on and takes nothing. Bids do not notice; with room again everything arrives."""
    async with fault_run(start_stack) as run:
        await run.stack.stop_process("nats")
        # Thin: the file takes as much as is written, and NATS reserves 2 GB for the stream.
        with own_disk_or_skip(run.stack.data_dir / "nats", megabytes=8_192) as disk:
            await run.start("nats")
            async with run.bidders.bidding():
                await run.bidders.more(run.some(30, 60))
                disk.fill(but_bytes=32 * 1024)
                run.fault("the disk of NATS has 32 KB left")
                await asyncio.gather(_says(run, "nats", "no space left on device"), run.bidders.more(600, within_s=60))
                await run.bidders.more(run.some(50, 100))
                await _says(run, API_GATEWAY, "relay: publish: ")
                disk.make_room()
                run.note("the disk has space again")
                await run.stack.restart("nats")
                await run.bidders.more(20)
            await run.prove()
            await run.stack.stop_process("nats")
        assert set(run.bidders.codes) == {"ok", "refused"}, run.bidders.codes


@pytest.mark.faults
@needs_prlimit
async def test_row_28_the_disk_is_full_under_postgresql(start_stack: StackFactory) -> None:
    """First its tables cannot grow, then its log cannot be written, and it gives up. Bids do not notice.

    After the first it goes on as soon as there is space, after the second as soon as it is started again; nothing else
    is.
    """
    # The files of the log of a copied database are too small to hit the limit.
    async with fault_run(start_stack, data_dir=new_data_dir()) as run, run.postgres() as postgres:
        async with run.bidders.bidding():
            await run.bidders.more(20)
            for index, part in enumerate(await _parts_of(postgres, run.items)):
                filler = await _item_in(postgres, part, first_number=index * 1_000)
                await _fill_up_to(postgres, part, _WAL_SEGMENT_BYTES, filler)
            limit_files(_pid(run, "postgres"), _WAL_SEGMENT_BYTES)
            run.fault("the table of bids cannot grow by more than a page")
            await asyncio.gather(
                _says(run, ARCHIVAL_WORKER, "could not extend file"), run.bidders.more(600, within_s=60)
            )
            await run.bidders.more(run.some(30, 60))
            limit_files(_pid(run, "postgres"), -1)
            run.note("there is space again")
            await eventually(lambda: _all_archived(run, postgres), seconds=60)
            limit_files(_pid(run, "postgres"), len(run.log("postgres")) + _FILE_BYTES)
            run.fault("no file can grow past 4 MB, the write-ahead log among them")
            await asyncio.gather(
                _write_ahead(postgres), run.died("postgres", within_s=60), run.bidders.more(50, within_s=60)
            )
            assert "PANIC" in run.log("postgres")
            await run.bidders.more(run.some(30, 60))
            await run.start("postgres")
            await run.bidders.more(20)
        await run.prove()
        assert set(run.bidders.codes) == {"ok", "refused"}, run.bidders.codes


async def _parts_of(postgres: asyncpg.Connection, items: Sequence[str]) -> list[str]:
    """The tables that have the bids of these items; the bids of each item are in one of them."""
    await eventually(lambda: _have_bids(postgres, items), seconds=60)
    rows = await postgres.fetch("SELECT DISTINCT tableoid::regclass::text FROM bids WHERE item_id = ANY($1)", items)
    return [row[0] for row in rows]


async def _have_bids(postgres: asyncpg.Connection, items: Sequence[str]) -> bool:
    found = await postgres.fetchval("SELECT count(DISTINCT item_id) FROM bids WHERE item_id = ANY($1)", items)
    return bool(found == len(items))


async def _fill_up_to(postgres: asyncpg.Connection, part: str, size: int, item_id: str) -> None:
    """Bids of an item that nobody looks at, until the table is a page short of the size."""
    rows = 0
    while (
        missing := size - await postgres.fetchval("SELECT pg_relation_size($1::text::regclass)", part)
    ) > _PAGE_BYTES:
        more = max(1, missing // _PAGE_BYTES - 3) * 7
        await postgres.execute(_FILL, rows, rows + more - 1, item_id)
        rows += more
        assert rows * 1_000 < 2 * size, "these rows are in another table"


async def _item_in(postgres: asyncpg.Connection, part: str, *, first_number: int) -> str:
    """An id whose bids are in this table, of as many letters as ``_FILL`` counts with."""
    for number in itertools.count(first_number):
        item_id = f"{number:06d}"
        transaction = postgres.transaction()
        await transaction.start()
        await postgres.execute(_FILL, 0, 0, item_id)
        found = await postgres.fetchval("SELECT tableoid::regclass::text FROM bids WHERE item_id = $1", item_id)
        await transaction.rollback()
        if found == part:
            return item_id
    raise AssertionError("an endless count has ended")


async def _write_ahead(postgres: asyncpg.Connection) -> None:
    """Write into the log of writes alone, until the server is gone.

    Bids need not get there: where the log has just begun a new file, its first 4 MB are room enough for what is left
    of transactions that fail for want of room in a table.
    """
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        while True:
            await postgres.execute("SELECT pg_logical_emit_message(true, 'fault', repeat('x', 20000))")


async def _all_archived(run: FaultRun, postgres: asyncpg.Connection) -> bool:
    """Whether what was in the outbox a moment ago is archived."""
    newest = max((request.seq or 0 for request in run.bidders.requests[run.items[0]]), default=0)
    return bool(await postgres.fetchval("SELECT max(seq) >= $2 FROM bids WHERE item_id = $1", run.items[0], newest))


async def _says(run: FaultRun, name: str, text: str) -> None:
    """Wait until a process has written something into its log."""

    async def says_so() -> bool:
        return text in run.log(name)

    await eventually(says_so, seconds=60)
    run.note(f"{name} says {text!r}")


def _pid(run: FaultRun, name: str) -> int:
    pid = run.stack.pid(name)
    assert pid is not None
    return pid


def _drop_what_was_not_written(file: Path) -> None:
    """Redis does not start where there is anything else than commands; its own tool for repairs cuts the file likewise.

    What the file system had given to the file without anything being written there is zeros.
    """
    written, _, _ = file.read_bytes().partition(b"\0")
    os.truncate(file, len(written))


def _append_only_file(run: FaultRun) -> Path:
    """The one that Redis writes to: from version 7 on one of several."""
    folder = run.stack.data_dir / "redis"
    parts = sorted((folder / "appendonlydir").glob("*.incr.aof"))
    return parts[-1] if parts else folder / "appendonly.aof"


async def test_what_was_acknowledged_is_in_the_file_before_its_answer(start_stack: StackFactory) -> None:
    """`appendfsync always`, and a loss of power that takes everything behind the last answer which left Redis.

    The file is cut to the length that it had when that answer passed the proxy: what was written after it may be lost,
    in the middle of a command even, and nobody was told of it.
    """
    async with fault_run(start_stack, viewers=0) as run, FaultyProxy(run.stack.ports.redis) as proxy:
        lengths = [0]
        proxy.on_answer = lambda: lengths.append(_append_only_file(run).stat().st_size)
        env = {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        for name in (API_GATEWAY, ARCHIVAL_WORKER):
            await run.reconfigure(name, **env)
        async with run.bidders.bidding():
            for _ in range(3):
                await run.bidders.more(30)
                # What is decided from here on is in Redis' file and nowhere else.
                await run.kill("nats")
                await run.bidders.more(run.some(20, 60))
                async with proxy.eating_answers():
                    await proxy.ate()
                    await run.kill("redis")
                    cut = run.some(lengths[-1], _append_only_file(run).stat().st_size)
                    os.truncate(_append_only_file(run), cut)
                    run.fault(f"power lost: {lengths[-1]} bytes were needed for the last answer, {cut} are left")
                # A Redis that was started is used again only once NATS can tell that it is no older copy.
                await run.start("nats")
                await run.start("redis")
            await run.bidders.more(30)
        await run.prove()


async def _rebuilt(run: FaultRun) -> None:
    """The gateway has seen what this Redis lacks now, so it takes no bids on what went back before it is rebuilt."""
    run.lost()
    await run.bidders.told("BEING_REBUILT", 10)
    code, text = await run.recover()
    assert code == 0, text


async def test_an_unsafe_setting_is_seen_to_lose_bids(start_stack: StackFactory) -> None:
    """`appendfsync no`, and a loss of power: the tail of the file that no fsync has confirmed is gone.

    A process that is killed leaves its writes to the kernel, so the loss of power is made by hand: the file is cut to
    the length that it had when something last forced it to disk. NATS is away, so the outbox is all there was.
    """
    async with fault_run(start_stack, viewers=0, redis_appendfsync="no") as run:
        async with run.bidders.bidding():
            await run.bidders.more(30)
            await run.kill("nats")
            descriptor = os.open(_append_only_file(run), os.O_RDONLY)
            os.fsync(descriptor)
            on_disk = os.fstat(descriptor).st_size
            os.close(descriptor)
            run.note(f"{on_disk} bytes of the append-only file are on disk for certain")
            await run.bidders.more(run.some(60, 120))
            await run.kill("redis")
            os.truncate(_append_only_file(run), on_disk)
            run.fault("power lost")
            await run.start("nats")
            await run.start("redis")
            await _rebuilt(run)
            await run.bidders.more(30)
        found = [violation for history in await run.settle() for violation in violations(history)]
        assert any("acknowledged bids are lost" in violation for violation in found), found


@pytest.mark.faults
@needs_own_disk
@pytest.mark.parametrize(("fsync", "loses"), [("always", False), ("no", True)])
async def test_a_disk_that_forgets_what_was_not_forced_onto_it(
    start_stack: StackFactory, fsync: AppendFsync, loses: bool
) -> None:
    """The same with a file system of Redis' own: what is on its disk, and not in the memory of the kernel, is kept.

    So it is the fsync itself that is tested: with `always` nothing is lost, with `no` the judge must see a loss.
    """
    async with fault_run(start_stack, viewers=0, redis_appendfsync=fsync) as run:
        await run.stack.stop_process("redis")
        with own_disk_or_skip(run.stack.data_dir / "redis", megabytes=64) as disk:
            await run.start("redis")
            async with run.bidders.bidding():
                await run.bidders.more(30)
                # What is decided from here on is on Redis' disk and nowhere else.
                await run.kill("nats")
                # Soon after it, before the kernel writes by itself.
                os.sync()
                await run.bidders.more(run.some(30, 60))
                run.suspend("redis")
                disk.cut_power()
                run.fault("power lost")
                await run.kill("redis")
                disk.power_again()
                if loses:
                    _drop_what_was_not_written(_append_only_file(run))
                await run.start("nats")
                await run.start("redis")
                if loses:
                    await _rebuilt(run)
                await run.bidders.more(30)
            if loses:
                found = [violation for history in await run.settle() for violation in violations(history)]
                assert any("acknowledged bids are lost" in violation for violation in found), found
            else:
                await run.prove()
            await run.stack.stop_process("redis")
