"""Events per second from JetStream into PostgreSQL through the archival worker, between two yardsticks.

The stream is filled first, then the worker is started as the process that it is in production: decoding, batching, its
transactions, acknowledgements, and the chain of hashes beside it, all included; and once more without the chain.

The lower yardstick is what one gateway accepts in the same minute, on a core of its own, with ``appendfsync always``:
the archive must not be slower. The upper one is what the same PostgreSQL takes when the same bids, in the same order,
come as one binary COPY into one empty table of the same definition: same constraints, same indexes, the same
``synchronous_commit``. It writes nothing else (no items, no cursors), decodes nothing and commits once.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import click
import msgspec

from bench.gateway import Contender, cores_apart, measure, spread
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.nats import StreamLimits, ensure_stream, open_nats
from shared.messages import BidAccepted

_ITEMS = 100
_START_US = 1_750_000_000_000_000
_POLL_S = 0.02
_PATIENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """One round, in bids or events per second; ``chained_after_s``: how long the chain took after the last event was
    archived."""

    accepted: float
    archived: float
    archived_unchained: float
    copied: float
    chained_after_s: float


@dataclass(frozen=True, slots=True)
class _Archived:
    rate: float
    chained_after_s: float = 0.0
    copied: float = 0.0


def _messages(events: int, per_message: int) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Subject, headers and body of the outbox entries of ``events`` bids, over 100 items in turn."""
    items = [f"bench-{number:04d}" for number in range(_ITEMS)]
    entries = dict.fromkeys(names.SHARDS, 0)
    for number in range(events // per_message):
        item_id = items[number % _ITEMS]
        shard = names.shard_of(item_id)
        entries[shard] += 1
        first = (number // _ITEMS) * per_message
        bids = [_bid(item_id, first + at) for at in range(per_message)]
        body = {"v": 1, "shard": shard, "shard_epoch": 1, "n": entries[shard], "item_id": item_id, "events": bids}
        header = {"Nats-Msg-Id": names.message_id(shard, 1, entries[shard])}
        yield names.subject_of(item_id), header, msgspec.json.encode(body)


def _bid(item_id: str, seq: int) -> BidAccepted:
    return BidAccepted(
        item_id=item_id,
        epoch=1,
        seq=seq,
        ts_us=_START_US + seq,
        current_bid=100 + seq,
        highest_bidder_id=f"user-{seq % 1009:04d}",
        bid_count=seq,
        min_next_bid=101 + seq,
        status="open",
        end_us=None,
        reserve_met=True,
        currency="USD",
        bid_id=f"5417fcbfe3ade7601c155dda-{seq}",
        user_id=f"user-{seq % 1009:04d}",
        amount=100 + seq,
        previous_bid=99 + seq,
        kind="bid",
    )


async def _fill_stream(stack: Stack, events: int, per_message: int) -> int:
    """Publish, and return the number of messages once all are in the stream."""
    client = await open_nats(stack.urls.nats_url, name="bench")
    try:
        jetstream = client.jetstream()
        await ensure_stream(jetstream, StreamLimits())
        *messages, (last_subject, last_headers, last_body) = _messages(events, per_message)
        for count, (subject, headers, body) in enumerate(messages):
            await client.publish(subject, body, headers=headers)
            if count % 500 == 0:
                await client.flush()
        # All come from one connection, so this one is stored after the others: once it is stored, all are.
        await jetstream.publish(last_subject, last_body, headers=last_headers, timeout=_PATIENCE_S)
        stored: int = (await jetstream.stream_info(names.STREAM)).state.messages
        if stored != len(messages) + 1:
            raise click.ClickException(f"the stream took {stored} of {len(messages) + 1} messages")
        return stored
    finally:
        await client.close()


async def _archived(stack: Stack, connection: asyncpg.Connection, messages: int, per_message: int) -> float:
    """Start the worker; events per second from the first batch that is seen to the last one."""
    reached = "SELECT sum(archived_n)::bigint FROM shard_cursors"
    deadline = time.monotonic() + _PATIENCE_S
    starting = asyncio.create_task(stack.add_service("archival_worker", "archival_worker", stack.ports.archiver))
    first: tuple[float, int] | None = None
    while True:
        now, done = time.perf_counter(), await connection.fetchval(reached)
        if first is None and done:
            first = (now, done)
        if done >= messages:
            break
        if time.monotonic() > deadline:
            raise click.ClickException(f"only {done} of {messages} messages were archived within {_PATIENCE_S:g} s")
        await asyncio.sleep(_POLL_S)
    await starting
    if first is None or first[1] >= messages:
        raise click.ClickException("too few events to measure anything; ask for more with --events")
    return (messages - first[1]) * per_message / (now - first[0])


async def _chained(connection: asyncpg.Connection, events: int) -> float:
    """Seconds until the chain has all events."""
    began = time.perf_counter()
    while await connection.fetchval("SELECT coalesce(sum(seq + 1), 0)::bigint FROM chains") < events:
        if time.perf_counter() - began > _PATIENCE_S:
            raise click.ClickException("the chain does not follow")
        await asyncio.sleep(_POLL_S)
    return time.perf_counter() - began


async def _copied(connection: asyncpg.Connection, folder: Path, events: int) -> float:
    """Events per second of one COPY of the archived bids into a table like theirs."""
    path = folder / "bids.binary"
    await connection.copy_from_query("SELECT * FROM bids", output=path, format="binary")
    await connection.execute("CREATE TABLE bids_copied (LIKE bids INCLUDING ALL)")
    began = time.perf_counter()
    await connection.copy_to_table("bids_copied", source=path, format="binary")
    return events / (time.perf_counter() - began)


async def _archive(folder: Path, events: int, per_message: int, *, chained: bool) -> _Archived:
    """Fill a stream and archive it, on servers of its own; with the chain, COPY the same rows afterwards."""
    env = {"LOG_LEVEL": "ERROR", "ARCHIVER_CHAIN": str(chained)}
    async with Stack(folder, ports=Ports.free(), services=(), migrate=True, env=env) as stack:
        connection = await asyncpg.connect(stack.urls.postgres_url, command_timeout=_PATIENCE_S)
        try:
            messages = await _fill_stream(stack, events, per_message)
            rate = await _archived(stack, connection, messages, per_message)
            if not chained:
                return _Archived(rate)
            chained_after_s = await _chained(connection, messages * per_message)
            await stack.stop_process("archival_worker")
            return _Archived(rate, chained_after_s, await _copied(connection, folder, messages * per_message))
        finally:
            await connection.close()


def _accepted(folder: Path, *, run: int, connections: int, seconds: float) -> float:
    """Bids per second that one gateway accepts."""
    with cores_apart():
        stack = Stack(folder, ports=Ports.free(), services=(), migrate=True)
        asyncio.run(stack.start())
        try:
            gateway = Contender("gateway, always", "api_gateway", fsync="always")
            return measure(gateway, stack, run=run, connections=connections, seconds=seconds).accepted
        finally:
            asyncio.run(stack.stop())


def _round(folder: Path, number: int, events: int, per_message: int, connections: int, seconds: float) -> ArchiveResult:
    accepted = _accepted(folder / "gateway", run=number, connections=connections, seconds=seconds)
    results = {}
    # Each goes first in every other round.
    for chained in (True, False) if number % 2 == 0 else (False, True):
        archive = _archive(folder / f"chained-{chained}", events, per_message, chained=chained)
        results[chained] = asyncio.run(archive)
    chained_one = results[True]
    return ArchiveResult(
        accepted, chained_one.rate, results[False].rate, chained_one.copied, chained_one.chained_after_s
    )


def bench_archive(
    *, rounds: int, events: int, per_message: int, connections: int, seconds: float
) -> list[ArchiveResult]:
    """Run the rounds, each on servers of its own; print each, then medians, spread and ratios."""
    click.echo(f"\nArchive: {events:,} bids, {per_message} per message, {_ITEMS} items")
    results = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
            # PostgreSQL does not run as root, and has to get into the folder.
            Path(directory).chmod(0o755)
            result = _round(Path(directory), number, events, per_message, connections, seconds)
        results.append(result)
        click.echo(
            f"round {number + 1}/{rounds}  gateway {result.accepted:>7,.0f} accepted/s   "
            f"archived {result.archived:>7,.0f} events/s, without the chain {result.archived_unchained:>7,.0f}   "
            f"plain COPY {result.copied:>8,.0f} rows/s   chained {result.chained_after_s:.1f} s later"
        )
    _report(results)
    return results


def _report(results: list[ArchiveResult]) -> None:
    head = f"{'':34}{'per second':>11}{'spread':>19}{'of accepted':>13}{'of COPY':>9}"
    click.echo("\n" + head)
    contenders = {
        "one gateway accepts": [each.accepted for each in results],
        "JetStream to PostgreSQL": [each.archived for each in results],
        "the same without the chain": [each.archived_unchained for each in results],
        "plain COPY of the same rows": [each.copied for each in results],
    }
    for name, rates in contenders.items():
        of_accepted = statistics.median(rate / each.accepted for rate, each in zip(rates, results, strict=True))
        of_copy = statistics.median(rate / each.copied for rate, each in zip(rates, results, strict=True))
        click.echo(f"{name:34}{statistics.median(rates):>11,.0f}{spread(rates):>19}{of_accepted:>13.2f}{of_copy:>9.2f}")
    later = statistics.median(each.chained_after_s for each in results)
    click.echo(f"the chain is complete {later:.1f} s after the last event was archived (median)")
