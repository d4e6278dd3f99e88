"""What may be purged from the stream, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archival_worker.consume.retention import Fill, RetentionOptions, keep_from

OPTIONS = RetentionOptions(full_ratio=0.7, margin_messages=100, margin_ratio=0.35)


def fill(*, ratio: float, first: int = 1, last: int = 1_000, archived: int = 1_000, bytes_max: int = 1_000_000) -> Fill:
    return Fill(last - first + 1, int(ratio * bytes_max), bytes_max, first, last, archived)


@pytest.mark.parametrize(
    ("state", "first_kept"),
    [
        (fill(ratio=0.70), None),
        (fill(ratio=0.71), 901),
        (fill(ratio=0.71, archived=400), 401),
        (fill(ratio=0.71, archived=0), None),
        (fill(ratio=0.71, first=401, archived=400), None),
        (Fill(0, 0, 1_000_000, 1_001, 1_000, 1_000), None),
        (Fill(1_000, 999_999_999, -1, 1, 1_000, 1_000), None),
    ],
)
def test_what_is_archived_goes_but_for_a_margin(state: Fill, first_kept: int | None) -> None:
    assert keep_from(state, OPTIONS) == first_kept


def test_a_margin_of_large_messages_does_not_keep_the_stream_full() -> None:
    # 50 messages of 2 % of the stream each: the 100 newest would be all of them.
    state = Fill(messages=50, bytes=1_000_000, bytes_max=1_000_000, first_seq=1, last_seq=50, archived_seq=50)
    assert keep_from(state, OPTIONS) == 50 - 17 + 1


@given(ratio=st.floats(0, 1), first=st.integers(1, 500), length=st.integers(0, 3_000), archived=st.integers(0, 4_000))
def test_nothing_that_is_not_archived_is_ever_purged(ratio: float, first: int, length: int, archived: int) -> None:
    state = fill(ratio=ratio, first=first, last=first + length - 1, archived=archived)
    first_kept = keep_from(state, OPTIONS)
    if first_kept is not None:
        assert state.first_seq < first_kept <= min(archived, state.last_seq) + 1
        assert ratio > OPTIONS.full_ratio
