"""Locust as a process: open fresh items, drive them from one or several processes, read their books."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import httpx2 as httpx
import msgspec

from infrastructure.local.servers.ports import HOST, free_ports
from load_tests.concurrency import map_bounded
from load_tests.generator.ledger import Ledger, LedgerError, merge_ledgers, read_ledger
from load_tests.generator.tally import Progress

LOCUSTFILE = Path(__file__).parents[1] / "locustfile.py"
SCENARIOS = LOCUSTFILE.parent / "scenarios"
USERS_PER_PROCESS_MAX: Final = 5_000
"""More share one core badly: gevent takes longer to start them than they bid."""

Scenario = Literal["contended", "reading", "mixed", "viewer", "watching"]

_REQUEST_TIMEOUT_S = 10.0
_OPEN_AT_ONCE = 16
_SPAWN_PER_S_MAX = 500
# Users finish the request that they are in, so Locust waits for the patience of a user, and this much longer.
_LOCUST_STOP_S = 2
# Added to run time and stop time: importing, spawning late, writing the ledger.
_LOCUST_GRACE_S = 60.0
_LOG_TAIL_BYTES = 2_000


class LoadError(Exception):
    """The load could not be made, so there is nothing to prove; the message says what to look at."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to do to the platform.

    ``run_s`` seconds with all ``users`` at work, after the time in which they come; weights and ``spread_minor`` as in
    the hooks of the users; ``think_ms`` is the pause of a user between two actions. ``rate`` above 0 makes it an open
    run of so many actions a second. ``processes`` share the users. ``patience_s`` is how long a user waits for an
    answer.
    """

    users: int
    run_s: int
    item_ids: Sequence[str]
    tag: str
    bid_weight: int = 9
    look_weight: int = 1
    spread_minor: int = 100
    think_ms: int = 0
    scenario: Scenario = "contended"
    rate: float = 0.0
    processes: int = 1
    patience_s: int = 10
    feed_url: str = ""

    @property
    def spawn_per_s(self) -> int:
        """Users that come per second: all of them within two seconds, so that even a short run is mostly under full
        load; crowds take longer."""
        return min(max(1, self.users // 2), _SPAWN_PER_S_MAX)

    @property
    def ramp_s(self) -> int:
        """How long all users take to come, in seconds."""
        return math.ceil(self.users / self.spawn_per_s)

    @property
    def most_s(self) -> float:
        """The longest that the run may take, the coming and the going of users included."""
        return self.ramp_s + self.run_s + self.patience_s + _LOCUST_STOP_S + _LOCUST_GRACE_S


def gateway_client(gateway_url: str) -> httpx.AsyncClient:
    """A client for one gateway; proxies of the environment do not apply to it."""
    return httpx.AsyncClient(base_url=gateway_url, timeout=_REQUEST_TIMEOUT_S, trust_env=False)


async def open_items(client: httpx.AsyncClient, item_ids: Sequence[str], tag: str) -> None:
    """Open the items through the API, so that it works with a closed catalogue too.

    Raises:
        LoadError: the gateway cannot be reached or refuses.
    """

    async def open_one(item_id: str) -> None:
        body = {
            "id": item_id,
            "name": f"Load run {tag}",
            "description": "Opened by a load run.",
            "currency": "USD",
        }
        try:
            response = await client.post("/api/v1/items", json=body)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise LoadError(f"no answer from the gateway at {client.base_url}: {reason}") from error
        if response.status_code != 201:
            raise LoadError(f"cannot open item {item_id}: HTTP {response.status_code} {response.text[:200]}")

    await map_bounded(open_one, item_ids, at_once=_OPEN_AT_ONCE)


async def run_locust(
    gateway_url: str,
    load: Load,
    folder: Path,
    progress: Callable[[Progress], None],
    *,
    tables: Path | None = None,
    started: Callable[[int], None] = lambda pid: None,
) -> Ledger:
    """Run Locust headless in a process of its own and read its books.

    Locust patches the standard library for gevent and therefore cannot live in this process.

    Args:
        folder: for the books and the log of Locust; exists.
        progress: called about once a second.
        tables: Locust's own HTML page and CSV files are written to this path with an ending of their own.
        started: called with the process id of Locust, whose children are its workers.

    Raises:
        LoadError: Locust ended badly, or did not end; the message carries the end of its log.
    """
    log_path = folder / "locust.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *_locust_command(gateway_url, load, folder, tables),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=LOCUSTFILE.parent.parent,
            # Ctrl-C is for this process, which then ends Locust in its own way.
            start_new_session=True,
        )
    started(process.pid)
    try:
        async with asyncio.timeout(load.most_s):
            await _follow(process, progress)
            status = await process.wait()
    except TimeoutError:
        raise LoadError(f"Locust did not end in time; {tail_of(log_path)}") from None
    finally:
        await end_group(process)
    try:
        ledger = books_in(folder)
    except LedgerError as error:
        raise LoadError(f"{error} (exit status {status}); {tail_of(log_path)}") from error
    if status != 0:
        raise LoadError(f"Locust ended with exit status {status}; {tail_of(log_path)}")
    return ledger


def books_in(folder: Path) -> Ledger:
    """The books that the processes of a load have written there, as one. Raises LedgerError: there are none."""
    return merge_ledgers([read_ledger(path) for path in sorted(folder.glob("ledger-*.json"))])


def _locust_command(gateway_url: str, load: Load, folder: Path, tables: Path | None) -> list[str]:
    options: dict[str, str | int | float] = {
        "--locustfile": str(SCENARIOS / f"{load.scenario}.py"),
        "--host": gateway_url,
        "--users": load.users,
        "--spawn-rate": load.spawn_per_s,
        "--run-time": load.ramp_s + load.run_s,
        "--stop-timeout": load.patience_s + _LOCUST_STOP_S,
        # Failures are judged here, with the books at hand.
        "--exit-code-on-error": 0,
        "--items": ",".join(load.item_ids),
        "--run-tag": load.tag,
        "--bid-weight": load.bid_weight,
        "--look-weight": load.look_weight,
        "--spread": load.spread_minor,
        "--think-ms": load.think_ms,
        "--rate": load.rate,
        "--patience-s": load.patience_s,
        "--feed-url": load.feed_url,
        "--books": str(folder),
        "--progress-json": 1,
    }
    if load.processes > 1:
        options |= _distributed(load.processes)
    if tables is not None:
        tables.parent.mkdir(parents=True, exist_ok=True)
        options |= {"--html": f"{tables}.html", "--csv": str(tables)}
    flags = ["--headless", "--only-summary"]
    return [sys.executable, "-m", "locust", *flags, *(str(part) for pair in options.items() for part in pair)]


def _distributed(processes: int) -> Mapping[str, str | int]:
    """A master that starts its workers, on a port of its own: another run may be under way on this machine."""
    (port,) = free_ports(1)
    return {
        "--processes": processes,
        "--master-host": HOST,
        "--master-port": port,
        "--master-bind-host": HOST,
        "--master-bind-port": port,
        "--expect-workers-max-wait": 30,
    }


async def _follow(process: asyncio.subprocess.Process, progress: Callable[[Progress], None]) -> None:
    """Read lines until the process closes its output; lines other than progress are Locust's own output."""
    assert process.stdout is not None
    decoder = msgspec.json.Decoder(Progress)
    while line := await process.stdout.readline():
        with contextlib.suppress(msgspec.DecodeError):
            progress(decoder.decode(line))


async def end_group(process: asyncio.subprocess.Process) -> None:
    """Make sure that the process and its workers are gone, by asking first."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal_number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await process.wait()


def tail_of(log_path: Path) -> str:
    """How a log ends, for the message of an error."""
    text = log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return f"its log ends with:\n{text}" if text else "its log is empty"
