"""The lock files: complete, hashed, of one mind, and free of addresses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LOCKS = ("runtime", "embedded", "dev", "redis-server")


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


@pytest.mark.parametrize("lock", ["runtime", "embedded", "redis-server"])
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
