"""Closed items with very many events or bidders: what a question costs does not grow with them."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import pytest

from infrastructure.local.stack import Stack
from shared import names
from shared.archive_reads.keyed_verdicts import keyed_verdicts
from shared.archive_reads.origin import closed_items
from shared.archive_reads.rebuild_reads import read_items, read_verdicts
from shared.archive_reads.statements import statements
from shared.redis_layout.end_moves import MOVE_REQUESTS_KEPT
from tests.integration.archive.archive_world import migrated_database

pytestmark = pytest.mark.integration

_CLOSED: Final = statements("closed")
_REBUILD: Final = statements("rebuild")
HARD_END_US: Final = 4_000_000_000_000_000
_SOFT: Final = '{"trigger_us":60000000,"extend_us":120000000,"mode":"from_end","max_count":0,"hard_end_us":%s}'
_TURNS: Final = ("paused", "resumed", "extended")

Event = tuple[str, int]
"""An event's type, and its microsecond."""


@asynccontextmanager
async def database(servers: Stack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(await migrated_database(servers))
    try:
        yield connection
    finally:
        await connection.close()


async def put_closed(connection: Any, item_id: str, seq: int, *, has_hard_end: bool = True) -> None:
    """A closed item whose newest event has this seq, and of which nothing is missing."""
    await connection.execute(
        """
        INSERT INTO items (item_id, name, currency, start_price, increment_kind, increment_value, soft_close, start_at,
                           original_end_at, end_at, created_at, updated_at, epoch, seq, current_bid, bid_count,
                           min_next_bid, status, reserve_met)
        VALUES ($1, $1, 'USD', 0, 'flat', 1, $2, now(), now() + interval '1 hour', now(), now(), now(), 1,
                $3, 0, 0, 1, 'unsold', true)
        """,
        item_id,
        _SOFT % (HARD_END_US if has_hard_end else "null"),
        seq,
    )
    await connection.execute("INSERT INTO chains (item_id, epoch, seq) VALUES ($1, 1, $2)", item_id, seq)


async def put_events(connection: Any, item_id: str, events: Sequence[Event]) -> None:
    await connection.executemany(
        """
        INSERT INTO events (item_id, epoch, seq, type, body, at)
        VALUES ($1, 1, $2, $3, $4, to_timestamp(0) + $5::bigint * interval '1 microsecond')
        """,
        [
            (item_id, seq, type_, f'{{"extensions":{seq}}}' if type_ == "extended" else "{}", ts_us)
            for seq, (type_, ts_us) in enumerate(events, start=1)
        ],
    )


def replayed(events: Sequence[Event]) -> tuple[int, int, int | None]:
    """The number of the last extension, by how much pauses have moved the hard end, and since when it is paused: the
    reference, event by event."""
    extensions, shift_us = 0, 0
    paused_us: int | None = None
    for seq, (type_, ts_us) in enumerate(events, start=1):
        if type_ == "extended":
            extensions = seq
        elif type_ == "paused":
            paused_us = ts_us
        elif paused_us is not None:
            shift_us += ts_us - paused_us
            paused_us = None
    return extensions, shift_us, paused_us


async def test_pauses_and_extensions_are_summed_up_as_they_were(servers: Stack) -> None:
    """Also in orders that do not happen: two pauses, or a resumption without one."""
    made = random.Random(7)
    async with database(servers) as connection:
        histories: dict[str, list[Event]] = {}
        for number in range(60):
            item_id = f"lot-{number}"
            instants = sorted(made.sample(range(1_000_000), number % 12))
            histories[item_id] = [(made.choice(_TURNS), ts_us) for ts_us in instants]
            await put_closed(connection, item_id, len(instants), has_hard_end=number % 3 > 0)
            await put_events(connection, item_id, histories[item_id])
        found = await closed_items(connection.fetch, list(histories))
        read = await connection.fetch(_REBUILD["read_turns"], list(histories), MOVE_REQUESTS_KEPT)
        turns = {row["item_id"]: row for row in read}
        for number, (item_id, events) in enumerate(histories.items()):
            extensions, shift_us, paused_us = replayed(events)
            state = found[item_id].state
            assert state.extensions == extensions
            assert state.hard_end_us == (HARD_END_US + shift_us if number % 3 else None)
            assert tuple(turns[item_id]) == (item_id, shift_us, paused_us, 0, [], extensions)


async def test_a_closed_item_of_very_many_extensions_is_read_in_one_short_row(servers: Stack) -> None:
    async with database(servers) as connection:
        await put_closed(connection, "long", 30_000)
        await connection.execute(
            """
            INSERT INTO events (item_id, epoch, seq, type, body, at)
            SELECT 'long', 1, seq, 'extended', jsonb_build_object('extensions', seq), now()
            FROM generate_series(1, 30000) AS seq
            """
        )
        rows = await connection.fetch(_CLOSED["read_closed"], ["long"], [names.shard_of("long")])
        assert len(str([tuple(row) for row in rows])) < 2_000
        assert (await closed_items(connection.fetch, ["long"]))["long"].state.extensions == 30_000


class Counted:
    """A connection that knows the longest answer that it gave at once."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.most_rows = 0

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        rows: list[Any] = await self._connection.fetch(query, *arguments)
        self.most_rows = max(self.most_rows, len(rows))
        return rows

    def cursor(self, query: str, *arguments: Any, prefetch: int) -> Any:
        self.most_rows = max(self.most_rows, prefetch)
        return self._connection.cursor(query, *arguments, prefetch=prefetch)


async def test_an_item_of_very_many_bidders_is_read_piece_by_piece(servers: Stack) -> None:
    """Else whoever brings it back, a gateway, would decide no bids meanwhile."""
    async with database(servers) as connection, connection.transaction():
        await put_closed(connection, "crowd", 5_000)
        await connection.execute(
            """
            INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, status, placed_at)
            SELECT 'crowd', 1, seq, 'b-' || seq, 'u-' || seq, seq, seq - 1, 'bid', 'valid', now()
            FROM generate_series(1, 5000) AS seq
            """
        )
        await connection.execute(
            """
            INSERT INTO sealed (item_id, epoch, n, at, seq, bid_id, user_id, amount, max_amount, verdict, leader_id,
                                leader_max, runner_up, decided_at)
            SELECT 'crowd', 1, seq, 0, seq, 'b-' || seq, 'u-' || seq, seq, seq + 1, 'A|', 'u-' || seq, seq + 1, seq,
                   now()
            FROM generate_series(1, 5000) AS seq
            """
        )
        counted = Counted(connection)
        (item,) = (await read_items(counted, ["crowd"], 1)).items
        assert (len(item.bidders), len(item.maxima), item.fields["bids_counted"]) == (5_000, 5_000, "5000")
        assert counted.most_rows <= 1_024


@pytest.mark.parametrize("hours", [1, 30])
async def test_a_late_void_does_not_prolong_how_long_verdicts_are_kept(servers: Stack, hours: int) -> None:
    async with database(servers) as connection, connection.transaction():
        await put_closed(connection, "lot", 3)
        await connection.execute(
            """
            INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, status, placed_at)
            VALUES ('lot', 1, 1, 'b-1', 'ann', 1, 0, 'bid', 'valid', now() - interval '40 hours')
            """
        )
        await connection.execute(
            """
            INSERT INTO events (item_id, epoch, seq, type, body, at)
            VALUES ('lot', 1, 2, 'closed', '{}', now() - $1 * interval '1 hour'), ('lot', 1, 3, 'voided', '{}', now())
            """,
            hours,
        )
        is_kept = hours < 24
        assert bool(await keyed_verdicts(connection.fetch, "lot", None, "b-1")) is is_kept
        terms = {"lot": (await closed_items(connection.fetch, ["lot"]))["lot"].terms}
        assert len([answer async for answer in read_verdicts(connection, ["lot"], terms)]) == is_kept
        (row,) = await connection.fetch(_REBUILD["read_items"], ["lot"])
        assert abs(row["closed_us"] / 1_000_000 - (time.time() - hours * 3_600)) < 60
