"""Events per second from JetStream into PostgreSQL through the archival worker, beside a plain COPY of the same rows.

The stream is filled first, then the worker is started as the process that it is in production: decoding, batching, its
transactions, acknowledgements, and the chain of hashes beside it, all included. The limit is what the same PostgreSQL
takes when the same bids come as one binary COPY into an empty table of the same definition, with the same indexes.
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

from infrastructure.local.ports import Ports
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
    """One round: events per second, and how long the chain took after the last event was archived."""

    archived: float
    copied: float
    chained_after_s: float

    @property
    def ratio(self) -> float:
        """The worker's share of what PostgreSQL can take."""
        return self.archived / self.copied


def _messages(events: int, per_message: int) -> Iterator[tuple[str, dict[str, str], bytes]]:
    """Subject, headers and body of the outbox entries of so many bids, over 100 items in turn."""
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
        # All come from one connection, so this one is stored after the others, and with it they are.
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
    await connection.copy_from_table("bids", output=path, format="binary")
    await connection.execute("CREATE TABLE bids_copied (LIKE bids INCLUDING ALL)")
    began = time.perf_counter()
    await connection.copy_to_table("bids_copied", source=path, format="binary")
    return events / (time.perf_counter() - began)


async def _round(folder: Path, events: int, per_message: int) -> ArchiveResult:
    async with Stack(folder, ports=Ports.free(), services=(), migrate=True, env={"LOG_LEVEL": "ERROR"}) as stack:
        connection = await asyncpg.connect(stack.urls.postgres_url, command_timeout=_PATIENCE_S)
        try:
            messages = await _fill_stream(stack, events, per_message)
            archived = await _archived(stack, connection, messages, per_message)
            chained_after_s = await _chained(connection, messages * per_message)
            await stack.stop_process("archival_worker")
            return ArchiveResult(archived, await _copied(connection, folder, messages * per_message), chained_after_s)
        finally:
            await connection.close()


def bench_archive(*, rounds: int, events: int, per_message: int) -> list[ArchiveResult]:
    """So many rounds, each on servers of its own; prints each, and the medians."""
    click.echo(f"\nArchive: {events:,} bids, {per_message} per message, {_ITEMS} items")
    results = []
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
            # PostgreSQL does not run as root, and has to get into the folder.
            Path(directory).chmod(0o755)
            result = asyncio.run(_round(Path(directory) / "stack", events, per_message))
        results.append(result)
        click.echo(
            f"round {number + 1}/{rounds}  JetStream to PostgreSQL {result.archived:>9,.0f} events/s   "
            f"plain COPY {result.copied:>9,.0f} rows/s   ratio {result.ratio:.2f}   "
            f"chained {result.chained_after_s:.1f} s later"
        )
    click.echo(
        f"median     JetStream to PostgreSQL {statistics.median(each.archived for each in results):>9,.0f} events/s   "
        f"plain COPY {statistics.median(each.copied for each in results):>9,.0f} rows/s   "
        f"ratio {statistics.median(each.ratio for each in results):.2f}"
    )
    return results
