from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, cast

import pytest
from redis.exceptions import ReadOnlyError, ResponseError

from api_gateway.engine import closer as module
from api_gateway.engine.closer import Closer
from api_gateway.engine.item_scripts import DUE, ItemScripts, ScriptLimits
from shared.domain.errors import BiddingError, ItemNotFound
from shared.redis_layout.keys import deadlines_key
from tests.waiting import eventually


class FakeScripts:
    """Items that are due, in their order; those that begin with ``lost`` cannot be advanced."""

    def __init__(self, *due: str) -> None:
        self.waiting = list(due)
        self.calls: list[str] = []

    async def due(self, shards: Sequence[str], *, count: int) -> dict[str, list[str]]:
        return {shards[0]: self.waiting[:count]} if self.waiting else {}

    async def advance(self, item_ids: Sequence[str]) -> list[int | BiddingError]:
        self.calls += item_ids
        self.waiting = [item_id for item_id in self.waiting if item_id.startswith("lost") or item_id not in item_ids]
        return [ItemNotFound(item_id) if item_id.startswith("lost") else 1 for item_id in item_ids]


def closer(scripts: FakeScripts, told: list[str] | None = None) -> Closer:
    """``told``: gets the shards whose outboxes grew."""
    on_outbox = (lambda shard: None) if told is None else told.append
    return Closer(cast(ItemScripts, scripts), owned_shards=lambda: ["s00"], on_outbox=on_outbox)


async def test_items_that_cannot_be_closed_do_not_hold_up_those_behind_them(caplog: pytest.LogCaptureFixture) -> None:
    lost = [f"lost-{number}" for number in range(150)]
    scripts = FakeScripts(*lost, "sound")
    one = closer(scripts)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await one.look()
    assert scripts.waiting == lost, "the one behind them is closed"
    assert sorted(scripts.calls) == sorted([*lost, "sound"]), "the others are not called again at once"
    assert one.stuck == len(lost)
    assert len(caplog.records) == 1, "and told of in one line"
    assert "lost-0" in caplog.text


async def test_what_is_due_and_more_is_looked_for_at_once() -> None:
    scripts = FakeScripts(*(f"item-{number}" for number in range(130)))
    told: list[str] = []
    one = closer(scripts, told)
    assert await one.look(), "a full look may not have been all"
    assert not await one.look()
    assert (scripts.waiting, one.advanced_total) == ([], 130)
    assert told == ["s00"] * 130, "the relay need not look by itself"


async def test_of_items_that_cannot_be_closed_a_bounded_number_is_kept_and_they_do_not_make_it_hurry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_STUCK_MAX", 120)
    scripts = FakeScripts(*(f"lost-{number}" for number in range(500)))
    one = closer(scripts)
    for _ in range(3):
        assert not await one.look(), "a look that is full of them would be made again at once, and for ever"
    assert one.stuck == 120
    assert len(one._untold) <= 120


async def test_what_was_told_once_is_not_told_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TELL_EVERY_S", 0.0)
    one = closer(FakeScripts("lost-1"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await one.look()
    assert len(caplog.records) == 1


async def test_a_shard_that_cannot_be_asked_is_asked_again_after_a_pause_and_counts_until_it_answers() -> None:
    redis = FakeRedis({"s03": NO_STREAM, "s07": [], "s40": []}, {})
    one = real_closer(redis)
    await one.look()
    assert (one.stuck, len(redis.asked)) == (1, 3)
    await one.look()
    assert (one.stuck, len(redis.asked)) == (1, 2), "not ten times a second"
    one._stuck_shards["s03"] = 0.0
    redis.due[deadlines_key("s03")] = []
    await one.look()
    assert (one.stuck, len(redis.asked)) == (0, 3)


async def test_a_shard_that_is_anothers_by_now_is_no_longer_counted() -> None:
    redis = FakeRedis({"s03": NO_STREAM, "s07": [], "s40": []}, {})
    one = real_closer(redis)
    await one.look()
    one._owned_shards = lambda: ["s07"]
    await one.look()
    assert one.stuck == 0


async def test_it_goes_on_when_redis_is_back() -> None:
    redis = FakeRedis({"s03": FOLLOWS, "s07": [], "s40": [b"last"]}, {})
    task = asyncio.create_task(real_closer(redis).run())
    await asyncio.sleep(0)
    redis.due[deadlines_key("s03")] = []
    try:
        assert await eventually(lambda: redis.advanced[:1] == ["last"], seconds=10)
    finally:
        task.cancel()
        await asyncio.wait([task])


NO_STREAM = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value script: 1f, on line 40")
FOLLOWS = ReadOnlyError("You can't write against a read only replica.")


class FakeRedis:
    """What the two scripts answer, by shard and by item; an item without an answer is advanced."""

    def __init__(self, due: dict[str, list[bytes] | Exception], answers: dict[str, Exception]) -> None:
        self.due = {deadlines_key(shard): answer for shard, answer in due.items()}
        self.answers = answers
        self.advanced: list[str] = []
        self.asked: Sequence[str] = ()
        """The keys of the shards that were asked about last."""

    async def evalsha(self, sha: str, key_count: int, *told: Any) -> list[Any]:
        keys, arguments = told[:key_count], told[key_count:]
        if sha == DUE.sha:
            self.asked = keys
            return [each for at, key in enumerate(keys, start=1) if self.due[key] for each in (at, self.due[key])]
        # Of each call the numbers of its keys and arguments, and these: the first is the item.
        return [self._advance(item_id) for item_id in arguments[2 :: 2 + arguments[1]]]

    def _advance(self, item_id: str) -> Any:
        if item_id not in self.answers:
            self.advanced.append(item_id)
        return self.answers.get(item_id, [0, 1, b""])


def real_closer(redis: FakeRedis) -> Closer:
    scripts = ItemScripts(cast(Any, redis), ScriptLimits())
    return Closer(scripts, owned_shards=lambda: ["s03", "s07", "s40"], on_outbox=lambda _: None, look_s=0.01)


@pytest.mark.parametrize(
    ("due", "answers"),
    [
        ({"s03": [b"bad"], "s07": [b"first"], "s40": [b"last"]}, {"bad": NO_STREAM}),
        ({"s03": [b"bad", b"first"], "s07": [], "s40": [b"last"]}, {"bad": NO_STREAM}),
        ({"s03": NO_STREAM, "s07": [b"first"], "s40": [b"last"]}, {}),
    ],
    ids=["an item", "the first of its shard", "a shard"],
)
async def test_what_is_broken_alone_holds_up_nothing_else(
    due: dict[str, list[bytes] | Exception], answers: dict[str, Exception], caplog: pytest.LogCaptureFixture
) -> None:
    redis = FakeRedis(due, answers)
    one = real_closer(redis)
    task = asyncio.create_task(one.run())

    async def is_done() -> bool:
        return redis.advanced[:2] == ["first", "last"]

    with caplog.at_level(logging.WARNING):
        try:
            assert await eventually(is_done, seconds=5)
            await asyncio.sleep(0.1)
        finally:
            task.cancel()
            await asyncio.wait([task])
    assert one.stuck == 1
    assert len(caplog.records) == 1
    assert "WRONGTYPE" in caplog.text


async def test_a_redis_that_takes_nothing_is_no_matter_of_an_item() -> None:
    redis = FakeRedis({"s03": [b"any"], "s07": [], "s40": [b"last"]}, {"any": FOLLOWS})
    with pytest.raises(ReadOnlyError):
        await real_closer(redis).look()
