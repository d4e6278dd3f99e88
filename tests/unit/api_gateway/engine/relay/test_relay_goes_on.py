"""The relay without a network: what it goes on with by itself, where nobody tells it anything and nobody answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from api_gateway.engine.relay.in_flight import PubAck
from api_gateway.engine.relay.options import RelayOptions
from shared.redis_layout.cursors import Lineage
from tests.unit.api_gateway.engine.relay.bench import BRIEF_MS, OURS, Bench, Cursors, duplicate
from tests.waiting import eventually

SELDOM_MS = 60_000
"""How often shards are looked at, where a test does not wait for that."""


async def test_a_puback_that_never_comes_is_not_waited_for_any_longer_than_its_time() -> None:
    bench = Bench(1)
    bench.stream.answers = [None]
    async with bench.running():
        await bench.reached(1)
    assert bench.stream.ids == [1, 1]


async def test_nor_is_the_answer_about_a_message_that_jetstream_had_already() -> None:
    bench = Bench(1)
    bench.stream.answers = [duplicate(9)]
    asked: list[int] = []

    async def get_msg(stream: str, *, seq: int) -> Any:
        asked.append(seq)
        await asyncio.Event().wait()

    bench.stream.get_msg = get_msg  # type: ignore[method-assign]
    async with bench.running():
        await bench.reached(1)
    assert (bench.stream.ids, asked) == ([1, 1], [9])


async def test_what_is_more_than_one_read_is_carried_without_a_pause() -> None:
    bench = Bench(1, 2, 3, 4, 5)
    bench.relay._options = RelayOptions(poll_ms=SELDOM_MS, entries_per_shard=2)
    async with bench.running():
        await bench.reached(5)
    assert [entry for _, entry in bench.moves] == [2, 4, 5]


async def test_a_shard_that_is_rebuilt_while_nothing_happens_is_begun_anew_with_the_next_renewal() -> None:
    bench = Bench(1, lease_ms=BRIEF_MS)
    bench.relay._options = RelayOptions(poll_ms=SELDOM_MS)
    async with bench.running():
        await bench.reached(1)
        assert bench.relay.health.shards_owned == 1
        bench.redis.cursors = Cursors(epoch=2)
        await bench.reached(1)
        bench.scripts.is_ours = False
        await eventually(lambda: bench.relay.health.shards_owned == 0)
    assert bench.moves == [(OURS, 1), (Lineage(OURS.run, 2), 1)]


async def test_another_message_in_the_place_of_an_entry_is_looked_at_again_where_one_before_it_failed() -> None:
    """What failed is sent again, and all that follows it; only then is it known what stands in whose place."""
    bench = Bench(1, 2)
    bench.stream.answers = [None, duplicate(9)]
    bench.stream.looks = [SimpleNamespace(data=b"other", subject="other")]
    async with bench.running():
        await bench.reached(2)
    assert (bench.stream.looked_at, bench.scripts.stopped) == ([9], [])
    assert bench.relay.health.foreign_total == 0


async def test_a_tail_that_was_lost_once_is_published_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the stream, which has all of it again, is looked at since."""
    monkeypatch.setattr("api_gateway.engine.relay.relay._CHECK_STREAM_EVERY_S", 0.01)
    bench = Bench(1, 2)
    async with bench.running():
        await bench.reached(2)
        bench.stream.answers = [PubAck(2)]
        bench.redis.entries.append(3)
        await bench.reached(3)
        looks = bench.stream.infos
        await eventually(lambda: bench.stream.infos >= looks + 3)
    assert bench.scripts.rewinds == 1


@pytest.mark.parametrize(
    ("silent_s", "hold"),
    [(None, "take"), (0.0, "take"), (15.0, "take"), (25.0, "keep"), (55.0, "keep"), (65.0, "leave")],
)
async def test_what_others_leave_is_taken_only_by_who_has_just_heard_of_nats(silent_s: float | None, hold: str) -> None:
    """It may have lost NATS like the other one: the two would take the shards from each other."""
    leases = Bench(lease_ms=60_000).relay._leases
    leases._unanswered_since_s = None if silent_s is None else asyncio.get_running_loop().time() - silent_s
    assert leases._hold() == hold
