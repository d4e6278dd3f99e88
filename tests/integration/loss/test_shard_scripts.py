"""The scripts on a shard's lease and cursors, on a real Redis: each guard by itself, and all of them without memory."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from api_gateway.engine.bids.acknowledge import ReplicaAcknowledger
from api_gateway.engine.relay.shard_scripts import Advance, ShardScripts, Turn
from archival_worker.outbox.cursors import ADVANCE_ARCHIVED
from archival_worker.outbox.missing_entries import REPUBLISH
from archival_worker.recovery.closed_shards import CLOSE
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key, lease_key, mark_key, opened_key, outbox_key
from tests.integration.loss.cursor_moves import advance_published
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

OURS = Lineage("run-1", 1)
LEASE_MS = 6_000


@pytest.fixture
def shard() -> str:
    """None of the 64, so that nobody else touches it."""
    return f"x{secrets.token_hex(4)}"


async def cursors(redis: Redis, shard: str) -> dict[str, str]:
    found = await cast(Any, redis.hgetall(cursors_key(shard)))
    return {name.decode(): value.decode() for name, value in found.items()}


async def begin(redis: Redis, shard: str, *, token: str = "mine", **fields: str) -> None:
    """A shard of OURS, leased to ``token``."""
    values = {"epoch": "1", "next": "9", "published": "4", "archived": "2", "run": OURS.run} | fields
    await cast(Any, redis.hset(cursors_key(shard), mapping=cast(Mapping[Any, Any], values)))
    await redis.set(lease_key(shard), token, px=LEASE_MS)


async def outbox(redis: Redis, shard: str, *numbers: int) -> None:
    """Entries with these numbers."""
    for n in numbers:
        await redis.xadd(outbox_key(shard), {"item": "lot", "events": "[]"}, id=f"{n}-0")


# ---------------------------------------------------------------------- the lease


async def test_a_lease_is_its_holders_until_it_ends(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    assert await scripts.lease([shard], "mine", LEASE_MS) == [True]
    assert await scripts.lease([shard], "other", LEASE_MS) == [False]
    assert await scripts.lease([shard], "mine", LEASE_MS) == [True]
    assert await redis.get(lease_key(shard)) == b"mine"
    await redis.pexpire(lease_key(shard), 1)

    async def ended() -> bool:
        return (await scripts.lease([shard], "other", LEASE_MS)) == [True]

    await eventually(ended)
    assert await scripts.lease([shard], "mine", LEASE_MS) == [False]


@pytest.mark.parametrize(("left_ms", "is_free"), [(3_600_000, True), (LEASE_MS + 1_000, True), (LEASE_MS - 500, False)])
async def test_a_lease_that_lasts_longer_than_any_is_free(
    redis: Redis, scripts: ShardScripts, shard: str, left_ms: int, is_free: bool
) -> None:
    """Redis' clock stepped back by an hour: its holder, which died since, would keep the shard for that hour."""
    await redis.set(lease_key(shard), "dead", px=left_ms)
    assert await scripts.lease([shard], "mine", LEASE_MS) == [is_free]
    if is_free:
        assert 0 < await redis.pttl(lease_key(shard)) <= LEASE_MS


