"""The tests of a new checkout are compiled before processes run them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.compiling import compile_tests, is_compiled


@pytest.fixture(autouse=True)
def bytecode_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `make test`, whatever the environment says."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")


def a_checkout(folder: Path) -> list[Path]:
    tests = [folder / f"test_{name}.py" for name in ("of_one", "of_two", "that_fail")]
    for test in tests:
        test.write_text("def test_it() -> None:\n    assert 1 + 1 == 2\n")
    tests[-1].write_text("import what_nobody_has\n")
    return tests


def test_new_tests_are_compiled_once(tmp_path: Path) -> None:
    one, two, that_fail = a_checkout(tmp_path)
    assert compile_tests([tmp_path], worthwhile=2, parts=2) == 3
    assert all(map(is_compiled, (one, two, that_fail)))
    assert compile_tests([tmp_path], worthwhile=1) == 0


def test_few_are_left_to_the_run(tmp_path: Path) -> None:
    tests = a_checkout(tmp_path)
    assert compile_tests([tmp_path], worthwhile=4) == 3
    assert not any(map(is_compiled, tests))


def test_where_bytecode_is_not_kept_nothing_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    tests = a_checkout(tmp_path)
    compile_tests([tmp_path], worthwhile=1)
    assert not any(map(is_compiled, tests))
