"""What a process loads before it forks services is the same in all of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.preforked import PER_PROCESS

ROOT = Path(__file__).parents[2]
_OWN = {"secrets", "uuid", "random", "os.environ", "os.getpid", "os.urandom", "time.time", "time.monotonic"}


def done_when_loaded(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module that run when it is imported, so without those that run only as a program."""
    for statement in body:
        if isinstance(statement, ast.ClassDef):
            yield from done_when_loaded(statement.body)
        elif isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test):
            continue
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement


def makes_its_own(source: str) -> bool:
    """Does a module, when it is loaded, make something that another process must not have?"""
    return any(
        isinstance(node, ast.Attribute) and not _OWN.isdisjoint({ast.unparse(node), ast.unparse(node.value)})
        for statement in done_when_loaded(ast.parse(source).body)
        for node in done_at_once(statement)
    )


def done_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """A statement and its parts, but not what a lambda does later."""
    yield node
    for part in ast.iter_child_nodes(node):
        if not isinstance(part, ast.Lambda):
            yield from done_at_once(part)


def test_what_makes_its_own_when_it_is_loaded_is_left_to_each_fork() -> None:
    packages = ("api_gateway", "archival_worker", "broadcast_service", "cache_node", "shared")
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if makes_its_own(path.read_text())
    }
    assert found == PER_PROCESS


def test_it_is_found() -> None:
    assert makes_its_own("import secrets\nKEY = secrets.token_bytes(16)")
    assert makes_its_own("class Engine:\n    name = str(os.getpid())")
    assert not makes_its_own("class Parts:\n    token: str = field(default_factory=lambda: secrets.token_hex(8))")
    assert not makes_its_own("import time\n\ndef now() -> float:\n    return time.time()")


def test_nothing_that_is_loaded_before_imports_it() -> None:
    """In a process of its own: this one has loaded everything."""
    command = (sys.executable, "-c", "import tests.preforked; tests.preforked.load()")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
