"""Which shards wait for entries that will never come, by two looks."""

from __future__ import annotations

import pytest

from archival_worker.outbox.missing_entries import published_since, standing_still
from shared.redis_layout.outbox import EntryId


@pytest.mark.parametrize(
    ("archived", "published", "before", "is_hole"),
    [
        ((1, 5), (1, 7), (1, 5), True),
        ((1, 5), (1, 6), (1, 5), True),
        ((1, 5), (1, 5), (1, 5), False),
        ((1, 5), (1, 4), (1, 5), False),
        ((1, 6), (1, 7), (1, 5), False),  # it moves
        ((1, 5), None, (1, 5), False),  # Redis has lost the shard
        ((1, 5), (1, 7), None, False),  # it was not seen before
        ((1, 5), (2, 1), (1, 5), True),  # nothing of the new epoch is archived
        ((1, 5), (2, 0), (1, 5), False),
        ((2, 5), (1, 7), (2, 5), False),  # an older copy of Redis, which others look after
    ],
)
def test_a_hole_is_what_is_published_and_does_not_come(
    archived: tuple[int, int], published: tuple[int, int] | None, before: tuple[int, int] | None, is_hole: bool
) -> None:
    found = standing_still(
        {"s01": EntryId(*archived)},
        {} if published is None else {"s01": EntryId(*published)},
        {} if before is None else {"s01": EntryId(*before)},
    )
    assert found == ({"s01": EntryId(*archived)} if is_hole else {})


@pytest.mark.parametrize(
    ("before", "now", "since"),
    [
        ((1, 7), (1, 9), (1, 7)),
        ((1, 7), (1, 3), (1, 3)),  # the relay went back, and publishes again
        ((1, 7), (2, 9), None),
        ((2, 7), (1, 9), None),
        ((1, 7), None, None),
    ],
)
def test_only_what_was_published_before_and_still_is_can_be_missed(
    before: tuple[int, int], now: tuple[int, int] | None, since: tuple[int, int] | None
) -> None:
    found = published_since({"s01": EntryId(*before)}, {} if now is None else {"s01": EntryId(*now)})
    assert found == ({} if since is None else {"s01": EntryId(*since)})
