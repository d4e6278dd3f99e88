"""Which runs of Redis are admitted, and which shards are closed, without a network."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from api_gateway.engine.loss.guard import Guard, NotAdmitted
from shared import names
from shared.domain.errors import Unavailable
from shared.redis_layout.outbox import EntryId
from tests.unit.api_gateway.engine.loss.shards_bench import Bench


class FakeConnection:
    """A new connection to the run of Redis that a test names, whose data bears the mark of another one, or none."""

    def __init__(
        self, run: str, *, role: str = "master", marked: str = "", epoch: str = "1", history: str = "h"
    ) -> None:
        self._answers: dict[str, bytes | list[bytes | None]] = {
            "INFO": (
                f"# Server\r\nredis_version:8\r\nrun_id:{run}\r\n\r\n# Replication\r\nrole:{role}\r\n"
                f"master_replid:{history}\r\nmaster_replid2:0\r\n"
            ).encode(),
            "HMGET": [epoch.encode() or None, marked.encode() or None],
        }
        self._asked = ""
        self.shaken_hands = False
        self.is_closed = False

    async def disconnect(self, *, nowait: bool) -> None:
        self.is_closed = True

    async def on_connect(self) -> None:
        self.shaken_hands = True

    async def send_command(self, *words: str) -> None:
        self._asked = words[0]

    async def read_response(self) -> bytes | list[bytes | None]:
        return self._answers[self._asked]


class Comparison:
    """What the guard has asked for; it lasts until it is let go, and fails where the test says so."""

    def __init__(self) -> None:
        self.begun = 0
        self.runs: list[str] = []
        self.fails = False
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def __call__(self, run: str) -> None:
        self.begun += 1
        self.runs.append(run)
        await self.may_end.wait()
        if self.fails:
            raise Unavailable("nobody to be asked")


async def connect(guard: Guard, run: str, **options: str) -> None:
    connection = FakeConnection(run, **options)
    is_admitted = False
    try:
        await guard.on_connect(cast(Any, connection))
        is_admitted = True
        assert guard.run_of(cast(Any, connection)) == run
    finally:
        assert connection.shaken_hands
        assert connection.is_closed is not is_admitted, "who is not admitted must not be used"


async def test_each_run_of_redis_is_compared_once_and_all_its_connections_wait_for_that() -> None:
    comparison = Comparison()
    guard = Guard(comparison)
    comparison.may_end.clear()
    waiting = [asyncio.create_task(connect(guard, "a")) for _ in range(5)]
    done, _ = await asyncio.wait(waiting, timeout=0.05)
    assert (done, comparison.begun) == (set(), 1)
    comparison.may_end.set()
    await asyncio.gather(*waiting)
    await connect(guard, "a", marked="a")
    assert comparison.begun == 1
    await connect(guard, "b")
    assert comparison.runs == ["a", "b"]
    await connect(guard, "b", marked="a", epoch="")
    assert comparison.runs == ["a", "b"], "a closed shard keeps its mark until it is rebuilt"
    await connect(guard, "b", marked="a")
    assert comparison.runs == ["a", "b", "b"]


async def test_connections_that_wait_at_a_new_run_with_a_former_mark_share_its_comparison() -> None:
    """After a failover all connections are made anew at once. Each comparison reads the stream, so one after the other
    would keep the last of them waiting for a minute."""
    comparison = Comparison()
    guard = Guard(comparison)
    await connect(guard, "a", marked="a")
    comparison.may_end.clear()
    waiting = [asyncio.create_task(connect(guard, "b", marked="a")) for _ in range(32)]
    await asyncio.sleep(0.05)
    comparison.may_end.set()
    await asyncio.gather(*waiting)
    assert comparison.runs == ["a", "b", "b"], "the second for all who came while the first was under way"
    await connect(guard, "b", marked="a")
    assert comparison.runs == ["a", "b", "b", "b"], "what was asked later is compared again"


async def test_a_mark_that_is_found_while_a_comparison_is_under_way_is_compared_again() -> None:
    comparison = Comparison()
    guard = Guard(comparison)
    comparison.may_end.clear()
    first = asyncio.create_task(connect(guard, "b", marked="a"))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(connect(guard, "b", marked="a"))
    await asyncio.sleep(0.01)
    comparison.may_end.set()
    await asyncio.gather(first, second)
    assert comparison.runs == ["b", "b"], "the first may have read its shards before that mark was there"


async def test_a_run_that_cannot_be_compared_is_not_admitted_but_asked_about_again() -> None:
    comparison = Comparison()
    guard = Guard(comparison)
    comparison.fails = True
    for _ in range(2):
        with pytest.raises(NotAdmitted, match="nobody to be asked"):
            await connect(guard, "a")
    comparison.fails = False
    await connect(guard, "a")
    assert comparison.begun == 3


async def test_a_connection_whose_caller_gives_up_before_it_is_admitted_is_closed() -> None:
    """The library would put it back into the pool as it is, and others would use it."""
    comparison = Comparison()
    comparison.may_end.clear()
    waiting = asyncio.create_task(connect(Guard(comparison), "a"))
    await asyncio.wait([waiting], timeout=0.05)
    assert comparison.begun == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_replica_is_not_admitted() -> None:
    comparison = Comparison()
    with pytest.raises(NotAdmitted, match="is a replica"):
        await connect(Guard(comparison), "a", role="slave")
    assert comparison.begun == 0


async def test_a_run_that_followed_another_one_meanwhile_is_compared_again() -> None:
    """A primary that was made a replica, and promoted again, is the same run; its data bears the other one's mark."""
    comparison = Comparison()
    guard = Guard(comparison)
    await connect(guard, "a", marked="a")
    comparison.fails = True
    with pytest.raises(NotAdmitted):
        await connect(guard, "a", marked="b")


