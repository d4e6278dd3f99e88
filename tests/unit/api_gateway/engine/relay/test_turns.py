"""The relay's turns without a network: each moves the cursors of the one before it, and no cursor waits for a next
one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from api_gateway.engine.relay import relay as relay_module
from tests.unit.api_gateway.engine.relay.bench import BRIEF_MS, OURS, SHARD, Bench
from tests.waiting import eventually


class Turns:
    """What the relay asked Redis for, in order: the entry to which the cursor moves, and whether it reads."""

    def __init__(self, bench: Bench) -> None:
        self.asked: list[tuple[int | None, bool]] = []
        self._turn = bench.scripts.turn
        bench.scripts.turn = self.turn  # type: ignore[method-assign]

    async def turn(self, advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
        moves = advances.get(SHARD)
        self.asked.append((None if moves is None else moves.entry, SHARD in after))
        return await self._turn(advances, after, **more)


async def test_a_cursor_moves_in_the_round_trip_that_reads_on() -> None:
    bench = Bench(1)
    turns = Turns(bench)

    def grow() -> None:
        if bench.redis.entries == [1]:
            bench.redis.entries = [1, 2]
            bench.relay.notice(SHARD)

    bench.stream.on_publish = grow
    async with bench.running():
        await bench.reached(2)
    assert turns.asked[:3] == [(None, True), (1, True), (2, False)]
    assert bench.stream.ids == [1, 2]
    assert bench.moves == [(OURS, 1), (OURS, 2)]


async def test_a_cursor_does_not_wait_for_a_next_entry() -> None:
    bench = Bench(1)
    turns = Turns(bench)
    async with bench.running():
        await bench.reached(1)
    assert turns.asked[:2] == [(None, True), (1, False)]


async def test_what_was_acknowledged_counts_for_the_stream_of_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. An entry is acknowledged. 2. The stream is deleted, and made anew. 3. It is time to look, and more is noticed.
    The cursor must move under the first stream's name: under the second one's it would pass an entry that is
    nowhere."""
    monkeypatch.setattr(relay_module, "_CHECK_STREAM_EVERY_S", 0.0)
    bench = Bench(1)
    moved_under: list[str] = []

    def renew() -> None:
        if bench.redis.entries == [1]:
            bench.redis.entries, bench.stream.created, bench.stream.last_seq = [1, 2], "two", 0
            bench.relay.notice(SHARD)

    async def note() -> None:
        moved_under.append(bench.redis.cursors.stream_id)

    bench.stream.on_publish, bench.scripts.on_moved = renew, note
    async with bench.running():
        await eventually(lambda: bench.redis.cursors.published == 2 and bench.redis.cursors.stream_id == "two")
    assert moved_under[0] == "one"
    assert bench.stream.ids[:3] == [1, 1, 2], "the new stream gets both"


async def test_it_does_not_ask_again_and_again_while_the_lease_is_uncertain() -> None:
    bench = Bench(1, lease_ms=BRIEF_MS)
    turns = Turns(bench)
    async with bench.running():
        await bench.reached(1)
        bench.scripts.may_lease.clear()
        await asyncio.sleep(0.2)
        before = len(turns.asked)
        bench.relay.notice(SHARD)
        await asyncio.sleep(0.2)
        # It looks every 5 ms. Without a pause it would be thousands.
        assert len(turns.asked) - before < 60
        bench.scripts.may_lease.set()
