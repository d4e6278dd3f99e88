"""How many questions about items that Redis does not have are under way, and how long one waits for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from api_gateway.engine.loss.known_items import (
    QUESTIONS_AT_ONCE,
    QUESTIONS_WAITING_MAX,
    Known,
    KnownItems,
    TooManyQuestions,
)
from api_gateway.engine.loss.witnesses import Witnesses
from shared.domain.errors import ShardLost, Unavailable
from tests.waiting import eventually


class FakeRedis:
    """A shard that lives, or not. Its outbox opened no item, unless ``opened``; its newest entry is of ``newest``."""

    def __init__(
        self, *, lives: bool = True, newest: str = "other", opened: int | None = None, epoch: int | None = 3
    ) -> None:
        self._lives, self._newest, self._opened, self._epoch = lives, newest, opened, epoch
        self.outbox_reads: list[int] = []

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        return self

    async def hget(self, key: str, field: str) -> bytes | None:
        assert field == "epoch"
        return None if self._epoch is None else b"%d" % self._epoch

    def hexists(self, key: str, field: str) -> None:
        return

    def zscore(self, key: str, member: str) -> None:
        return

    async def execute(self) -> list[Any]:
        return [self._lives, self._opened]

    async def xrevrange(self, key: str, *, count: int) -> list[Any]:
        self.outbox_reads.append(count)
        return [(b"7-0", {b"item": self._newest.encode(), b"events": b"[]"})]


class FakePast:
    """An archive that answers when it may, and knows one item; a stream that is away, unless it has a message of an
    epoch."""

    def __init__(self, *, published: int | None = None) -> None:
        self._published = published
        self.asked: list[str] = []
        self.at_once = self.at_once_max = 0
        self.may_answer = asyncio.Event()
        self.is_away = False

    async def published_epochs(self, item_ids: Sequence[str]) -> dict[str, int]:
        if self._published is None:
            raise Unavailable("away")
        return dict.fromkeys(item_ids, self._published)

    async def archived(self, item_ids: Sequence[str]) -> dict[str, bool]:
        self.asked += item_ids
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            await self.may_answer.wait()
        finally:
            self.at_once -= 1
        if self.is_away:
            raise Unavailable("away")
        return {item_id: item_id == "closed" for item_id in item_ids if item_id in ("known", "closed")}


def items(past: FakePast, redis: FakeRedis | None = None) -> KnownItems:
    return KnownItems(cast(Any, redis or FakeRedis()), cast(Witnesses, past))


async def asleep() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_few_are_asked_about_at_once_and_the_others_wait_for_their_turn() -> None:
    past = FakePast()
    asks = items(past)
    tasks = [asyncio.create_task(asks.is_known(f"x{n}")) for n in range(200)]
    tasks.append(asyncio.create_task(asks.is_known("known")))
    await eventually(lambda: len(past.asked) == QUESTIONS_AT_ONCE)
    past.may_answer.set()
    assert await asyncio.gather(*tasks) == [*([False] * 200), True]
    assert past.at_once_max == QUESTIONS_AT_ONCE


async def test_who_asks_for_the_same_item_gets_the_same_answer_and_may_give_up_alone() -> None:
    past = FakePast()
    asks = items(past)
    tasks = [asyncio.create_task(asks.is_known("known")) for _ in range(50)]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    past.may_answer.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert (answers[1:], past.asked) == ([True] * 49, ["known"])
    assert await asks.is_known("known")
    assert past.asked == ["known", "known"], "an answer is not kept"


async def test_who_holds_a_fence_joins_no_question_that_began_before() -> None:
    past = FakePast()
    asks = items(past)
    earlier = asyncio.create_task(asks.is_known("x"))
    await asleep()
    later = asyncio.create_task(asks.look_past_outbox(["x", "closed", "known"]))
    await asleep()
    assert past.asked == ["x", "x", "closed", "known"], "all of them at once"
    past.may_answer.set()
    assert not await earlier
    assert await later == {"x": Known.NONE, "closed": Known.CLOSED, "known": Known.KNOWN}
    assert not await asks.is_known("x")
    assert len(past.asked) == 5, "nothing is left of the questions"


async def test_beyond_the_bound_nobody_waits_and_nobody_waits_long() -> None:
    past = FakePast()
    asks = items(past)
    tasks = [asyncio.create_task(asks.is_known(f"x{n}")) for n in range(QUESTIONS_WAITING_MAX)]
    await asleep()
    one_more = asyncio.create_task(asks.is_known("one-more"))
    await asleep()
    assert one_more.done(), "it is refused at once, and does not wait for a turn like the others"
    with pytest.raises(TooManyQuestions) as refused:
        await one_more
    assert (refused.value.code, refused.value.retry_after_s) == ("UNAVAILABLE", 2)
    given_up = QUESTIONS_WAITING_MAX - QUESTIONS_AT_ONCE
    await eventually(lambda: sum(task.done() for task in tasks) == given_up)
    over = [task.exception() for task in tasks if task.done()]
    assert {type(error) for error in over} == {TooManyQuestions}
    past.may_answer.set()
    assert not await asks.is_known("one-more"), "those that were given up make room"
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(("newest", "is_lost"), [("x", True), ("other", False)])
async def test_where_nobody_can_tell_the_newest_entries_are_looked_at_once(newest: str, is_lost: bool) -> None:
    past, redis = FakePast(), FakeRedis(newest=newest)
    past.is_away = True
    past.may_answer.set()
    if is_lost:
        assert await items(past, redis).is_known("x")
    else:
        with pytest.raises(Unavailable, match="away"):
            await items(past, redis).is_known("x")
    assert redis.outbox_reads == [512]


async def test_an_item_whose_opening_waits_to_be_archived_is_known_without_asking() -> None:
    past = FakePast()
    assert await items(past, FakeRedis(opened=4)).is_known("x")
    assert past.asked == []


async def test_a_shard_that_is_lost_while_the_stream_is_asked_is_told_as_lost() -> None:
    """Nobody may hear that the item is new, nor that it alone is lost."""
    past = FakePast(published=2)
    past.may_answer.set()
    with pytest.raises(ShardLost, match="being rebuilt"):
        await items(past, FakeRedis(epoch=None)).is_known("x")
    assert past.asked == []


async def test_an_item_that_only_the_archive_could_tell_from_a_lost_one_is_not_new() -> None:
    past = FakePast(published=2)
    past.is_away = True
    past.may_answer.set()
    with pytest.raises(ShardLost, match="cannot be told now"):
        await items(past).is_known("x")


async def test_of_a_lost_shard_nobody_is_asked() -> None:
    past = FakePast()
    with pytest.raises(ShardLost):
        await items(past, FakeRedis(lives=False)).is_known("x")
    assert past.asked == []


@pytest.mark.parametrize(("epoch", "is_lost"), [(0, True), (2, False), (3, True), (4, True)])
async def test_a_message_that_is_not_archived_counts_unless_it_is_known_to_be_of_an_epoch_that_is_over(
    epoch: int, is_lost: bool
) -> None:
    past = FakePast(published=epoch)
    past.may_answer.set()
    assert await items(past).is_known("x") == is_lost
    assert past.asked == ([] if is_lost else ["x"])