async def test_a_run_whose_data_has_another_history_is_compared_once_more() -> None:
    """The other primary had a copy of its data, with its mark."""
    comparison = Comparison()
    guard = Guard(comparison)
    await connect(guard, "a", marked="a", history="one")
    comparison.may_end.clear()
    waiting = [asyncio.create_task(connect(guard, "a", marked="a", history="two")) for _ in range(5)]
    await asyncio.sleep(0.05)
    comparison.may_end.set()
    await asyncio.gather(*waiting)
    await connect(guard, "a", marked="a", history="two")
    assert comparison.runs == ["a", "a"]


async def test_a_connection_that_is_made_again_to_a_replica_is_of_no_run() -> None:
    """Whoever still has it may not take its answers for those of the run that it had reached before."""
    guard = Guard(Comparison())
    connection: Any = FakeConnection("a")
    await guard.on_connect(connection)
    assert guard.run_of(connection) == "a"
    connection._answers |= FakeConnection("a", role="slave")._answers
    with pytest.raises(NotAdmitted):
        await guard.on_connect(connection)
    assert guard.run_of(connection) == ""


async def test_what_was_forgotten_is_compared_again() -> None:
    comparison = Comparison()
    guard = Guard(comparison)
    await connect(guard, "a")
    assert guard.run == "a"
    guard.forget()
    await connect(guard, "a")
    assert comparison.runs == ["a", "a"]


@pytest.mark.parametrize(
    ("place", "is_closed"),
    [
        (EntryId(1, 7), False),
        (EntryId(1, 8), True),
        (EntryId(2, 0), True),
        (EntryId(0, 99), False),
        (EntryId(0, 0), False),
    ],
)
async def test_a_shard_is_closed_where_more_of_it_is_known_elsewhere(place: EntryId, is_closed: bool) -> None:
    bench = Bench()
    bench.redis.places["s07"] = EntryId(1, 7)
    bench.knows({"s07": place}, archive=True, stream=False)
    await bench.shards.compare()
    assert bench.scripts.closed == ({"s07": place} if is_closed else {})


async def test_what_this_process_has_seen_counts_whoever_else_was_asked() -> None:
    bench = Bench()
    bench.redis.places["s07"] = EntryId(1, 7)
    await bench.shards.look()
    bench.shards.given_out("s07", 1, 9)
    bench.shards.given_out("s07", 1, 8)
    bench.redis.places["s07"] = EntryId(1, 9)
    await bench.shards.compare()
    assert bench.scripts.closed == {}, "the same Redis as before"
    bench.redis.places["s07"] = EntryId(1, 8)
    bench.knows({"s07": EntryId(1, 6)}, archive=True, stream=True)
    await bench.shards.compare()
    assert bench.scripts.closed == {"s07": EntryId(1, 9)}


@pytest.mark.parametrize("archive", [True, False])
async def test_another_run_is_admitted_by_the_streams_word_alone(archive: bool) -> None:
    """The archive may be far behind: what was published a moment ago is in the stream only."""
    bench = Bench()
    bench.redis.places["s07"] = EntryId(1, 7)
    await bench.shards.compare("a")
    bench.redis.run = "b"
    bench.knows({"s07": EntryId(1, 7)}, archive=archive, stream=False)
    for _ in range(2):
        with pytest.raises(Unavailable, match="may be an older copy"):
            await bench.shards.compare("b")
    assert bench.shards.health.not_admitted is not None
    assert set(bench.redis.marks.values()) == {"a"}
    bench.knows({"s07": EntryId(1, 7)}, archive=archive, stream=True)
    await bench.shards.compare("b")
    assert bench.shards.health.not_admitted is None
    assert set(bench.redis.marks.values()) == {"b"}
    assert bench.initialised == 1, "relays must take it up"


