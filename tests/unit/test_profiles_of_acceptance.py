"""Tests of the pages have browser profiles of a pool, which cleans what pages leave, and not what a test changes in the
profile itself: routes, scripts, permissions, headers, listeners. No test may touch that."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "acceptance"
MAY = ("browsing.py", "profiles/pool.py", "profiles/test_pool_in_a_browser.py")


def touched(source: str) -> Iterator[str]:
    """Where it takes a profile: out of a page, or out of the pool."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("context", "contexts", "new_context"):
            yield f"{node.lineno}: {ast.unparse(node)}"


def test_no_test_changes_a_profile() -> None:
    files = {str(path.relative_to(FOLDER)): path.read_text() for path in sorted(FOLDER.rglob("*.py"))}
    assert set(MAY) < set(files)
    assert [f"{name}:{place}" for name, text in files.items() if name not in MAY for place in touched(text)] == []


@pytest.mark.parametrize(
    "line", ['await ada.page.context.route("**/bid", late)', 'await bob.page.context.grant_permissions(["camera"])']
)
def test_one_that_does_is_found(line: str) -> None:
    assert list(touched(f"async def test_it(ada, bob):\n    {line}\n"))
