"""What a batch of messages comes to: what counts for a shard's cursor, what goes by COPY, and what items' states are
made of."""

from __future__ import annotations

import pytest

from archival_worker.consume.deliveries import Delivery
from archival_worker.store.sorted_batch import SortedBatch
from shared.names import OutboxEntry
from tests.unit.archival_worker.events import bid, closed, delivery

SHARD = "s04"


@pytest.mark.parametrize(
    ("fence", "entries"), [(0, {SHARD: {1: [7]}}), (1, {SHARD: {1: [7]}}), (2, {})], ids=["never", "before", "since"]
)
def test_a_poison_keeps_its_place_in_the_outbox_unless_the_shard_was_rebuilt_since(
    fence: int, entries: dict[str, dict[int, list[int]]]
) -> None:
    """Otherwise the cursor of an outbox that is gone would move."""
    poison = Delivery("auction.events.s04.lot", b"?", "", OutboxEntry(SHARD, 1, 7), None, "undecodable")
    batch = SortedBatch.of([poison], {SHARD: fence} if fence else {})
    assert batch.entries == entries
    assert [(letter.reason, letter.detail) for letter in batch.dead_letters] == [("poison", "undecodable")]
    assert batch.former == []


def test_one_bid_that_cannot_be_a_row_keeps_its_whole_batch_from_copy() -> None:
    sound, odd = delivery(1, bid("lot", 1)), delivery(2, bid("lot", 2, amount=2**70))
    assert odd.bid_rows is None
    for messages in ([sound, odd], [odd, sound]):
        batch = SortedBatch.of(messages)
        assert batch.bid_rows is None
        assert len(batch.bids) == 2
    assert SortedBatch.of([sound]).bid_rows == [sound.bid_rows]


def test_an_items_state_is_that_of_its_last_event_that_did_not_clash() -> None:
    events = [bid("lot", 1), bid("lot", 2), closed("lot", 3)]
    batch = SortedBatch.of([delivery(1, *events)])
    assert list(batch.sound_ends()) == [events[0], events[2]]
    batch.put_aside(batch.events)
    assert [event.seq for event in batch.sound_ends()] == [1, 2]
