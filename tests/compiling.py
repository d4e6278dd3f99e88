"""Compiles the tests of a new checkout once. Otherwise each process that runs tests would compile all of them at its
start, beside the others: that takes one and a half times as long as all else it does there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

# Fewer are compiled sooner by each process for itself.
_WORTHWHILE: Final = 50
_TIMEOUT_S: Final = 120.0


def compile_tests(places: Iterable[Path], *, worthwhile: int = _WORTHWHILE, parts: int | None = None) -> int:
    """Compile the tests in these folders, if at least ``worthwhile`` are not; how many were not.

    Compiling is what pytest does when it collects them: it rewrites their assertions. So it collects ``parts`` of them
    at a time, by default one for each CPU.
    """
    new = [test for place in places for test in sorted(place.rglob("test_*.py")) if not is_compiled(test)]
    if len(new) < max(worthwhile, 1) or sys.dont_write_bytecode:
        return len(new)
    count = parts or os.cpu_count() or 1
    command = (sys.executable, "-m", "pytest", "--collect-only", "-qq", "-n", "0", "-p", "no:cacheprovider")
    processes = [
        subprocess.Popen([*command, *map(str, part)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for part in (new[each::count] for each in range(count))
        if part
    ]
    for process in processes:
        # What cannot be collected is told by the run itself.
        process.wait(_TIMEOUT_S)
    return len(new)


def is_compiled(test: Path) -> bool:
    """Has this version of pytest compiled the test ever? It does so again by itself when the test has changed."""
    return any((test.parent / "__pycache__").glob(f"{test.stem}.*-pytest-{pytest.__version__}.pyc"))
