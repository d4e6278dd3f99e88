"""Which closed items the evictor looks at next, and what it tells of those that it cannot remove."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from archival_worker.eviction import evictor as module
from archival_worker.eviction.evictor import EvictionOptions, Evictor, _Candidate, _instant
from archival_worker.metrics import Metrics
from shared import names
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import Node
from shared.clients.cluster.pipeline import NodeAway
from tests.waiting import eventually

BROKEN = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


def candidates(*item_ids: str, shard: str = "s01") -> list[_Candidate]:
    return [_Candidate(item_id, shard, "1") for item_id in item_ids]


def evictor(**options: Any) -> Evictor:
    options = {"first_items": 2, "page_items": 3} | options
    return Evictor(cast(Any, None), cast(Any, None), Metrics(), EvictionOptions(**options))


def test_the_next_page_begins_behind_those_that_could_not_go() -> None:
    one = evictor()
    assert one._page_of("s01") == 2, "mostly nothing is due"
    first = candidates("a", "b")
    one._go_on({"s01": first}, first, {"b"})
    assert (one._passed, one._page_of("s01"), one._page_of("s02")) == ({"s01": 1}, 3, 2)
    second = candidates("c", "d", "e")
    one._go_on({"s01": second}, second, set())
    assert one._passed == {"s01": 4}


@pytest.mark.parametrize(
    ("page", "due"),
    [
        (["c", "d"], ["c", "d"]),  # the last page
        (["c", "d", "e"], ["c", "d"]),  # the time of one has not come, nor that of those behind it
        ([], []),
    ],
)
def test_it_begins_anew_where_there_is_nothing_more_to_be_found(page: list[str], due: list[str]) -> None:
    one = evictor()
    one._passed = {"s01": 1, "s02": 7}
    one._go_on({"s01": candidates(*page)}, candidates(*due), set())
    assert one._passed == {"s02": 7}


@pytest.mark.parametrize(
    ("answer", "micros"),
    [
        ([b"17", None], (17, 0)),
        ([b"17", b"19"], (17, 19)),
        ([None, None], (0, 0)),
        ([b"x", b"1"], (0, 1)),
        (BROKEN, (0, 0)),
    ],
)
def test_what_is_no_instant_counts_as_long_ago(answer: Any, micros: tuple[int, int]) -> None:
    """The script, which looks again, says what is wrong with it."""
    assert (_instant(answer, 0), _instant(answer, 1)) == micros


class Script:
    """Removes every item but those that are broken, and those that must stay."""

    def __init__(self, **replies: Any) -> None:
        self.replies = replies

    async def run_each(self, redis: Any, calls: Any) -> list[Any]:
        return [self.replies.get(arguments[0], 1) for _, arguments in calls]


async def test_an_item_that_cannot_be_removed_is_an_alarm_until_it_can(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_FAILING_MAX", 2)
    script = Script(**dict.fromkeys("bcd", BROKEN), e=3)
    monkeypatch.setattr(module, "EVICT", script)
    one, seqs = evictor(), dict.fromkeys("abcde", 7)
    for _ in range(2):
        assert await one._evict(candidates(*"abcde"), seqs) == {"a"}
    assert one._metrics.failures_by["eviction"] == 6
    assert list(one._failing) == ["b", "c"]
    assert one.alarms["eviction"].startswith("2 closed items cannot be removed")
    assert sum("item b " in record.message for record in caplog.records) == 1, "told once"
    script.replies = {}
    assert await one._evict(candidates(*"bc"), seqs) == {"b", "c"}
    assert one.alarms == {}


async def test_a_redis_that_takes_nothing_is_no_matter_of_an_item(monkeypatch: pytest.MonkeyPatch) -> None:
    class ReadOnly(ResponseError):
        pass

    monkeypatch.setattr(module, "EVICT", Script(a=ReadOnly("READONLY")))
    one = evictor()
    with pytest.raises(ReadOnly):
        await one._evict(candidates("a"), {"a": 1})
    assert one.alarms == {}


class FakeRedis:
    """Closed items of one shard; searches go over ``keys`` in steps of one."""

    def __init__(self, shard: str, archived: bytes | None, closed: list[bytes], epoch: bytes | None = b"3") -> None:
        self._shard, self._archived, self._closed, self._epoch = shard, archived, closed, epoch
        self._answers: list[Any] = []
        self.ranges: list[tuple[Any, int, int]] = []
        self.asked: list[str] = []
        self.keys: list[bytes] = []
        self.is_away = False

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        self._answers = []
        return self

    async def evalsha(self, sha: str, key_count: int, *keys: str) -> list[int]:
        ours = next(at for at, key in enumerate(keys, start=1) if key.startswith(f"{{{self._shard}}}"))
        return [ours, 1] if self._closed else []

    def hmget(self, key: str, fields: list[str]) -> None:
        self.asked.append(key)
        ours = key.startswith(f"{{{self._shard}}}")
        self._answers.append((self._epoch, self._archived) if ours else (b"1", b"0"))

    def zcard(self, key: str) -> None:
        self._answers.append(len(self._closed) if key.startswith(f"{{{self._shard}}}") else 0)

    def zrangebyscore(self, key: str, low: str, high: Any, *, start: int, num: int) -> None:
        self.ranges.append((high, start, num))
        self._answers.append(self._closed[start : start + num])

    def hget(self, key: bytes, field: str) -> None:
        self._answers.append(b"sold" if b"sold" in key else b"open")

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        away = NodeAway("away")
        return [away if self.is_away else answer for answer in self._answers]

    async def scan(self, cursor: int, *, match: str, count: int) -> tuple[int, list[bytes]]:
        return (cursor + 1) % len(self.keys), [self.keys[cursor]]


async def test_candidates_are_closed_items_whose_last_entry_is_archived_in_open_shards() -> None:
    one = evictor()
    redis = one._redis = FakeRedis("s05", b"41", [b"a", b"b", b"c"])
    assert [each.item_id for each in (await one._pages())["s05"]] == ["a", "b"]
    assert (redis.ranges, one.closed_in_redis) == ([(b"41", 0, 2)], 3)
    one._passed = {"s05": 1}
    assert (await one._pages()) == {"s05": [_Candidate("b", "s05", "3"), _Candidate("c", "s05", "3")]}
    assert redis.ranges[1] == (b"41", 1, 3)
    one._redis = FakeRedis("s05", None, [b"a"])
    await one._pages()
    assert one._redis.ranges == [(b"0", 1, 3)], "nothing is archived yet"
    one._redis = FakeRedis("s05", b"41", [b"a"], epoch=None)
    assert await one._pages() == {}


async def test_shards_without_closed_items_are_asked_nothing_more() -> None:
    one = evictor()
    redis = one._redis = FakeRedis("s05", b"41", [b"a", b"b", b"c"])
    await one._pages()
    assert [len(redis.asked), one.closed_in_redis] == [1, 3]
    one._redis = FakeRedis("s05", b"41", [])
    assert await one._pages() == {}
    assert (one._redis.asked, one.closed_in_redis) == ([], 0)
    one._redis = FakeRedis("s05", b"41", [b"a", b"b", b"c"])
    await one._pages()
    one._redis = FakeRedis("s06", b"41", [b"d"])
    await one._pages()
    assert one.closed_in_redis == 1, "those of the other shard have left"


async def test_a_shard_that_had_none_meanwhile_is_looked_through_from_its_beginning() -> None:
    one = evictor()
    one._passed = {"s05": 2}
    one._redis = FakeRedis("s05", b"41", [])
    await one._pages()
    one._redis = FakeRedis("s05", b"41", [b"a", b"b", b"c"])
    assert [each.item_id for each in (await one._pages())["s05"]] == ["a", "b"]


async def test_shards_whose_node_is_away_have_no_candidates_and_as_many_closed_items_as_before() -> None:
    one = evictor()
    redis = one._redis = FakeRedis("s05", b"41", [b"a", b"b", b"c"])
    await one._pages()
    redis.is_away = True
    assert await one._pages() == {}
    assert one.closed_in_redis == 3


async def test_an_item_whose_node_goes_away_meanwhile_keeps_no_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVICT", Script(b=NodeAway("away")))
    one = evictor()
    assert await one._evict(candidates("a", "b", "c"), dict.fromkeys("abc", 1)) == {"a", "c"}
    assert one.alarms == {}


async def test_what_could_not_be_searched_is_searched_soon_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away(FakeRedis):
        async def scan(self, cursor: int, *, match: str, count: int) -> tuple[int, list[bytes]]:
            raise RedisConnectionError("away")

    there, away = FakeRedis("s05", b"0", []), Away("s06", b"0", [])
    there.keys = [b"{s05}:item:open"]
    asked: list[list[str]] = []

    async def nodes_of(redis: Any, shards: Any, *, fresh: bool = False) -> tuple[list[Node], list[str]]:
        asked.append(list(shards))
        nodes = [Node(Address("a", 1), cast(Any, away), ["s06"]), Node(Address("b", 1), cast(Any, there), ["s05"])]
        return [node for node in nodes if set(node.shards) & set(shards)], [each for each in shards if each == "s07"]

    monkeypatch.setattr(module, "nodes_of", nodes_of)
    one = evictor()
    one._redis = there
    assert [await one._search() for _ in range(2)] == [True, False]
    assert one._missed == {"s06", "s07"}
    assert one._search_at_s < asyncio.get_running_loop().time() + 61
    one._search_at_s = 0.0
    await one._search()
    assert asked[1] == ["s06", "s07"]


async def test_an_item_whose_node_goes_away_before_it_is_noted_is_searched_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Note:
        async def run_each(self, redis: Any, calls: Any) -> list[Any]:
            return [NodeAway("away") for _ in calls]

    monkeypatch.setattr(module, "NOTE_CLOSED", Note())
    one = evictor()
    redis = one._redis = FakeRedis("s05", b"0", [])
    redis.keys = [b"{s01}:item:sold-1"]
    assert not await one._search()
    assert "s01" in one._missed
    assert one._search_at_s < asyncio.get_running_loop().time() + 61


async def test_the_search_for_items_that_nobody_noted_ends_and_begins_again_after_hours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted: list[str] = []

    class Note:
        async def run_each(self, redis: Any, calls: Any) -> list[Any]:
            noted.extend(arguments[0] for _, arguments in calls)
            assert all(keys[0].startswith(f"{{{names.shard_of(arguments[0])}}}") for keys, arguments in calls)
            return [1] * len(calls)

    monkeypatch.setattr(module, "NOTE_CLOSED", Note())
    one = evictor()
    redis = one._redis = FakeRedis("s05", b"0", [])
    redis.keys = [b"{s01}:item:sold-1", b"{s01}:item:open", b"{s02}:item:sold-2"]
    assert [await one._search() for _ in range(4)] == [True, True, False, False]
    assert noted == ["sold-1", "sold-2"]
    one._search_at_s = 0.0
    assert await one._search()


async def test_below_zero_everything_stays(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await asyncio.wait_for(evictor(keep_s=-1).run(), 10)
    assert "stay in Redis" in caplog.text


async def test_it_looks_again_when_a_server_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    class Away(Evictor):
        async def look(self) -> int:
            looks.append(1)
            if len(looks) == 1:
                raise RedisConnectionError("away")
            return 0

        async def _search(self) -> bool:
            return True

    one = Away(cast(Any, None), cast(Any, None), Metrics(), EvictionOptions(rest_s=0.001, look_every_s=60))
    task = asyncio.create_task(one.run())
    await eventually(lambda: len(looks) >= 4)
    task.cancel()
    await asyncio.wait([task])
    assert one._metrics.failures_by["eviction"] == 1
