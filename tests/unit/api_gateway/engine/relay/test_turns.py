"""The relay's turns without a network: each moves the cursors of the one before it, and no cursor waits for a next
one."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from api_gateway.engine.relay import relay as relay_module
from api_gateway.engine.relay.in_flight import PubAck
from api_gateway.engine.relay.leases import Owned
from api_gateway.engine.relay.options import RelayOptions
from api_gateway.engine.relay.shard_scripts import Advance, ShardScripts, Turn, UnreadableEntry
from shared import names
from shared.clients.cluster.client import ClusterClient
from shared.clients.cluster.pipeline import NodeAway
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.outbox import Entry
from shared.redis_layout.scripts import Call, Script
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
    # A look at all shards would find an entry whose cursor has not moved yet, and read behind it.
    bench.relay._options = RelayOptions(poll_ms=600_000)
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


async def test_a_shard_that_is_taken_up_meanwhile_is_checked_before_it_is_relayed() -> None:
    """Its last owner may have published into a stream that is gone."""
    bench = Bench(1, stream_id="one")

    def exchange() -> None:
        if bench.redis.entries == [1]:
            bench.redis.entries, bench.stream.created, bench.stream.last_seq = [1, 2], "two", 0
            bench.relay._leases.owned[SHARD] = Owned(OURS, 0)
            bench.relay.notice(SHARD)

    bench.stream.on_publish = exchange
    async with bench.running():
        await bench.reached(2)
    assert bench.stream.ids[:3] == [1, 1, 2]
    assert bench.scripts.rewinds == 1


async def test_what_was_acknowledged_before_a_lease_ended_counts_no_more() -> None:
    """1. Entries are acknowledged, and the process stands still past its lease. 2. The stream loses them. 3. Another
    relay notices, goes back, and dies. 4. This one has the lease again, at a cursor that is before the entries."""
    bench = Bench(1)

    def take_up_again() -> None:
        bench.stream.on_publish = lambda: None
        bench.relay._leases.owned[SHARD] = Owned(OURS, 0)
        bench.relay.notice(SHARD)

    bench.stream.on_publish = take_up_again
    async with bench.running():
        await bench.reached(1)
    assert bench.stream.ids == [1, 1], "the cursor moves after the second time only"


async def test_nothing_is_moved_once_the_lease_is_uncertain() -> None:
    """The process stood still: by now the lease may be another's, and even ours again."""
    bench = Bench(1, lease_ms=BRIEF_MS)
    turns = Turns(bench)

    def stand_still() -> None:
        bench.stream.on_publish = lambda: None
        bench.scripts.may_lease.clear()
        time.sleep(BRIEF_MS / 1_000)

    bench.stream.on_publish = stand_still
    async with bench.running():
        await eventually(lambda: bench.stream.ids == [1])
        await asyncio.sleep(0.05)
        assert {moves for moves, _ in turns.asked} == {None}
        bench.scripts.may_lease.set()
        await bench.reached(1)
    assert bench.stream.ids == [1, 1]


def look_after_the_first_publication(bench: Bench, what: Callable[[], None]) -> None:
    """The next look for news is right after it, and ``what`` happens meanwhile."""
    news = bench.scripts.news

    def is_due() -> None:
        bench.stream.on_publish = lambda: None
        bench.relay._look_due_s = 0.0
        bench.scripts.news = disturbed  # type: ignore[method-assign]

    async def disturbed(known: Mapping[str, tuple[Lineage, int]]) -> set[str]:
        bench.scripts.news = news  # type: ignore[method-assign]
        what()
        return await news(known)

    bench.stream.on_publish = is_due


async def test_what_was_acknowledged_counts_no_more_where_the_lease_ended_during_a_look_for_news() -> None:
    """1. Entries are acknowledged. 2. The relay asks for news, and the answer takes longer than its lease. 3. The
    stream loses them; another relay goes back, and dies. 4. This one has the lease again."""
    bench = Bench(1)

    def take_up_again() -> None:
        assert bench.redis.cursors.published == 0, "a busy relay looks, too"
        bench.relay._leases.owned[SHARD] = Owned(OURS, 0)
        bench.relay.notice(SHARD)

    look_after_the_first_publication(bench, take_up_again)
    async with bench.running():
        await bench.reached(1)
    assert bench.stream.ids == [1, 1], "the cursor moves after the second time only"


async def test_a_look_for_news_that_fails_does_not_undo_what_was_acknowledged() -> None:
    bench = Bench(1)

    def fail() -> None:
        raise ConnectionError("Redis is away")

    look_after_the_first_publication(bench, fail)
    async with bench.running():
        await bench.reached(1)
        await eventually(lambda: bench.relay.health.failures_total == 1)
    assert bench.stream.ids == [1]


