"""What a process loads before it forks services is the same in all of them, or each loads it anew."""

from __future__ import annotations

import ast
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.preforked import PER_PROCESS, run_forked

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


def test_what_makes_its_own_when_it_is_loaded_is_loaded_anew() -> None:
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


async def test_each_fork_loads_anew_what_makes_its_own() -> None:
    """Also for what had imported from it before the fork, as the worker has."""
    reaches = ("timeit", "-n1", "-r1", "-s", "from archival_worker.main import crash_point")
    codes = {
        value: (await run_forked(*reaches, "crash_point('archive.committed')", env={"CRASH_AT": value}))[0]
        for value in ("archive.committed:2", "archive.committed", "relay.published", "archive.committed:1")
    }
    assert codes == {
        "archive.committed:2": 0,
        "archive.committed": -signal.SIGKILL,
        "relay.published": 0,
        "archive.committed:1": -signal.SIGKILL,
    }
