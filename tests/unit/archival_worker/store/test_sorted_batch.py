"""Which messages of a batch count for their shard's cursor."""

from __future__ import annotations

import pytest

from archival_worker.consume.deliveries import Delivery, Entry
from archival_worker.store.sorted_batch import SortedBatch

SHARD = "s04"


@pytest.mark.parametrize(
    ("fence", "entries"), [(0, {SHARD: {1: [7]}}), (1, {SHARD: {1: [7]}}), (2, {})], ids=["never", "before", "since"]
)
def test_a_poison_keeps_its_place_in_the_outbox_unless_the_shard_was_rebuilt_since(
    fence: int, entries: dict[str, dict[int, list[int]]]
) -> None:
    """Otherwise the cursor of an outbox that is gone would move."""
    poison = Delivery("auction.events.s04.lot", b"?", "", Entry(SHARD, 1, 7), None, "undecodable")
    batch = SortedBatch.of([poison], {SHARD: fence} if fence else {})
    assert batch.entries == entries
    assert [(letter.reason, letter.detail) for letter in batch.dead_letters] == [("poison", "undecodable")]
    assert batch.former == []
