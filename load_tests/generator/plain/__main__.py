"""The process: ``python -m load_tests.generator.plain '{"host":…}'``, with a :class:`Run` as JSON.

Each second is written to standard output as one JSON line, and the books to ``<books>/ledger-<process>.json``, also
where SIGTERM ends the run early.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from pathlib import Path

import click
import msgspec
import uvloop

from load_tests.generator.ledger import write_ledger
from load_tests.generator.plain.user import Run, User
from load_tests.generator.tally import PROGRESS_INTERVAL_S, Progress, Tally

_CONNECTING_MAX = 64


async def work(run: Run) -> None:
    """Bring the users, let them act, wait for their last answers, and write the books."""
    tally = Tally(run.item_ids)
    users: list[User] = []
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    reporting = asyncio.create_task(_report(tally, users, time.monotonic()))
    with contextlib.suppress(TimeoutError):
        await _bring(run, tally, users, stop)
        if not stop.is_set():
            tally.open_window()
            async with asyncio.timeout(run.run_s):
                await stop.wait()
    tally.close_window()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(run.patience_s):
            await asyncio.gather(*(user.stop() for user in users))
    for user in users:
        user.leave()
    await asyncio.sleep(0)  # lets the transports tell the users that they are closed
    reporting.cancel()
    write_ledger(Path(run.books) / f"ledger-{run.process}.json", tally.close())


async def _bring(run: Run, tally: Tally, users: list[User], stop: asyncio.Event) -> None:
    began_s = time.monotonic()
    gate = asyncio.Semaphore(_CONNECTING_MAX)

    async def bring(user: User) -> None:
        async with gate:
            await user.connect()

    async with asyncio.TaskGroup() as coming:
        for number in range(1, run.users + 1):
            ahead_s = began_s + number / run.spawn_per_s - time.monotonic()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            if stop.is_set():
                return
            users.append(User(run, tally, number))
            coming.create_task(bring(users[-1]))


async def _report(tally: Tally, users: list[User], began_s: float) -> None:
    before_s, verdicts_before = began_s, 0
    while True:
        await asyncio.sleep(PROGRESS_INTERVAL_S)
        for user in users:
            user.lose_patience()
        now_s = time.monotonic()
        verdicts = tally.accepted + tally.refused
        line = Progress(
            seconds=now_s - began_s,
            users=len(users),
            bids_per_s=(verdicts - verdicts_before) / (now_s - before_s),
            accepted=tally.accepted,
            refused=tally.refused,
            unknown=tally.unknown,
            failures=tally.failures,
            latency=tally.latency,
        )
        click.echo(msgspec.json.encode(line))
        before_s, verdicts_before = now_s, verdicts


if __name__ == "__main__":
    uvloop.run(work(msgspec.json.decode(sys.argv[1], type=Run)))
