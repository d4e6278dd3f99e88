"""Which of an item's recent events are read beside its state: those that somebody has missed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from broadcast_service.core.feed import Wanted
from broadcast_service.core.frames import UNKNOWN
from broadcast_service.sources.losses import Losses
from broadcast_service.sources.snapshots import SnapshotReader
from shared.domain.auction import Terms
from shared.messages import encode_event
from shared.redis_layout.item_hash import item_fields
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
        self._answers.append(1)

    def lrange(self, key: str, first: int, last: int) -> None:
        self.list_reads += 1
        events = [created(LOT), *(nth_bid(LOT, seq) for seq in range(1, BIDS + 1))]
        self._answers.append([encode_event(event) for event in reversed(events)][first : last + 1])

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
