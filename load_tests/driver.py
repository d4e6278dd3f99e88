"""The parts of a load run: open fresh items, drive Locust, ask what became of bids whose answer was lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx2 as httpx
import msgspec

from load_tests.answers import BidAnswer, Fate, read_stored_verdict
from load_tests.checks import AcceptedBid, ClientView
from load_tests.concurrency import map_bounded
from load_tests.tally import Entry, ItemLedger, Ledger, LedgerError, Progress, read_ledger

LOCUSTFILE = Path(__file__).parent / "locustfile.py"

_REQUEST_TIMEOUT_S = 10.0
_OPEN_AT_ONCE = 16
_RESOLVE_AT_ONCE = 16
_RESOLVE_ATTEMPTS_MAX = 5
_RESOLVE_PAUSE_S = 1.0
# Users finish the request that they are in; longer than the time-out of a request.
_LOCUST_STOP_S = 12
# Added to run time and stop time: importing, spawning, writing the ledger.
_LOCUST_GRACE_S = 30.0
_LOG_TAIL_BYTES = 2_000


class LoadError(Exception):
    """The load could not be made, so there is nothing to prove; the message says what to look at."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to do to the platform.

    ``run_s`` seconds with ``users`` bidders; weights and ``spread_minor`` as in the locustfile; ``think_ms``
    is the pause of a user between two actions.
    """

    users: int
    run_s: int
    item_ids: Sequence[str]
    tag: str
    bid_weight: int = 9
    look_weight: int = 1
    spread_minor: int = 100
    think_ms: int = 0


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


async def run_locust(gateway_url: str, load: Load, folder: Path, progress: Callable[[Progress], None]) -> Ledger:
    """Run Locust headless in a process of its own and read its books.

    Locust patches the standard library for gevent and therefore cannot live in this process.

    Args:
        folder: for the ledger and the log of Locust; exists.
        progress: called about once a second.

    Raises:
        LoadError: Locust ended badly, or did not end; the message carries the end of its log.
    """
    ledger_path = folder / "ledger.json"
    log_path = folder / "locust.log"
    with log_path.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *_locust_command(gateway_url, load, ledger_path),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=LOCUSTFILE.parent.parent,
            # Ctrl-C is for this process, which then ends Locust in its own way.
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(load.run_s + _LOCUST_STOP_S + _LOCUST_GRACE_S):
            await _follow(process, progress)
            status = await process.wait()
    except TimeoutError:
        raise LoadError(f"Locust did not end in time; {_tail(log_path)}") from None
    finally:
        await _end(process)
    try:
        ledger = read_ledger(ledger_path)
    except LedgerError as error:
        raise LoadError(f"{error} (exit status {status}); {_tail(log_path)}") from error
    if status != 0:
        raise LoadError(f"Locust ended with exit status {status}; {_tail(log_path)}")
    return ledger


def _locust_command(gateway_url: str, load: Load, ledger_path: Path) -> list[str]:
    options: Mapping[str, str | int] = {
        "--locustfile": str(LOCUSTFILE),
        "--host": gateway_url,
        "--users": load.users,
        # All users within two seconds, so that even a short run is mostly under full load.
        "--spawn-rate": max(1, load.users // 2),
        "--run-time": load.run_s,
        "--stop-timeout": _LOCUST_STOP_S,
        # Failures are judged here, with the books at hand.
        "--exit-code-on-error": 0,
        "--items": ",".join(load.item_ids),
        "--run-tag": load.tag,
        "--bid-weight": load.bid_weight,
        "--look-weight": load.look_weight,
        "--spread": load.spread_minor,
        "--think-ms": load.think_ms,
        "--ledger": str(ledger_path),
        "--progress-json": 1,
    }
    flags = ["--headless", "--only-summary"]
    return [sys.executable, "-m", "locust", *flags, *(str(part) for pair in options.items() for part in pair)]


async def _follow(process: asyncio.subprocess.Process, progress: Callable[[Progress], None]) -> None:
    """Read lines until the process closes its output; lines other than progress are Locust's own output."""
    assert process.stdout is not None
    decoder = msgspec.json.Decoder(Progress)
    while line := await process.stdout.readline():
        with contextlib.suppress(msgspec.DecodeError):
            progress(decoder.decode(line))


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure that the process is gone, by asking first."""
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal_number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()


def _tail(log_path: Path) -> str:
    text = log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return f"its log ends with:\n{text}" if text else "its log is empty"


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of the unknown bids of one item; ``never_arrived`` were not placed at all."""

    accepted: tuple[AcceptedBid, ...] = ()
    refused: int = 0
    never_arrived: int = 0
    unresolved: tuple[str, ...] = ()


async def resolve_unknown(client: httpx.AsyncClient, item_id: str, unknown: Sequence[Entry]) -> Resolution:
    """Ask ``bids/by-key`` about every bid whose answer was lost. Ask only after the load: a bid may still be
    on its way before.
    """

    async def ask(entry: Entry) -> BidAnswer | None:
        return await _stored_verdict(client, item_id, entry)

    verdicts = await map_bounded(ask, unknown, at_once=_RESOLVE_AT_ONCE)
    accepted: list[AcceptedBid] = []
    unresolved: list[str] = []
    refused = never_arrived = 0
    for entry, verdict in zip(unknown, verdicts, strict=True):
        if verdict is None:
            never_arrived += 1
        elif verdict.fate is Fate.ACCEPTED:
            accepted.append(AcceptedBid(verdict.seq or 0, entry.bid_id, entry.user_id, entry.amount))
        elif verdict.fate is Fate.REFUSED:
            refused += 1
        else:
            unresolved.append(entry.bid_id)
    return Resolution(tuple(accepted), refused, never_arrived, tuple(unresolved))


async def _stored_verdict(client: httpx.AsyncClient, item_id: str, entry: Entry) -> BidAnswer | None:
    answer: BidAnswer | None = BidAnswer(Fate.UNKNOWN, "NO_ANSWER")
    for attempt in range(_RESOLVE_ATTEMPTS_MAX):
        if attempt:
            await asyncio.sleep(_RESOLVE_PAUSE_S)
        try:
            path = f"/api/v1/bids/by-key/{quote(entry.bid_id, safe='')}"
            response = await client.get(path, params={"item_id": item_id, "user_id": entry.user_id})
        except httpx.HTTPError:
            continue
        answer = read_stored_verdict(response.status_code, response.content)
        if answer is None or answer.fate in (Fate.ACCEPTED, Fate.REFUSED):
            break
    return answer


def client_view(ledger: ItemLedger, resolution: Resolution) -> ClientView:
    """The books of an item after its unknown bids were resolved."""
    accepted = [AcceptedBid(entry.seq, entry.bid_id, entry.user_id, entry.amount) for entry in ledger.accepted]
    return ClientView(
        accepted=[*accepted, *resolution.accepted],
        refused=sum(ledger.refused.values()) + resolution.refused,
        failures=sum(ledger.failed.values()),
        unresolved=resolution.unresolved,
    )
