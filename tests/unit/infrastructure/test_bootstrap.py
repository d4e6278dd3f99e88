"""The bootstrap's decisions: when an environment is kept, when it is made anew, and what it says when it cannot."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from infrastructure.local import bootstrap as original


@pytest.fixture
def bootstrap(tmp_path: Path) -> ModuleType:
    """The same file in a project of its own, whose environment it may call `.venv`."""
    source = Path(original.__file__)
    copy = tmp_path / "infrastructure" / "local" / source.name
    copy.parent.mkdir(parents=True)
    shutil.copy(source, copy)
    (tmp_path / "requirements").mkdir()
    for lock in ("embedded", "dev"):
        (tmp_path / "requirements" / f"{lock}.lock").write_text("click==8.0\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    spec = importlib.util.spec_from_file_location("bootstrap_copy", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend_installed(bootstrap: ModuleType, version: str = "", place: str = "") -> None:
    venv: Path = bootstrap.VENV
    (venv / "bin").mkdir(parents=True, exist_ok=True)
    if not bootstrap.VENV_PYTHON.exists():
        # A link would be found to be outside of the environment; this is what calls it all the same.
        bootstrap.VENV_PYTHON.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        bootstrap.VENV_PYTHON.chmod(0o755)
    version = version or bootstrap.RUNNING_VERSION
    (venv / "pyvenv.cfg").write_text(f"home = /usr\nversion = {version}\ncommand = python -m venv {place or venv}\n")
    for lock in bootstrap.COVERS["dev"]:
        bootstrap.stamp_path(lock).write_text(bootstrap.digest(lock))


def test_without_an_environment_there_is_something_to_do(bootstrap: ModuleType) -> None:
    assert not bootstrap.is_current("embedded", False)
    assert not bootstrap.is_usable(False)


def test_an_environment_that_matches_is_left_alone(bootstrap: ModuleType) -> None:
    pretend_installed(bootstrap)
    assert bootstrap.is_current("embedded", True)
    assert bootstrap.is_usable(True)
    bootstrap.main(["embedded"])  # returns at once: there is no network in this test


@pytest.mark.parametrize("changed", ["requirements/dev.lock", "pyproject.toml"])
def test_a_change_of_what_is_asked_for_means_installing_into_the_same_environment(
    bootstrap: ModuleType, changed: str
) -> None:
    pretend_installed(bootstrap)
    path = bootstrap.ROOT / changed
    path.write_text(path.read_text() + "# more\n")
    assert not bootstrap.is_current("dev", False)
    assert bootstrap.is_usable(False)


def test_another_interpreter_counts_only_when_it_was_named(bootstrap: ModuleType) -> None:
    pretend_installed(bootstrap, version="3.99.0")
    assert bootstrap.is_current("dev", this_python=False)
    assert not bootstrap.is_current("dev", this_python=True)
    assert not bootstrap.is_usable(this_python=True)


def test_an_environment_that_was_moved_is_made_anew(bootstrap: ModuleType) -> None:
    pretend_installed(bootstrap, place="/elsewhere/.venv")
    assert not bootstrap.is_usable(False)


def test_an_installation_that_was_cut_off_begins_again(bootstrap: ModuleType) -> None:
    pretend_installed(bootstrap)
    bootstrap.UNDER_WAY.touch()
    assert not bootstrap.is_usable(False)


def test_a_failed_installation_leaves_the_environment(bootstrap: ModuleType) -> None:
    pretend_installed(bootstrap)
    (bootstrap.ROOT / "requirements" / "embedded.lock").write_text("no such requirement\n")
    with pytest.raises(SystemExit, match=r"Could not install requirements/embedded\.lock"):
        bootstrap.main(["embedded"])
    assert bootstrap.is_usable(False)
    assert not bootstrap.is_current("embedded", False)


@pytest.mark.parametrize(
    ("version", "folder", "said"),
    [
        ("3.13.9", "python3.13", ""),
        ("3.99.0rc1", "python3.99", "Python 3.99 is newer than those that this version was tested with (3.11 to 3.13)"),
        ("3.13.9", "python3.13t", "Python 3.13 without the global interpreter lock is not one"),
    ],
)
def test_where_it_may_be_the_interpreter_that_has_no_packages_another_is_recommended(
    bootstrap: ModuleType, version: str, folder: str, said: str
) -> None:
    pretend_installed(bootstrap, version=version)
    (bootstrap.VENV / "lib" / folder).mkdir(parents=True)
    (bootstrap.ROOT / "requirements" / "embedded.lock").write_text("no such requirement\n")
    with pytest.raises(SystemExit) as caught:
        bootstrap.main(["embedded"])
    assert said in str(caught.value)
    assert ("make up PYTHON=python3.13" in str(caught.value)) == bool(said)


def test_a_python_without_ensurepip_is_told_what_to_install(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else found(name))
    with pytest.raises(SystemExit) as caught:
        bootstrap.main(["embedded"])
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"apt install python{version}-venv" in str(caught.value)


def test_an_unknown_lock_is_a_usage_error(bootstrap: ModuleType) -> None:
    with pytest.raises(SystemExit, match="usage"):
        bootstrap.main(["production"])


def test_the_versions_that_it_speaks_of_are_those_of_the_metadata_and_of_the_workflow() -> None:
    expected = [f"3.{minor}" for minor in range(original.PYTHON_MIN[1], original.PYTHON_TESTED[1] + 1)]
    project = tomllib.loads((original.ROOT / "pyproject.toml").read_text())["project"]
    language = "Programming Language :: Python :: "
    assert [each.removeprefix(language) for each in project["classifiers"] if each.startswith(language)] == expected
    assert project["requires-python"] == f">={expected[0]}"
    workflow = (original.ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f"python: {json.dumps(expected)}" in workflow