async def test_a_shard_that_waits_for_its_check_is_not_forgotten() -> None:
    """No hint comes, and the next look at all shards is far away."""
    bench = Bench(1)
    bench.relay._options = RelayOptions(poll_ms=600_000)

    def exchange() -> None:
        if bench.redis.entries == [1]:
            bench.redis.entries = [1, 2]
            bench.relay._leases.owned[SHARD] = Owned(OURS, 0)
            bench.relay.notice(SHARD)

    bench.stream.on_publish = exchange
    async with bench.running():
        await bench.reached(2)


async def test_a_shard_that_is_taken_up_during_a_look_is_not_forgotten_either() -> None:
    bench = Bench(lease_ms=600_000)
    bench.relay._options = RelayOptions(poll_ms=600_000)

    async def nothing_yet(known: Mapping[str, tuple[Lineage, int]]) -> set[str]:
        bench.redis.entries = [1]
        bench.relay._leases.owned[SHARD] = Owned(OURS, 0)
        bench.relay.notice(SHARD)
        return set()

    async with bench.running():
        await eventually(lambda: any(owned.is_checked for owned in bench.relay._owned.values()))
        bench.scripts.news = nothing_yet  # type: ignore[method-assign]
        bench.relay._look_due_s = 0.0
        bench.relay._wake.set()
        await bench.reached(1)


async def test_nothing_is_published_of_a_shard_that_could_not_go_back() -> None:
    bench = Bench(1, stream_id="another")
    rewound = asyncio.Event()

    async def not_ours(shard: str, **more: Any) -> bool:
        rewound.set()
        return False

    bench.scripts.rewind_published = not_ours  # type: ignore[method-assign]
    async with bench.running():
        await rewound.wait()
        await asyncio.sleep(0.05)
    assert bench.stream.ids == []


async def test_a_cursor_that_another_relay_has_moved_back_is_taken_up_anew() -> None:
    """Otherwise every move would be refused, for ever."""
    bench = Bench(1)
    async with bench.running():
        await bench.reached(1)
        bench.redis.cursors.published = 0
        bench.redis.entries = [1, 2]
        bench.relay.notice(SHARD)
        await bench.reached(2)
    assert bench.stream.ids == [1, 2, 1, 2]


async def test_an_answer_that_never_comes_is_not_waited_for_again() -> None:
    bench = Bench(1)
    bench.stream.answers = [None]
    async with bench.running():
        await bench.reached(1)
        publisher = bench.relay._publisher
        assert publisher is not None
        assert not publisher._waiting


async def test_a_shard_whose_hint_was_lost_is_found_however_busy_the_relay_is() -> None:
    bench = Bench()

    async def keep_busy() -> None:
        while True:
            bench.relay._has_work("another")
            await asyncio.sleep(0)

    async with bench.running():
        await eventually(lambda: SHARD in bench.relay.owned_shards())
        busy = asyncio.create_task(keep_busy())
        await asyncio.sleep(0.02)
        bench.redis.entries = [1]
        await bench.reached(1)
        busy.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await busy