async def test_who_starts_while_nobody_can_be_asked_takes_the_word_of_a_run_that_was_admitted() -> None:
    bench = Bench()
    bench.redis.places["s07"] = EntryId(1, 7)
    bench.redis.marks["s08"] = ""  # rebuilt since
    bench.knows(archive=False, stream=False)
    await bench.shards.compare("a")
    assert set(bench.redis.marks.values()) == {"a"}


@pytest.mark.parametrize("marks", [{}, {"s07": "b"}, {"s07": "b", "s08": "a"}])
async def test_marks_of_another_run_or_none_at_all_admit_nobody(marks: dict[str, str]) -> None:
    bench = Bench()
    bench.redis.marks = dict.fromkeys(names.SHARDS, "") | marks
    bench.knows(archive=True, stream=False)
    with pytest.raises(Unavailable, match="may be an older copy"):
        await bench.shards.compare("a")


async def test_a_redis_without_any_shard_needs_nobodys_word() -> None:
    """Nothing can be given out twice; whether its shards are new is another question."""
    bench = Bench()
    bench.redis.places = dict.fromkeys(names.SHARDS)
    bench.knows(archive=False, stream=False)
    await bench.shards.compare("a")
    with pytest.raises(Unavailable):
        await bench.shards.look()


async def test_the_run_that_was_reached_must_be_the_one_that_is_compared() -> None:
    bench = Bench()
    with pytest.raises(Unavailable, match="being replaced"):
        await bench.shards.compare("b")
    assert bench.redis.disconnected == 1, "the connection that leads elsewhere must be left"
    bench.redis.run = "b"
    bench.scripts.moves = lambda: setattr(bench.redis, "run", "c")
    with pytest.raises(Unavailable, match="being replaced"):
        await bench.shards.compare("b")


async def test_no_shard_begins_anew_beside_lost_ones() -> None:
    bench = Bench()
    bench.redis.places = dict.fromkeys(names.SHARDS)
    bench.knows({"s07": EntryId(1, 7)}, archive=True, stream=True)
    await bench.shards.look()
    assert bench.scripts.made == [], "any of them may have had bids that nobody knows of yet"
    assert bench.shards.health.lost == set(names.SHARDS)
    bench.knows(archive=True, stream=True)
    await bench.shards.look()
    assert sorted(bench.scripts.made) == sorted(names.SHARDS)


async def test_no_shard_begins_anew_beside_a_closed_one_of_which_nobody_else_knows() -> None:
    """It went back to its very beginning, as its neighbours may have; and who is closed is not ready."""
    bench = Bench()
    bench.redis.places["s07"] = bench.redis.places["s08"] = None
    bench.redis.stale.add("s07")
    bench.knows(archive=True, stream=True)
    await bench.shards.look()
    assert bench.scripts.made == []
    assert bench.shards.health.lost == {"s07", "s08"}
    assert bench.shards.health.stale == {"s07"}


async def test_whoever_is_to_be_admitted_is_compared_with_more_than_the_last_messages() -> None:
    bench = Bench()
    await bench.shards.compare()
    assert bench.past.looks_back == [False], "it is admitted"
    await bench.shards.compare("a")
    bench.redis.marks["s07"] = "b"
    await bench.shards.compare()
    assert bench.past.looks_back == [False, True, False, True]
    assert bench.redis.marks["s07"] == "a"


async def test_a_history_that_changed_is_looked_into_at_once() -> None:
    bench = Bench()
    await bench.shards.look()
    await bench.shards.compare()
    due_s = bench.shards._compare_at_s
    await bench.shards.look()
    assert bench.shards._compare_at_s == due_s > 0
    bench.redis.history = "other"
    await bench.shards.look()
    assert bench.shards._compare_at_s == 0


async def test_a_closed_shard_is_lost_whoever_knows_it_and_nothing_begins_anew_beside_it() -> None:
    """It went back to its very beginning, so neither the stream nor the archive has anything of it."""
    bench = Bench()
    bench.redis.places |= dict.fromkeys(["s07", "s08"])
    bench.redis.stale = {"s07"}
    for _ in range(2):
        await bench.shards.look()
        health = bench.shards.health
        assert (health.lost, health.stale, health.missing) == ({"s07", "s08"}, {"s07"}, {"s07", "s08"})
        assert not health.ready
    assert bench.scripts.made == []


async def test_a_shard_that_does_not_get_its_cursors_is_not_ready() -> None:
    """Something is where they should be, without an epoch."""
    bench = Bench()
    bench.redis.places |= dict.fromkeys(["s07", "s08"])
    bench.scripts.has_left_overs = {"s07"}
    await bench.shards.look()
    assert bench.scripts.made == ["s08"]
    assert (bench.shards.health.missing, bench.shards.health.lost) == ({"s07"}, set())
    bench.scripts.has_left_overs = set()
    await bench.shards.look()
    assert bench.shards.health.ready
