"""Processes of plain users: start them, hear of them, read their books."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from load_tests.generator.driver import Load, LoadError, books_in, end_group, tail_of
from load_tests.generator.ledger import Latency, Ledger, LedgerError
from load_tests.generator.plain.user import Run
from load_tests.generator.tally import Progress

_READY_S: Final = 60.0


async def run_plain(
    gateway_url: str,
    load: Load,
    folder: Path,
    progress: Callable[[Progress], None],
    *,
    started: Callable[[int], None] = lambda pid: None,
) -> Ledger:
    """Run contended bidders on plain connections, in ``load.processes`` processes, and read their books.

    Args:
        gateway_url: ``http://host:port``; no TLS.
        folder: for the books and the log of the processes; exists.
        progress: called about once a second.
        started: called with the id of each process.

    Raises:
        LoadError: the load is another one than of contended bidders, or a process ended badly.
    """
    host, port = _address_of(gateway_url)
    if load.scenario != "contended":
        raise LoadError(f"plain users know the scenario contended alone, not {load.scenario}")
    log_path = folder / "plain.log"
    processes: list[asyncio.subprocess.Process] = []
    told: dict[int, Progress] = {}

    async def follow(number: int, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        decoder = msgspec.json.Decoder(Progress)
        while line := await process.stdout.readline():
            with contextlib.suppress(msgspec.DecodeError):
                told[number] = decoder.decode(line)
                if number == 0:
                    progress(_together(list(told.values())))
        await process.wait()

    try:
        with log_path.open("wb") as log:
            for run in _runs_of(load, host, port, folder):
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "load_tests.generator.plain", msgspec.json.encode(run).decode()),
                    stdout=asyncio.subprocess.PIPE,
                    stderr=log,
                    cwd=Path(__file__).parents[3],
                    start_new_session=True,
                )
                processes.append(process)
                started(process.pid)
        async with asyncio.timeout(load.most_s + _READY_S), asyncio.TaskGroup() as following:
            for number, process in enumerate(processes):
                following.create_task(follow(number, process))
    except TimeoutError:
        raise LoadError(f"the load did not end in time; {tail_of(log_path)}") from None
    finally:
        for process in processes:
            await end_group(process)
    bad = [process.returncode for process in processes if process.returncode]
    if bad:
        raise LoadError(f"a process of the load ended with exit status {bad[0]}; {tail_of(log_path)}")
    try:
        return books_in(folder)
    except LedgerError as error:
        raise LoadError(f"{error}; {tail_of(log_path)}") from error


def _address_of(gateway_url: str) -> tuple[str, int]:
    parts = urlsplit(gateway_url)
    if parts.scheme != "http" or parts.hostname is None:
        raise LoadError(
            f"plain users need an address such as http://127.0.0.1:8080, not {gateway_url}; use Locust there"
        )
    return parts.hostname, parts.port or 80


def _runs_of(load: Load, host: str, port: int, folder: Path) -> Sequence[Run]:
    """The run of each process, with the users shared as evenly as possible."""
    counts = [load.users // load.processes + (number < load.users % load.processes) for number in range(load.processes)]
    return [
        Run(
            host=host,
            port=port,
            process=number,
            users=users,
            spawn_per_s=load.spawn_per_s * users / load.users,
            run_s=load.run_s,
            item_ids=list(load.item_ids),
            tag=load.tag,
            bid_weight=load.bid_weight,
            look_weight=load.look_weight,
            spread_minor=load.spread_minor,
            think_s=load.think_ms / 1_000,
            pace_s=load.users / load.rate if load.rate else 0.0,
            patience_s=load.patience_s,
            books=str(folder),
        )
        for number, users in enumerate(counts)
    ]


def _together(lines: Sequence[Progress]) -> Progress:
    """One line for all processes. Percentiles cannot be added up: those of the slowest process stand for all."""
    slowest = max((line.latency for line in lines), key=lambda times: times.p99_ms, default=Latency())
    return Progress(
        seconds=max(line.seconds for line in lines),
        users=sum(line.users for line in lines),
        bids_per_s=sum(line.bids_per_s for line in lines),
        accepted=sum(line.accepted for line in lines),
        refused=sum(line.refused for line in lines),
        unknown=sum(line.unknown for line in lines),
        failures=sum(line.failures for line in lines),
        latency=slowest,
    )