async def test_that_cursors_cannot_be_moved_is_told_once_and_until_they_move(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(1)
    turn, is_away = bench.scripts.turn, True
    told: list[str | None] = []

    async def refuse(advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
        if advances and is_away:
            told.append(bench.relay.health.last_error)
            raise RedisConnectionError("Connection refused")
        return await turn(advances, after, **more)

    bench.scripts.turn = refuse  # type: ignore[method-assign]
    async with bench.running():
        await eventually(lambda: len(told) > 5)
        assert told[0] is None
        assert all(text is not None for text in told[1:])
        is_away = False
        await bench.reached(1)
        await eventually(lambda: bench.relay.health.last_error is None)
    assert len([record for record in caplog.records if "Connection refused" in record.message]) == 1


async def test_however_busy_the_relay_is_it_says_that_all_is_well_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "_CHECK_STREAM_EVERY_S", 600.0)
    bench = Bench(1)
    turn = bench.scripts.turn

    async def more_comes(*asked: Any, **more: Any) -> Any:
        await asyncio.sleep(0)
        bench.relay.notice(SHARD)
        return await turn(*asked, **more)

    bench.scripts.turn = more_comes  # type: ignore[method-assign]
    async with bench.running():
        await bench.reached(1)
        bench.relay._failed("leases", TimeoutError())
        await eventually(lambda: bench.relay.health.last_error is None)


async def test_a_puback_is_an_answer_of_nats() -> None:
    """A cycle may last for seconds, and a relay that thinks that it is cut off takes no shards."""
    bench = Bench(1)
    since: list[float | None] = []

    async def note() -> None:
        since.append(bench.relay._leases._unanswered_since_s)

    bench.scripts.on_moved = note
    async with bench.running():
        await bench.reached(1)
        await eventually(lambda: bool(since))
    assert since[0] is None


async def test_a_shard_that_fails_leaves_the_others_what_was_reached() -> None:
    bench = Bench(1)
    turn = bench.scripts.turn
    broken = next(shard for shard in names.SHARDS if shard != SHARD)

    async def fail(advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
        found: dict[str, Any] = await turn(advances, after, **more)
        if advances and not bench.moves:
            found[broken] = ResponseError("WRONGTYPE")
        return found

    bench.scripts.turn = fail  # type: ignore[method-assign]
    async with bench.running():
        await eventually(lambda: bench.relay.health.failures_total == 1)
        await eventually(lambda: bench.relay.health.last_error is None)
    assert bench.moves == [(OURS, 1)]
    assert bench.stream.ids == [1], "it is not published again"


def _break_another_shard(bench: Bench) -> None:
    """From now on each turn at another shard, which is ours too, fails."""
    turn = bench.scripts.turn
    broken = next(shard for shard in names.SHARDS if shard != SHARD)
    bench.redis.shards.add(broken)

    async def fail(advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
        found: dict[str, Any] = await turn(advances, after, **more)
        return {shard: ResponseError("WRONGTYPE") if shard == broken else found[shard] for shard in found}

    bench.scripts.turn = fail  # type: ignore[method-assign]


async def test_the_others_do_not_wait_while_a_shard_that_fails_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "_BACKOFF_FIRST_S", 600.0)
    bench = Bench(1, backoff_max_s=600.0)
    _break_another_shard(bench)
    failures: list[int] = []

    def grow() -> None:
        failures.append(bench.relay.health.failures_total)
        if len(bench.redis.entries) not in (1, 6):
            bench.redis.entries.append(len(bench.redis.entries) + 1)
            bench.relay.notice(SHARD)

    bench.stream.on_publish = grow
    async with bench.running():
        await bench.reached(1)
        await eventually(lambda: bench.relay.health.last_error is not None)
        assert "WRONGTYPE" in (bench.relay.health.last_error or "")
        bench.redis.entries.append(2)
        bench.relay.notice(SHARD)
        await bench.reached(6)
    assert bench.stream.ids == [1, 2, 3, 4, 5, 6]
    assert len(set(failures[1:])) == 1, "they need not wait for its next try"


async def test_a_shard_that_fails_rests_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(1)
    turn, is_broken = bench.scripts.turn, True
    tried_s: list[float] = []

    async def fail(advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
        if SHARD not in after or not is_broken:
            return await turn(advances, after, **more)
        tried_s.append(time.monotonic())
        return {SHARD: UnreadableEntry("no entry")}

    bench.scripts.turn = fail  # type: ignore[method-assign]
    async with bench.running():
        await eventually(lambda: SHARD in bench.relay.owned_shards())
        while len(tried_s) < 10:
            bench.relay.notice(SHARD)
            await asyncio.sleep(0.001)
        await eventually(lambda: bench.relay.health.last_error == f"shard {SHARD}: UnreadableEntry: no entry")
        is_broken = False
        await bench.reached(1)
        await eventually(lambda: bench.relay.health.last_error is None)
    # A pause is 5 to 10 ms.
    assert all(later - earlier >= 0.005 for earlier, later in itertools.pairwise(tried_s))
    assert len([record for record in caplog.records if "no entry" in record.message]) == 1


async def test_a_shard_that_failed_and_has_nothing_new_is_well_again() -> None:
    """No look at all shards finds it, and nobody notices it: else it would be told of for ever."""
    bench = Bench()
    turn, is_broken = bench.scripts.turn, True

    async def fail(advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
        return {SHARD: ResponseError("BUSY")} if is_broken else await turn(advances, after, **more)

    bench.scripts.turn = fail  # type: ignore[method-assign]
    async with bench.running():
        await eventually(lambda: bench.relay.health.last_error == f"shard {SHARD}: ResponseError: BUSY")
        is_broken = False
        await eventually(lambda: bench.relay.health.last_error is None)


async def test_a_shard_that_failed_and_is_never_idle_is_well_again_once_its_cursor_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_module, "_CHECK_STREAM_EVERY_S", 600.0)
    bench = Bench(1)
    turn, failures = bench.scripts.turn, 1
    told: list[str | None] = []

    def grow() -> None:
        bench.redis.entries.append(len(bench.redis.entries) + 1)
        bench.relay.notice(SHARD)
        told.append(bench.relay.health.last_error)

    async def fail(advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
        nonlocal failures
        await asyncio.sleep(0)
        if failures and SHARD in after:
            failures -= 1
            return {SHARD: ResponseError("BUSY")}
        return await turn(advances, after, **more)

    bench.scripts.turn = fail  # type: ignore[method-assign]
    bench.stream.on_publish = grow
    async with bench.running():
        await eventually(lambda: None in told)
    assert told[0] is not None


async def test_a_shard_whose_cursor_cannot_move_rests_longer_and_longer(caplog: pytest.LogCaptureFixture) -> None:
    """Redis writes nothing because its disk is full, and reads all the same. That its entries can be read is no
    success: after the first pause they would be published again and again."""
    bench = Bench(1, backoff_max_s=0.4)
    turn, is_full = bench.scripts.turn, True
    pauses = bench.relay._resting._pauses

    async def fail(advances: Mapping[str, Any], after: Mapping[str, int], **more: Any) -> Any:
        if SHARD in advances and is_full:
            return {SHARD: ResponseError("MISCONF Errors writing to the AOF file: No space left on device")}
        return await turn(advances, after, **more)

    bench.scripts.turn = fail  # type: ignore[method-assign]
    async with bench.running():
        await eventually(lambda: bench.relay.health.failures_total == 3)
        assert pauses[SHARD].failures == 3
        is_full = False
        await bench.reached(1)
        await eventually(lambda: bench.relay.health.last_error is None)
        assert not pauses
    assert bench.moves == [(OURS, 1)]
    assert len([record for record in caplog.records if "MISCONF" in record.message]) == 1


async def test_a_shard_with_a_foreign_message_is_closed_whatever_another_one_fails_with() -> None:
    bench = Bench(1, 2)
    bench.stream.answers = [PubAck(1), PubAck(7, duplicate=True)]
    bench.stream.looks = [SimpleNamespace(subject="other", data=b"")]
    _break_another_shard(bench)
    async with bench.running():
        await eventually(lambda: bench.scripts.stopped == [OURS])
    assert bench.moves == [(OURS, 1)]


# ------------------------------------------------------------------------------------- how Redis is asked


class Asked:
    """The commands of one turn, in place of Redis; ``answer`` is that of each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any = None) -> None:
        self.commands: list[Call] = []

        async def run_all(script: Script, redis: Any, calls: Sequence[Call]) -> list[Any]:
            self.commands += calls
            return [answer or [[1, b"run", b"1", []]] * (len(keys) // 3) for keys, _ in calls]

        monkeypatch.setattr(Script, "run_all", run_all)


@pytest.mark.parametrize(("reads", "commands"), [(True, 4), (False, 1)])
async def test_few_outboxes_are_read_by_one_command(
    monkeypatch: pytest.MonkeyPatch, reads: bool, commands: int
) -> None:
    """Their entries may be large, and Redis has a script's reply in memory twice. Cursors alone are small."""
    asked = Asked(monkeypatch)
    advances = {shard: Advance(shard, OURS, 1, 1) for shard in names.SHARDS}
    after = dict.fromkeys(names.SHARDS, 0) if reads else {}
    found = await ShardScripts(cast(Any, None)).turn(advances, after, token="mine", stream_id="one", count=1)
    assert list(found) == list(names.SHARDS)
    assert len(asked.commands) == commands


async def test_on_a_cluster_a_command_is_about_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    redis = ClusterClient.__new__(ClusterClient)
    await ShardScripts(redis).turn({}, dict.fromkeys(names.SHARDS, 0), token="mine", stream_id="one", count=1)
    assert len(asked.commands) == len(names.SHARDS)


async def test_an_entry_that_cannot_be_read_is_an_error_of_its_shard_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = [1, b"run-1", b"1", [(b"1-0", [b"item", b"lot", b"events", b"[]"])]]
    damaged = [1, b"run-1", b"1", [(b"1-0", [b"what", b"ever"])]]
    Asked(monkeypatch, answer=[damaged, sound])
    one, other = names.SHARDS[:2]
    found = await ShardScripts(cast(Any, None)).turn({}, {one: 0, other: 0}, token="mine", stream_id="one", count=1)
    assert isinstance(found[one], UnreadableEntry)
    assert found[other] == Turn(True, OURS, [Entry(1, "lot", b"[]", None)])


async def test_nothing_counts_as_moved_where_a_node_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    Asked(monkeypatch, answer=NodeAway("away"))
    advances = {SHARD: Advance(SHARD, OURS, 1, 1)}
    found = await ShardScripts(cast(Any, None)).turn(advances, {}, token="mine", stream_id="one", count=1)
    assert found == {SHARD: Turn(False, None, [])}
