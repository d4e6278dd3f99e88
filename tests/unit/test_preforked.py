"""What a process loads before it forks services is the same in all of them, or each loads it anew."""

from __future__ import annotations

import ast
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.preforked import PER_PROCESS, run_forked
from tests.programs import finished

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


async def test_a_command_that_runs_a_service_to_its_end_forks_it_too(tmp_path: Path) -> None:
    """And ends as with the program, which would write to its errors how long each import took."""
    no_export = tmp_path / "lot.jsonl.gz"
    no_export.write_text("no export")
    words = ("verify-export", str(no_export))
    env = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    code, said = await run_forked("infrastructure.local.cli", *words, env=env)
    program = (sys.executable, "-P", "-m", "archival_worker", *words)
    assert (code, said) == await finished(*program)
    assert code == 2


@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "sys.exit(3)",
        "sys.exit('a reason')",
        "raise KeyError('x')",
        "raise KeyboardInterrupt",
        "os._exit(4)",
        "atexit.register(print, 'last'); sys.stdout.write('first; ')",
        "threading.Thread(target=lambda: (time.sleep(0.2), print('a thread'))).start()",
        "logging.getLogger().addHandler(logging.handlers.MemoryHandler(9, 99, logging.StreamHandler())); "
        "logging.critical('kept until the end')",
        "ring = type('Ring', (), {'__del__': lambda self: print('collected')})(); ring.itself = ring; del ring",
    ],
)
async def test_a_fork_ends_as_the_program_does(end: str) -> None:
    words = ("tests.unit.ending", end)
    code, said = await run_forked(*words, env=os.environ)
    expected_code, expected = await finished(sys.executable, "-P", "-m", *words)
    assert (code, without_frames(said)) == (expected_code, without_frames(expected))


def without_frames(said: str) -> list[str]:
    """What was said, without the places of errors: a fork was called from others."""
    return [line for line in said.splitlines() if not line.startswith((" ", "Traceback"))]
