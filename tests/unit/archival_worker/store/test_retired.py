"""What a retired item had, by number."""

from __future__ import annotations

import msgspec
import pytest

from archival_worker.consume.deliveries import read_delivery
from archival_worker.store.retired import Span, flattened, has_all, spans_of
from archival_worker.store.sorted_batch import SortedBatch
from shared import names
from shared.messages import Event, frame_batch
from tests.unit.archival_worker.consume.test_deliveries import RULING
from tests.unit.archival_worker.events import bid, closed, created, delivery

# Created again after a loss, and rebuilt later: seq 4 of the epoch 2 is followed by 5 of the epoch 3.
SPANS = [Span(1, 0, 9), Span(2, 0, 4), Span(3, 5, 7)]


@pytest.mark.parametrize(
    ("event", "had"),
    [
        (created("lot-1"), True),
        (bid("lot-1", 9), True),
        (bid("lot-1", 10), False),
        (bid("lot-1", 4, epoch=2), True),
        (bid("lot-1", 5, epoch=2), False),
        (bid("lot-1", 4, epoch=3), False),
        (closed("lot-1", 7, epoch=3), True),
        (bid("lot-1", 8, epoch=3), False),
        (bid("lot-1", 6, epoch=4), False),
    ],
)
def test_what_it_had_is_known_and_anything_else_is_put_aside(event: Event, had: bool) -> None:
    sent = delivery(1, event)
    assert has_all(SPANS, sent) is had
    batch = SortedBatch.of([sent], retired={"lot-1": SPANS})
    assert (batch.known, [letter.reason for letter in batch.dead_letters]) == ((1, []) if had else (0, ["retired"]))
    assert (batch.bids, batch.events) == ([], [])
    assert sum(map(len, batch.entries["s" + sent.subject.split(".")[2][1:]].values())) == 1, (
        "its entry counts all the same"
    )


def test_other_items_are_stored_beside_it() -> None:
    batch = SortedBatch.of([delivery(1, bid("lot-1", 3)), delivery(2, bid("lot-2", 3))], retired={"lot-1": SPANS})
    assert [event.item_id for event, _ in batch.bids] == ["lot-2"]


def test_a_message_of_a_former_epoch_is_former_unless_the_item_had_it() -> None:
    known, late = delivery(1, bid("lot-1", 9)), delivery(2, bid("lot-1", 10))
    shard = known.entry.shard if known.entry else ""
    batch = SortedBatch.of([known, late], fences={shard: 3}, retired={"lot-1": SPANS})
    assert (batch.known, batch.former, batch.dead_letters, batch.entries) == (1, [late], [], {})


def test_a_ruling_of_a_former_epoch_is_not_taken_for_known() -> None:
    """No export has it: only PostgreSQL can tell whether it is stored, and else it becomes a dead letter."""
    message = frame_batch(names.shard_of("lot"), 1, 9, "lot", b"[]", None, msgspec.json.encode([RULING]))
    sent = read_delivery(names.subject_of("lot"), message, "", names.message_id(names.shard_of("lot"), 1, 9))
    assert sent.fault is None
    batch = SortedBatch.of([sent], fences={names.shard_of("lot"): 3}, retired={"lot": SPANS})
    assert (batch.known, batch.former) == (0, [sent])


def test_spans_are_kept_in_one_array() -> None:
    assert spans_of(flattened(SPANS)) == SPANS
