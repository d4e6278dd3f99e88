"""Which entries go when all of them take too much room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.bounded_dict import BoundedDict


def test_what_was_put_first_goes_first() -> None:
    kept = BoundedDict[int](bytes_max=10)
    for number, name in enumerate("abc"):
        kept.put(name, number, 4)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (None, 1, 2)
    kept.put("b", 3, 1)
    kept.put("d", 4, 6)
    assert (kept.get("b"), kept.get("c"), kept.get("d")) == (3, None, 4)


def test_what_is_larger_than_all_may_be_is_not_kept_and_pushes_nothing_out() -> None:
    kept = BoundedDict[int](bytes_max=10)
    kept.put("a", 1, 10)
    kept.put("b", 2, 11)
    assert (kept.get("a"), kept.get("b")) == (1, None)
    kept.put("a", 3, 11)
    assert kept.get("a") is None, "it is another value now"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12), st.booleans())))
def test_its_bytes_are_those_of_what_is_kept(steps: list[tuple[str, int, bool]]) -> None:
    kept = BoundedDict[int](bytes_max=10)
    for name, size, is_put in steps:
        if is_put:
            kept.put(name, size, size)
        else:
            kept.remove(name)
        sizes = [found for other in "abcdef" if (found := kept.get(other)) is not None]
        assert kept.bytes_used == sum(sizes) <= 10
        assert len(kept) == len(sizes)
