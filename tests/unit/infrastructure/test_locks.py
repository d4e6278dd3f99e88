"""The lock files: complete, hashed, of one mind, and free of addresses."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = ("runtime", "embedded", "dev", "container", "load")


def text_of(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.lock").read_text()


def versions(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ \\]+)", text_of(lock), re.MULTILINE))


def names_in(requirements: list[str]) -> set[str]:
    found = (re.match(r"[A-Za-z0-9._-]+", requirement) for requirement in requirements)
    return {match.group().lower().replace("_", "-") for match in found if match}


@pytest.mark.parametrize("lock", LOCKS)
def test_no_addresses_and_no_options(lock: str) -> None:
    assert re.findall(r"://|^\s*-[^-]|^--", text_of(lock), re.MULTILINE) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_hashes(lock: str) -> None:
    blocks = re.split(r"^(?=[a-z0-9])", text_of(lock), flags=re.MULTILINE)
    packages = [block for block in blocks if "==" in block]
    assert len(packages) == len(versions(lock)) > 0
    assert [block.split("==")[0] for block in packages if "--hash=sha256:" not in block] == []


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock != "dev"])
def test_a_package_has_one_version_in_all_locks(lock: str) -> None:
    assert versions(lock).items() <= versions("dev").items()


def test_each_lock_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    runtime = names_in(project["dependencies"])
    embedded = runtime | names_in(project["optional-dependencies"]["embedded"])
    dev = embedded | names_in(project["optional-dependencies"]["dev"])
    assert runtime <= versions("runtime").keys()
    assert embedded <= versions("embedded").keys()
    assert dev <= versions("dev").keys()
    assert not names_in(project["optional-dependencies"]["embedded"]) & versions("runtime").keys()


def imported(path: Path) -> Iterator[str]:
    """The full names that a file imports; of `from a import b` both `a` and `a.b`, which may be a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_lock_of_the_load_image_asks_for_what_load_tests_imports_and_no_more() -> None:
    """Also by way of `shared` and `infrastructure`. boto3 is imported by its name, where AWS is used."""
    waiting, seen, packages = [*(ROOT / "load_tests").rglob("*.py")], set[Path](), {"boto3"}
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in imported(path):
            top, place = name.partition(".")[0], ROOT / name.replace(".", "/")
            if (ROOT / top / "__init__.py").exists():
                waiting += [file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()]
            elif top not in sys.stdlib_module_names:
                packages.add({"nats": "nats-py"}.get(top, top.replace("_", "-")))
    asked = (ROOT / "requirements" / "load.in").read_text().splitlines()
    assert names_in(asked) == packages
    assert packages <= versions("load").keys()
