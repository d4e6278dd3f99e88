"""Which of an item's recent events are read beside its state: those that somebody has missed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from broadcast_service.core.feed import Wanted
from broadcast_service.core.frames import UNKNOWN
from broadcast_service.sources.losses import Losses
from broadcast_service.sources.snapshots import SnapshotReader
from shared.domain.auction import Terms
from shared.messages import decode_any_event, encode_event
from shared.redis_layout.item_hash import ItemState, decode_item, item_fields
from tests.bids import nth_bid
from tests.unit.archival_worker.events import created

LOT = "lot"
BIDS = 200


class FakeRedis:
    """An item with its events, in a shard of epoch 1 or in a closed one. It is its own pipeline."""

    def __init__(self, *, is_open: bool = True) -> None:
        self._is_open = is_open
        self._answers: list[Any] = []
        self.list_reads = 0
        self.is_there = True
        self.later = 0
        """Events that were decided after the state was read."""
        self.spoilt: int | None = None
        """The seq of an event that cannot be read."""

    def pipeline(self) -> FakeRedis:
        self._answers = []
        return self

    def hgetall(self, key: str) -> None:
        state = {
            **{"id": LOT, "status": "open", "price": BIDS, "leader": "ada", "leader_max": BIDS, "runner_up": 0},
            **{"bid_count": BIDS, "seq": BIDS, "epoch": 1, "end_us": "", "extensions": 0, "reserve_met": 1},
            **{"start_us": 0, "original_end_us": "", "created_us": 0, "updated_us": BIDS},
        }
        fields = item_fields(Terms(LOT, 0), name=LOT, description="") | state
        self._answers.append({name.encode(): str(value).encode() for name, value in fields.items()})

    def hget(self, key: str, field: str) -> None:
        self._answers.append(b"1" if self._is_open else None)

    def exists(self, key: str) -> None:
        self._answers.append(int(self.is_there))

    def lrange(self, key: str, first: int, last: int) -> None:
        self.list_reads += 1
        events = [created(LOT), *(nth_bid(LOT, seq) for seq in range(1, BIDS + self.later + 1))]
        lines = [b"?" if event.seq == self.spoilt else encode_event(event) for event in events]
        self._answers.append(lines[::-1][first : last + 1])

    async def execute(self) -> list[Any]:
        return self._answers


def reader_of(redis: FakeRedis, *, events_max: int = 512) -> SnapshotReader:
    return SnapshotReader(cast(Any, redis), cast(Losses, None), cast(Any, None), events_max=events_max)


@pytest.mark.parametrize(
    ("wanted", "first"),
    [
        ({1: BIDS - 3}, BIDS - 2),
        ({1: BIDS - 3, 7: 1}, BIDS - 2),
        (dict([UNKNOWN]), 0),
        ({**dict([UNKNOWN]), 1: BIDS - 3}, 0),
    ],
    ids=["what one has missed", "who has seen another epoch, too", "before it existed", "both"],
)
async def test_everything_that_somebody_has_missed_is_read(wanted: Wanted, first: int) -> None:
    recovery = await reader_of(FakeRedis()).read(LOT, wanted)
    assert recovery is not None
    seqs = [event.seq for event in recovery.events]
    assert seqs == list(range(seqs[0], BIDS + 1)), "without a hole, up to the state"
    assert seqs[0] <= first


@pytest.mark.parametrize("wanted", [{}, {1: BIDS}, {1: BIDS + 5}, {7: 1}])
async def test_where_nobody_has_missed_anything_the_list_is_not_read(wanted: Wanted) -> None:
    redis = FakeRedis()
    recovery = await reader_of(redis).read(LOT, wanted)
    assert recovery is not None
    assert (recovery.item.version, recovery.events, redis.list_reads) == ((1, BIDS), (), 0)


async def test_no_more_is_read_than_may_be_replayed() -> None:
    recovery = await reader_of(FakeRedis(), events_max=10).read(LOT, {1: 0})
    assert recovery is not None
    assert len(recovery.events) <= 10 + 64


async def test_nothing_is_told_of_a_closed_shard() -> None:
    assert await reader_of(FakeRedis(is_open=False)).read(LOT, {1: 0}) is None


async def test_events_that_were_decided_between_the_two_reads_push_out_none_and_are_not_told() -> None:
    """They come from the stream."""
    redis = FakeRedis()
    redis.later = 60
    recovery = await reader_of(redis).read(LOT, {1: BIDS - 3})
    assert recovery is not None
    assert [event.seq for event in recovery.events][-3:] == [BIDS - 2, BIDS - 1, BIDS]


async def test_an_item_that_leaves_between_the_two_reads_is_none_that_redis_has() -> None:
    redis = FakeRedis()
    redis.is_there = False
    assert await reader_of(redis).read(LOT, {1: BIDS - 3}) is None


async def test_before_an_event_that_cannot_be_read_nothing_is_told() -> None:
    redis = FakeRedis()
    redis.spoilt = BIDS - 5
    recovery = await reader_of(redis).read(LOT, {1: BIDS - 10})
    assert recovery is not None
    assert [event.seq for event in recovery.events] == list(range(BIDS - 4, BIDS + 1))


class Left:
    """A closed item that has left Redis, with its newest events."""

    def __init__(self, newest_first: list[Any]) -> None:
        self._newest_first = newest_first
        self.asked: list[int] = []

    async def find(self, item_id: str, epoch: int) -> ItemState:
        return decode_item(fields_of(epoch))

    async def newest_events(self, item_id: str, count: int) -> list[Any]:
        self.asked.append(count)
        return self._newest_first[:count]


def fields_of(epoch: int) -> dict[bytes, bytes]:
    redis = FakeRedis()
    redis.hgetall(LOT)
    return cast("dict[bytes, bytes]", redis._answers[0]) | {b"epoch": b"%d" % epoch}


class Epochs:
    def __init__(self, epoch: bytes | None) -> None:
        self._epoch = epoch

    async def hget(self, key: str, field: str) -> bytes | None:
        return self._epoch


async def test_the_events_of_an_item_that_has_left_are_told_oldest_first_after_the_last_unknown_one() -> None:
    unknown = decode_any_event(encode_event(nth_bid(LOT, BIDS - 3)).replace(b'"type":"bid"', b'"type":"strange"'))
    newest_first = [nth_bid(LOT, BIDS - back) for back in range(10)]
    left = Left([*newest_first[:3], unknown, *newest_first[4:]])
    reader = SnapshotReader(cast(Any, Epochs(b"1")), cast(Losses, None), cast(Any, left), events_max=512)
    recovery = await reader.read_left(LOT, {1: BIDS - 8})
    assert recovery is not None
    assert [event.seq for event in recovery.events] == [BIDS - 2, BIDS - 1, BIDS]
    assert left.asked == [8]
    nothing = await reader.read_left(LOT)
    assert nothing is not None
    assert (nothing.events, left.asked) == ((), [8])
    closed = SnapshotReader(cast(Any, Epochs(None)), cast(Losses, None), cast(Any, left), events_max=512)
    assert await closed.read_left(LOT) is None, "its shard is closed"