async def test_a_lease_that_would_never_end_is_free(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    await redis.set(lease_key(shard), "dead")
    assert await scripts.lease([shard], "mine", LEASE_MS) == [True]
    assert 0 < await redis.pttl(lease_key(shard)) <= LEASE_MS


async def test_a_lease_that_cannot_be_taken_leaves_the_others_theirs(
    redis: Redis, scripts: ShardScripts, shard: str
) -> None:
    spoilt = f"{shard}0"
    await redis.set(cursors_key(spoilt), "no hash")
    error, ours = await scripts.lease([spoilt, shard], "mine", LEASE_MS)
    assert isinstance(error, ResponseError)
    assert ours is True
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await scripts.lease([spoilt], "mine", LEASE_MS)


async def test_only_its_holder_gives_a_lease_back(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    await scripts.lease([shard], "mine", LEASE_MS)
    await scripts.release([shard], "other")
    assert await redis.get(lease_key(shard)) == b"mine"
    await scripts.release([shard], "mine")
    assert await redis.get(lease_key(shard)) is None


async def test_a_lease_that_is_left_is_taken_by_who_reaches_the_stream_and_by_nobody_else(
    redis: Redis, scripts: ShardScripts, shard: str
) -> None:
    """Its holder does not reach the stream, and keeps it for as long as that is better than nobody."""
    assert await scripts.lease([shard], "mine", LEASE_MS, hold="leave") == [True], "a free one, for the closer"
    assert await scripts.lease([shard], "mine", LEASE_MS, hold="leave") == [True]
    for hold in ("keep", "leave"):
        assert await scripts.lease([shard], "other", LEASE_MS, hold=cast(Any, hold)) == [False]
    assert await scripts.lease([shard], "mine", LEASE_MS, hold="take") == [True], "it reaches the stream again"
    assert await scripts.lease([shard], "other", LEASE_MS, hold="take") == [False]
    assert await scripts.lease([shard], "mine", LEASE_MS, hold="leave") == [True]
    assert await scripts.lease([shard], "other", LEASE_MS, hold="take") == [True]
    for hold in ("keep", "leave", "take"):
        assert await scripts.lease([shard], "mine", LEASE_MS, hold=cast(Any, hold)) == [False]
    assert 0 < await redis.pttl(lease_key(shard)) <= LEASE_MS


async def test_who_has_left_a_lease_moves_nothing_and_may_give_it_back(
    redis: Redis, scripts: ShardScripts, shard: str
) -> None:
    """PubAcks that arrive after all: whoever has taken the shard meanwhile need not be asked."""
    await begin(redis, shard)
    assert await scripts.lease([shard], "mine", LEASE_MS, hold="leave") == [True]
    before = await cursors(redis, shard)
    assert await advance_published(scripts, [Advance(shard, OURS, 6, 77)], token="mine", stream_id="") == [False]
    assert not await scripts.rewind_published(shard, token="mine", stream_id="new")
    assert not await scripts.stop_shard(shard, OURS, token="mine")
    assert await cursors(redis, shard) == before
    await scripts.release([shard], "other")
    assert await redis.exists(lease_key(shard))
    await scripts.release([shard], "mine")
    assert not await redis.exists(lease_key(shard))


# ---------------------------------------------------------------------- the cursor `published`


@pytest.mark.parametrize(
    ("token", "lineage", "former", "stream_id", "moves"),
    [
        ("mine", OURS, "one", "one", True),
        ("mine", OURS, "", "one", True),
        ("other", OURS, "one", "one", False),
        ("mine", Lineage("run-2", 1), "one", "one", False),
        ("mine", Lineage("", 1), "one", "one", False),
        ("mine", Lineage("run-1", 2), "one", "one", False),
        ("mine", OURS, "one", "two", False),
    ],
)
async def test_only_the_holder_of_the_lease_moves_the_cursor_and_only_of_what_it_has_read(
    redis: Redis,
    scripts: ShardScripts,
    shard: str,
    token: str,
    lineage: Lineage,
    former: str,
    stream_id: str,
    moves: bool,
) -> None:
    await begin(redis, shard, stream_id=former, stream_seq="70")
    before = await cursors(redis, shard)
    advances = [Advance(shard, lineage, 6, 77)]
    assert await advance_published(scripts, advances, token=token, stream_id=stream_id) == [moves]
    moved = {"published": "6", "stream_id": "one", "stream_seq": "77"}
    assert await cursors(redis, shard) == (before | moved if moves else before)


@pytest.mark.parametrize(("after", "moves"), [(5, False), (4, True), (3, True)])
async def test_the_cursor_is_not_moved_past_entries_that_are_behind_what_was_read(
    redis: Redis, scripts: ShardScripts, shard: str, after: int, moves: bool
) -> None:
    """1. A relay has published 5 entries, and loses Redis. 2. The stream is lost; another relay goes back, and dies.
    3. The first one has its lease again, and publishes entry 6. The five are in no stream."""
    await begin(redis, shard, published="4", stream_id="one")
    advance = Advance(shard, OURS, 6, 77, after)
    assert await advance_published(scripts, [advance], token="mine", stream_id="one") == [moves]
    assert (await cursors(redis, shard))["published"] == ("6" if moves else "4")


async def test_without_a_lease_nobody_moves_the_cursor(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    await begin(redis, shard)
    await redis.delete(lease_key(shard))
    before = await cursors(redis, shard)
    assert await advance_published(scripts, [Advance(shard, OURS, 6, 77)], token="mine", stream_id="") == [False]
    assert not await scripts.rewind_published(shard, token="mine", stream_id="new")
    assert not await scripts.stop_shard(shard, OURS, token="mine")
    assert await cursors(redis, shard) == before


async def test_the_cursor_never_moves_down(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    await begin(redis, shard, stream_seq="70")
    before = await cursors(redis, shard)
    for entry in (4, 3):
        assert await advance_published(scripts, [Advance(shard, OURS, entry, 9)], token="mine", stream_id="one") == [
            True
        ]
    assert await cursors(redis, shard) == before


async def test_a_turn_moves_the_cursor_and_reads_on(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    await begin(redis, shard)
    await outbox(redis, shard, 5, 6, 7, 8, 9)
    advances = {shard: Advance(shard, OURS, 6, 77, 4)}
    found = await scripts.turn(advances, {shard: 6}, token="mine", stream_id="one", count=2)
    turn = found[shard]
    assert isinstance(turn, Turn)
    assert (turn.moved, turn.lineage) == (True, OURS)
    assert [entry.n for entry in turn.entries] == [7, 8]
    assert (await cursors(redis, shard))["published"] == "6"


async def test_nothing_is_read_of_a_shard_whose_cursor_may_not_be_moved(
    redis: Redis, scripts: ShardScripts, shard: str
) -> None:
    await begin(redis, shard, token="other")
    await outbox(redis, shard, 5, 6, 7)
    advances = {shard: Advance(shard, OURS, 6, 77, 4)}
    found = await scripts.turn(advances, {shard: 6}, token="mine", stream_id="one", count=9)
    assert found == {shard: Turn(False, OURS, [])}
    assert (await cursors(redis, shard))["published"] == "4"


async def test_a_turn_at_many_shards_keeps_them_apart(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    """One moves and is read, one only moves, one is only read, one is another's, and one is lost."""
    shards = [f"{shard}{number}" for number in range(5)]
    both, moves, read, foreign, lost = shards
    for each in (both, moves, read):
        await begin(redis, each)
    await begin(redis, foreign, token="other")
    for each in (both, moves, read, foreign):
        await outbox(redis, each, 5, 6, 7)
    advances = {each: Advance(each, OURS, 6, 77, 4) for each in (both, moves, foreign)}
    after = {both: 6, read: 4, foreign: 6, lost: 0}
    found = await scripts.turn(advances, after, token="mine", stream_id="one", count=9)
    turns = {each: turn for each, turn in found.items() if isinstance(turn, Turn)}
    assert {each: [entry.n for entry in turn.entries] for each, turn in turns.items()} == {
        both: [7],
        moves: [],
        read: [5, 6, 7],
        foreign: [],
        lost: [],
    }
    assert {each for each, turn in turns.items() if not turn.moved} == {foreign}
    assert {each for each, turn in turns.items() if turn.lineage is None} == {lost}
    published = {each: (await cursors(redis, each)).get("published") for each in shards}
    assert published == {both: "6", moves: "6", read: "4", foreign: "4", lost: None}


async def test_a_step_that_fails_leaves_the_others_their_turn(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    spoilt, sound = f"{shard}0", f"{shard}1"
    await begin(redis, sound)
    await redis.set(cursors_key(spoilt), "no hash")
    advances = {sound: Advance(sound, OURS, 6, 77, 4)}
    found = await scripts.turn(advances, {spoilt: 0, sound: 6}, token="mine", stream_id="one", count=9)
    assert isinstance(found[spoilt], ResponseError)
    assert found[sound] == Turn(True, OURS, [])
    assert (await cursors(redis, sound))["published"] == "6"


async def test_it_goes_back_to_what_is_archived(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    await begin(redis, shard, republish="1", stream_id="one", stream_seq="70")
    assert not await scripts.rewind_published(shard, token="other", stream_id="two")
    assert (await cursors(redis, shard))["published"] == "4"
    assert await scripts.rewind_published(shard, token="mine", stream_id="two")
    found = await cursors(redis, shard)
    assert (found["published"], found["stream_id"], found["stream_seq"]) == ("2", "two", "0")
    assert "republish" not in found


# ---------------------------------------------------------------------- cursors as a whole


async def test_a_shard_is_made_once_and_never_over_what_is_left_of_it(
    redis: Redis, scripts: ShardScripts, shard: str
) -> None:
    assert await scripts.init_shard(shard, run="run-1")
    assert await cursors(redis, shard) == {
        **{"epoch": "1", "next": "0", "published": "0", "archived": "0", "stream_id": "", "stream_seq": "0"},
        "run": "run-1",
    }
    await redis.hset(cursors_key(shard), "next", "5")
    assert not await scripts.init_shard(shard, run="run-2")
    assert (await cursors(redis, shard))["next"] == "5"
    # One that is closed has no epoch, and is none the newer for it.
    await redis.hdel(cursors_key(shard), "epoch")
    assert not await scripts.init_shard(shard, run="run-2")
    assert "epoch" not in await cursors(redis, shard)


@pytest.mark.parametrize(
    ("known", "closes"), [((1, 10), True), ((2, 0), True), ((1, 9), False), ((1, 8), False), ((0, 99), False)]
)
async def test_a_shard_is_closed_only_by_an_entry_that_it_has_not_given_out(
    redis: Redis, scripts: ShardScripts, shard: str, known: tuple[int, int], closes: bool
) -> None:
    await begin(redis, shard)
    before = await cursors(redis, shard)
    assert await scripts.close_shard(shard, epoch=known[0], n=known[1]) is closes
    found = await cursors(redis, shard)
    if closes:
        assert found.pop("stale") == before.pop("epoch") == "1"
    assert found == before
    if closes:
        assert not await scripts.close_shard(shard, epoch=99, n=99), "it is closed already"
        assert (await cursors(redis, shard))["stale"] == "1"


async def test_a_shard_without_cursors_is_not_closed(redis: Redis, scripts: ShardScripts, shard: str) -> None:
    assert not await scripts.close_shard(shard, epoch=1, n=1)
    assert not await scripts.stop_shard(shard, OURS, token="mine")
    await scripts.admit_shards({shard: (0, 0)}, run="run-1")
    assert await cursors(redis, shard) == {}


@pytest.mark.parametrize(("known", "is_admitted"), [((1, 9), True), ((0, 99), True), ((1, 10), False), ((2, 0), False)])
async def test_a_run_is_admitted_where_it_has_given_out_what_is_known(
    redis: Redis, scripts: ShardScripts, shard: str, known: tuple[int, int], is_admitted: bool
) -> None:
    await begin(redis, shard)
    await scripts.admit_shards({shard: known}, run="run-2")
    assert (await cursors(redis, shard))["run"] == ("run-2" if is_admitted else "run-1")


async def test_what_is_asked_of_a_shard_without_an_epoch_leaves_no_cursors(
    redis: Redis, scripts: ShardScripts, shard: str
) -> None:
    """Cursors that say nothing would keep a new shard from being made, and a rebuilt one from being found."""
    for left in ({}, {"stale": "1", "next": "9"}):
        if left:
            await redis.hset(cursors_key(shard), mapping=cast(Mapping[Any, Any], left))
        assert await REPUBLISH.run(redis, [cursors_key(shard)], []) == 0
        assert await CLOSE.run(redis, [cursors_key(shard), "no such item"], []) == 0
        assert await scripts.lease([shard], "mine", LEASE_MS) == [True]
        assert not await scripts.rewind_published(shard, token="mine", stream_id="one")
        assert await cursors(redis, shard) == left


async def test_a_shard_is_not_closed_for_an_item_that_is_there_by_now(redis: Redis, shard: str) -> None:
    """It was opened, or is back, since somebody found it to be lost: its neighbours go on."""
    await begin(redis, shard)
    before = await cursors(redis, shard)
    item = f"{{{shard}}}:item:lot"
    await redis.hset(item, "price", "1")
    assert await CLOSE.run(redis, [cursors_key(shard), item], []) == 0
    assert await cursors(redis, shard) == before
    await redis.delete(item)
    assert await CLOSE.run(redis, [cursors_key(shard), item], []) == 1
    found = await cursors(redis, shard)
    assert found.pop("stale") == before.pop("epoch")
    assert found == before


@pytest.mark.parametrize(
    ("token", "lineage", "stops"),
    [
        ("mine", OURS, True),
        ("other", OURS, False),
        ("mine", Lineage("run-2", 1), False),
        ("mine", Lineage("run-1", 2), False),
    ],
)
async def test_a_shard_is_stopped_by_its_relay_alone(
    redis: Redis, scripts: ShardScripts, shard: str, token: str, lineage: Lineage, stops: bool
) -> None:
    await begin(redis, shard)
    before = await cursors(redis, shard)
    assert await scripts.stop_shard(shard, lineage, token=token) is stops
    found = await cursors(redis, shard)
    if stops:
        assert found.pop("stale") == before.pop("epoch")
    assert found == before


# ---------------------------------------------------------------------- what is archived


@pytest.mark.parametrize(
    ("epoch", "n", "reply"),
    [(1, 3, [2, 2, 2]), (3, 3, [2, 2, 2]), (2, 10, [4, 2, 9]), (2, 2, [0, 2, 2])],
    ids=["a former epoch", "an epoch that Redis has lost", "more than was given out", "known already"],
)
async def test_what_is_archived_of_another_outbox_trims_nothing(
    redis: Redis, shard: str, epoch: int, n: int, reply: list[int]
) -> None:
    """A rebuilt shard counts its entries from 1 again. A position of its former epoch says nothing about them."""
    await begin(redis, shard, epoch="2")
    for entry in range(3, 10):
        await redis.xadd(outbox_key(shard), {"item": "lot"}, id=f"{entry}-0")
    before = await cursors(redis, shard)
    keys = [cursors_key(shard), outbox_key(shard), opened_key(shard)]
    assert await ADVANCE_ARCHIVED.run(redis, keys, [epoch, n]) == reply
    assert await cursors(redis, shard) == before
    assert await redis.xlen(outbox_key(shard)) == 7


# ---------------------------------------------------------------------- without memory


async def test_an_item_is_named_as_opened_until_the_archive_has_it(redis: Redis, shard: str) -> None:
    """By what is archived, and no further than the outbox is trimmed."""
    await begin(redis, shard)
    keys = [cursors_key(shard), outbox_key(shard), opened_key(shard)]
    opened = cast(Any, redis)
    await opened.zadd(opened_key(shard), {"a": 3, "b": 4, "c": 5})
    assert await ADVANCE_ARCHIVED.run(redis, keys, ["1", "3"]) == [1, 1, 3]
    assert await opened.zrange(opened_key(shard), 0, -1) == [b"b", b"c"]
    assert await ADVANCE_ARCHIVED.run(redis, keys, ["1", "9"]) == [5, 1, 4], "the rest is not published"
    assert await opened.zrange(opened_key(shard), 0, -1) == [b"c"]


@asynccontextmanager
async def full(redis: Redis) -> AsyncIterator[None]:
    """Redis may use less than it does."""
    await redis.config_set("maxmemory", "1")
    try:
        with pytest.raises(OutOfMemoryError):
            await redis.set("anything", "1")
        yield
    finally:
        await redis.config_set("maxmemory", "0")


async def test_what_makes_room_works_without_memory(start_stack: StackFactory, shard: str) -> None:
    """Redis refuses the first write of a script if it may take memory, and none after it."""
    stack = await start_stack(services=())
    async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
        scripts = ShardScripts(redis)
        await begin(redis, shard)
        for number, token in enumerate(("other", "mine", "mine")):
            await begin(redis, f"{shard}{number}", token=token)
        for n in range(1, 10):
            await redis.xadd(outbox_key(shard), {"item": "lot"}, id=f"{n}-0")
        async with full(redis):
            # Those that must: none of these scripts is loaded yet either.
            assert await scripts.lease([shard], "mine", LEASE_MS) == [True]
            assert await advance_published(scripts, [Advance(shard, OURS, 6, 7)], token="mine", stream_id="one") == [
                True
            ]
            # Of several shards in one command the first is another's: one write makes way for all that come after it.
            others = [f"{shard}{number}" for number in range(3)]
            turns = await advance_published(
                scripts, [Advance(each, OURS, 6, 7) for each in others], token="mine", stream_id="one"
            )
            assert turns == [False, True, True]
            assert await scripts.rewind_published(shard, token="mine", stream_id="two")
            await scripts.admit_shards({shard: (1, 9)}, run="run-2")
            keys = [cursors_key(shard), outbox_key(shard), opened_key(shard)]
            assert await ADVANCE_ARCHIVED.run(redis, keys, ["1", "7"]) == [5, 1, 2], "not published again"
            again = Advance(shard, Lineage("run-2", 1), 7, 8)
            assert await advance_published(scripts, [again], token="mine", stream_id="two") == [True]
            assert await ADVANCE_ARCHIVED.run(redis, keys, ["1", "7"]) == [1, 1, 7]
            assert await redis.xlen(outbox_key(shard)) == 2
            assert await REPUBLISH.run(redis, [cursors_key(shard)], []) == 1
            assert (await cursors(redis, shard))["republish"] == "1"
            mark = [mark_key(shard), cursors_key(shard)]
            assert await ReplicaAcknowledger._mark.run(redis, mark, ["1000"]) == 1
            assert await scripts.stop_shard(shard, Lineage("run-2", 1), token="mine")
            await scripts.release([shard], "mine")
            assert await scripts.lease([shard], "other", LEASE_MS) == [True], "and from the beginning"
            await redis.delete(cursors_key(shard))
        await begin(redis, shard)
        async with full(redis):
            assert await scripts.close_shard(shard, epoch=9, n=9)
        await begin(redis, shard)
        async with full(redis):
            assert await CLOSE.run(redis, [cursors_key(shard), "no such item"], []) == 1
        # Those that must not.
        async with full(redis):
            with pytest.raises(OutOfMemoryError):
                await scripts.init_shard(f"{shard}-new")
        assert not await redis.exists(cursors_key(f"{shard}-new"))
