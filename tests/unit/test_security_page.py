"""The page about security names a test for whatever it promises, and there are such tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
_NAMED = re.compile(r"`(?:[\w/]+/)?(test_\w+\.py)`|`(test_\w+)(…)?`")


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the tables in a section, without the heads."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and set(cells[0]) - set("- ") and cells[-1] != "test":
            yield cells


@pytest.mark.parametrize("heading", ["What is attacked, and what happens", "The OWASP API Security Top 10"])
def test_each_row_names_tests_that_are_there(heading: str) -> None:
    paths = list((ROOT / "tests").rglob("test_*.py"))
    files = {path.name for path in paths}
    functions = {name for path in paths for name in re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8"))}
    found = list(rows(heading))
    assert len(found) >= 10
    for cells in found:
        named = _NAMED.findall(cells[-1])
        assert named, f"no test for: {cells[0]}"
        for file, function, is_cut in named:
            if file:
                assert file in files, file
            elif is_cut:
                assert any(each.startswith(function) for each in functions), function
            else:
                assert function in functions, function


def test_all_ten_are_there() -> None:
    assert [cells[0].split(":")[0] for cells in rows("The OWASP API Security Top 10")] == [
        f"API{number}" for number in range(1, 11)
    ]
