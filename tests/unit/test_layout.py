"""Rules about the tree that import-linter cannot express."""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from infrastructure.local.cli import LAZY, commands

ROOT = Path(__file__).parents[2]


# Several tests ask for the same files, and to parse all of ours takes a second.
@functools.cache
def imports_in(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def imported(path: Path) -> Iterator[str]:
    """The full names of the modules that a file imports, wherever in it."""
    for node in imports_in(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        else:
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module


def imported_modules(path: Path) -> Iterator[str]:
    """As :func:`imported`, with those that are imported as names of a package."""
    for node in imports_in(path):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
    yield from imported(path)


def test_the_domain_imports_only_the_standard_library() -> None:
    files = sorted((ROOT / "shared" / "domain").rglob("*.py"))
    assert files
    strangers = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imported(path)
        if name.partition(".")[0] not in sys.stdlib_module_names and not name.startswith("shared.domain")
    ]
    assert strangers == []


def test_the_bootstrap_imports_only_the_standard_library() -> None:
    names = {name.partition(".")[0] for name in imported(ROOT / "infrastructure" / "local" / "bootstrap.py")}
    assert names <= sys.stdlib_module_names


PRODUCT = (
    "api_gateway",
    "archival_worker",
    "bench",
    "broadcast_service",
    "cache_node",
    "infrastructure",
    "load_tests",
    "shared",
)


def imported_by_name(path: Path) -> Iterator[str]:
    """The modules that a file imports by calls of ``import_module`` with their names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "importlib.import_module":
            (name,) = node.args
            if isinstance(name, ast.Constant):
                yield str(name.value)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Not for types either, nor inside a function, nor by name: who reads one of a circle must read all of it."""
    paths = [path for package in PRODUCT for path in sorted((ROOT / package).rglob("*.py"))]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    graph = {
        name: {each for each in (*imported_modules(path), *imported_by_name(path)) if each in modules and each != name}
        for name, path in modules.items()
    }
    # Raises CycleError, which names the circle.
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)


SERVICES = ("api_gateway", "archival_worker", "broadcast_service", "shared")


def test_the_plan_of_the_house_shows_every_folder_of_code() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    plan = page.partition("## The plan of the house")[2].split("```")[1]
    folders = [ROOT / "api_gateway" / "engine", *(ROOT / name for name in SERVICES)]
    paths = [path.parent for folder in folders for path in sorted(folder.glob("*/__init__.py"))]
    shown = set(re.findall(r"(?<=[ /])(\w+)/", plan))
    assert [str(path.relative_to(ROOT)) for path in paths if path.name not in shown] == []


def test_the_plan_of_the_house_shows_nothing_that_is_not_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    section = page.partition("## The plan of the house")[2].partition("\n## ")[0]
    named = set(re.findall(r"(?<![\w./])((?:\w+/)+(?:\w+\.\w+)?|\w+\.(?:py|lua))(?![\w/])", section.split("```")[1]))
    named |= set(re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?)`", section))
    tree = {str(path.relative_to(ROOT)) for path in files_and_folders()}
    assert len(named) > 60
    assert sorted(name for name in named if not any(f"/{each}".endswith(f"/{name.rstrip('/')}") for each in tree)) == []


def files_and_folders() -> Iterator[Path]:
    for top in (*PRODUCT, "tests"):
        yield ROOT / top
        yield from (path for path in (ROOT / top).rglob("*") if path.is_dir() or path.suffix in (".py", ".lua"))


COMPOSITION_ROOTS = (
    "api_gateway/application.py",
    "api_gateway/main.py",
    "api_gateway/opening/callers.py",
    "api_gateway/opening/deciding.py",
    "api_gateway/opening/figures.py",
    "api_gateway/opening/gateway.py",
    "api_gateway/opening/items.py",
    "api_gateway/opening/servers.py",
    "archival_worker/main.py",
    "broadcast_service/main.py",
    "broadcast_service/service.py",
    "cache_node/main.py",
)


def test_a_composition_root_hands_over_what_is_there_already() -> None:
    """A lambda there reads a name that comes later, or hides that two parts do not fit; a hook that is set later is
    missing until then."""
    for name in COMPOSITION_ROOTS:
        for node in ast.walk(ast.parse((ROOT / name).read_text())):
            assert not isinstance(node, ast.Lambda), f"{name}:{node.lineno}: a lambda"
            if not isinstance(node, ast.Assign):
                continue
            late = [
                each for each in node.targets if isinstance(each, ast.Attribute) and ast.unparse(each.value) != "self"
            ]
            assert late == [], f"{name}:{node.lineno}: {ast.unparse(node)}"


def test_the_command_names_nothing_that_stands_above_it() -> None:
    """Commands are imported by their name, which no import contract sees; others register with an entry point."""
    assert [place for place in LAZY.values() if not place.startswith("infrastructure.")] == []
    assert "replay" in commands()
