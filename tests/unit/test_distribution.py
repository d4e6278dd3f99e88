"""The order of the files, and which run in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distribution import GROUP_OF, LONGEST, in_order, sort

ROOT = Path(__file__).parents[2]


def test_the_longest_come_first_and_the_others_in_turn() -> None:
    waiting, computing = [f"tests/faults/test_{n}.py" for n in range(4)], [f"tests/unit/test_{n}.py" for n in range(2)]
    places = in_order([*waiting, *computing, LONGEST[-1]])
    found = sorted(places, key=places.__getitem__)
    assert found[: len(LONGEST)] == list(LONGEST)
    kinds = [name.split("/")[1] for name in found[len(LONGEST) :]]
    assert kinds == ["faults", "unit", "faults", "faults", "unit", "faults"]


def test_all_tests_of_the_pages_are_in_a_group() -> None:
    """Each process that runs one has a browser and a platform."""
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "acceptance").rglob("test_*_in_a_browser.py")}
    assert files <= GROUP_OF.keys()


def test_files_of_a_group_are_neighbours() -> None:
    """A fixture of a package ends where a file of another package comes in between."""
    for group in set(GROUP_OF.values()):
        places = sorted(LONGEST.index(name) for name in GROUP_OF if GROUP_OF[name] == group)
        assert places == list(range(places[0], places[0] + len(places))), group


def test_a_file_that_is_gone_is_missed() -> None:
    sort([], ROOT)
    with pytest.raises(pytest.UsageError, match=LONGEST[0]):
        sort([], ROOT / "tests")
