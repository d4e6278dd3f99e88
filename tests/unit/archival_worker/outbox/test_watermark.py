"""The archived cursor is the end of the longest gapless run from 1, whatever order the entries came in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from archival_worker.outbox.watermark import Watermark, flattened, unflattened

ENTRIES = st.lists(st.integers(1, 40), max_size=60)


def gapless_end(known: set[int]) -> int:
    end = 0
    while end + 1 in known:
        end += 1
    return end


@given(st.lists(ENTRIES, max_size=12))
def test_any_order_and_duplication_gives_the_end_of_the_gapless_run(batches: list[list[int]]) -> None:
    mark, known = Watermark(1), set[int]()
    for batch in batches:
        mark = mark.add(1, batch)
        known |= set(batch)
        assert mark.archived == gapless_end(known)
        ahead = {n for first, last in mark.ahead for n in range(first, last + 1)}
        assert ahead == {n for n in known if n > mark.archived}


@given(st.lists(ENTRIES, max_size=12))
def test_ranges_are_ascending_apart_and_behind_a_gap(batches: list[list[int]]) -> None:
    mark = Watermark(1)
    for batch in batches:
        mark = mark.add(1, batch)
    previous_end = mark.archived
    for first, last in mark.ahead:
        assert previous_end + 1 < first <= last
        previous_end = last


@given(st.permutations(range(1, 31)), st.integers(1, 30))
def test_everything_in_any_order_leaves_nothing_aside(entries: list[int], size: int) -> None:
    mark = Watermark(1)
    for at in range(0, len(entries), size):
        mark = mark.add(1, entries[at : at + size])
    assert mark == Watermark(1, 30, ())


@given(st.lists(ENTRIES, max_size=6))
def test_an_entry_twice_changes_nothing(batches: list[list[int]]) -> None:
    mark = Watermark(1)
    for batch in batches:
        mark = mark.add(1, batch)
    for batch in batches:
        assert mark.add(1, batch) == mark


def test_a_higher_epoch_starts_anew_and_a_lower_one_is_ignored() -> None:
    mark = Watermark(1).add(1, [1, 2, 3, 7])
    rebuilt = mark.add(2, [1])
    assert rebuilt == Watermark(2, 1, ())
    assert rebuilt.add(1, [4]) == rebuilt


def test_a_long_gap_is_few_numbers() -> None:
    mark = Watermark(1, 10).add(1, range(12, 50_012))
    assert mark.archived == 10
    assert flattened(mark.ahead) == [12, 50_011]


@given(ENTRIES)
def test_the_stored_form_loses_nothing(entries: list[int]) -> None:
    ahead = Watermark(1).add(1, entries).ahead
    assert unflattened(flattened(ahead)) == ahead
