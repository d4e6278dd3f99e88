"""Writes of a recovery: each is carried out under the run's mark, and one that was not is the end of the run."""

from __future__ import annotations

from typing import Any, cast

import pytest

from archival_worker.errors import RecoveryOvertaken
from archival_worker.recovery.claims import ClaimedWrites
from shared.redis_layout.keys import rebuilding_key

SHARD = "s07"
ARGUMENTS_MAX = 4_000
"""Most arguments of one call of a script, which keeps all other clients waiting."""


class FakeRedis:
    """Answers calls of scripts in turn, each with 1 where nothing else is said. It is its own pipeline."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.calls: list[tuple[str, list[Any], list[Any]]] = []
        self._begun = 0

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        self._begun = len(self.calls)
        return self

    def eval(self, text: str, key_count: int, *told: Any) -> None:
        self.calls.append((text, list(told[:key_count]), list(told[key_count:])))

    async def execute(self) -> list[int]:
        return [self.answers.pop(0) if self.answers else 1 for _ in self.calls[self._begun :]]


def writes_to(redis: FakeRedis) -> ClaimedWrites:
    return ClaimedWrites(cast(Any, redis), SHARD, "5:token")


@pytest.mark.parametrize("answers", [[0, 0], [1, 0], [0, 1]])
async def test_a_run_that_is_overtaken_between_two_of_its_calls_stops(answers: list[int]) -> None:
    """The second of them wrote nothing, so the items that it was about are not there."""
    redis = FakeRedis()
    writes = writes_to(redis)
    writes.hset("item", mapping={"price": "1"})
    writes.put("verdicts", ["b:1"], b"verdict")
    redis.answers = list(answers)
    with pytest.raises(RecoveryOvertaken, match=SHARD):
        await writes.execute()
    assert len(redis.calls) == 2


async def test_what_was_sent_or_dropped_is_not_sent_again_and_nothing_is_no_call() -> None:
    redis = FakeRedis()
    writes = writes_to(redis)
    await writes.execute()
    writes.delete("a")
    writes.forget()
    await writes.execute()
    assert redis.calls == []
    writes.delete("b")
    await writes.execute()
    await writes.execute()
    assert [keys for _, keys, _ in redis.calls] == [[rebuilding_key(SHARD), "b"]]


async def test_every_call_bears_the_mark_and_none_keeps_redis_for_long() -> None:
    redis = FakeRedis()
    writes = writes_to(redis)
    writes.rpush("list", *map(str, range(10_000)))
    writes.zadd("zset", {str(number): number for number in range(3_000)})
    for number in range(2_000):
        writes.put("verdicts", [f"b:{number}", f"h:{number}"], b"verdict")
    await writes.execute()
    pushed: list[str] = []
    for _, keys, arguments in redis.calls:
        assert (keys[0], arguments[0]) == (rebuilding_key(SHARD), "5:token")
        assert len(arguments) <= ARGUMENTS_MAX
        at = 1
        for key in keys[1:]:
            if key == "verdicts":
                assert arguments[at : at + 4][0] == 2
                at += 4
                continue
            command, count = arguments[at : at + 2]
            values = arguments[at + 2 : at + 2 + count]
            assert count <= 1_000, "Lua can unpack so many"
            if command == "RPUSH":
                pushed += values
            else:
                assert all(int(member) == score for score, member in zip(values[::2], values[1::2], strict=True))
            at += 2 + count
        assert at == len(arguments), "as many arguments as are told"
    assert pushed == [str(number) for number in range(10_000)]
