"""The documentation says what is there: settings with defaults and ranges, commands, the example message, links."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic import AfterValidator, SecretStr
from pydantic.fields import FieldInfo

from api_gateway.settings import Settings as GatewaySettings
from infrastructure.local.cli import commands
from infrastructure.local.importing.lots_file import COLUMNS
from infrastructure.local.servers import binaries
from shared.aliases import AliasSettings
from shared.clients.stream_settings import StreamSettings
from shared.messages import decode_batch
from shared.names import message_id, subject_of
from shared.read_cache.settings import ReadCacheSettings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIGURATION = DOCS / "configuration.md"
SERVICES = ("api_gateway", "broadcast_service", "archival_worker", "cache_node")
COMMANDS = (
    "infrastructure.local.commands.platform.up:up",
    "infrastructure.local.commands.platform.doctor:doctor",
    "load_tests.run.command:main",
    "load_tests.replay.command:replay",
)
PAGES = sorted(
    [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"],
)

_ENVIRON = re.compile(r"""environ(?:\.get\(|\[)\s*"([A-Z_]+)\"""")
_CONTENTS = re.compile(r"^- \[([^\]]+)\]\(#", re.MULTILINE)
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def rows(heading: str) -> dict[str, list[str]]:
    """The table rows of a section of configuration.md, by the setting in their first column, without back quotes."""
    section = CONFIGURATION.read_text().split(f"\n## {heading}\n", 1)[1].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if "|" in line]
    return {row[0].strip("`"): row for row in cells if row[0].startswith("`")}


def shown_default(field: FieldInfo) -> str:
    default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if default == "":
        return "(empty)"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def shown_range(field: FieldInfo) -> str | None:
    """The range as the page has to say it, or None where the code checks none."""
    if field.annotation is bool:
        return "`true`, `false`"
    if choices := get_args(field.annotation):
        return ", ".join(f"`{choice}`" for choice in choices)
    limits = [each for each in field.metadata if not isinstance(each, AfterValidator)]
    bounds = {type(each).__name__: getattr(each, type(each).__name__.lower()) for each in limits}
    if "Gt" in bounds:
        return f"more than {bounds['Gt']}" + (f", at most {bounds['Le']}" if "Le" in bounds else "")
    if "Le" in bounds:
        return f"{bounds['Ge']} to {bounds['Le']}"
    return f"at least {bounds['Ge']}" if bounds else None


@pytest.mark.parametrize("service", [*SERVICES, "The read cache"])
def test_every_setting_of_a_service_is_documented_as_it_is(service: str) -> None:
    fields: dict[str, FieldInfo]
    if service in SERVICES:
        fields = importlib.import_module(f"{service}.settings").Settings.model_fields
    else:
        fields = ReadCacheSettings.model_fields
    documented = rows(service)
    assert set(documented) == {name.upper() for name in fields}
    for name, field in fields.items():
        _, default, _unit, limits, meaning = documented[name.upper()]
        assert default == shown_default(field), name
        assert limits == (shown_range(field) or "\N{EN DASH}"), name
        assert meaning.endswith("."), name


def test_what_the_code_reads_from_the_environment_itself_is_documented() -> None:
    names = {
        name
        for package in (*SERVICES, "shared")
        for path in (ROOT / package).rglob("*.py")
        for name in _ENVIRON.findall(path.read_text())
    }
    names |= {name.upper() for settings in (AliasSettings, StreamSettings) for name in settings.model_fields}
    # Where both have it, it is documented as the gateway's.
    names -= {name.upper() for name in GatewaySettings.model_fields}
    assert names <= set(rows("Shared by the gateway and the broadcaster"))


def environment_of(command: str) -> Iterator[tuple[str, Any]]:
    module, _, attribute = command.partition(":")
    found: click.Command = getattr(importlib.import_module(module), attribute)
    for parameter in found.params:
        if isinstance(parameter.envvar, str):
            yield parameter.envvar, parameter.default


@pytest.mark.parametrize("command", COMMANDS)
def test_every_environment_name_of_a_command_is_documented(command: str) -> None:
    page = CONFIGURATION.read_text()
    names = dict(environment_of(command))
    assert names
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_defaults_of_bidding_up_are_documented() -> None:
    documented = rows("The `bidding` command")
    for name, default in environment_of(COMMANDS[0]):
        assert documented[name][1] == f"`{default}`", name
    assert {binaries.REDIS_SETTING, binaries.NATS_SETTING, binaries.POSTGRES_SETTING} <= set(documented)


def test_the_example_message_is_one() -> None:
    page = (DOCS / "architecture.md").read_text()
    example = next(text for text in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if '"shard_epoch"' in text)
    batch = decode_batch(example.encode())
    assert f"`{subject_of(batch.item_id)}`" in page
    place = message_id(batch.shard, batch.shard_epoch, batch.n)
    assert re.search(rf"`Nats-Msg-Id: {place}:[0-9a-f]{{16}}`", page)
    assert [event.version for event in batch.events] == [(1, 3), (1, 4)]


def test_the_readme_names_every_target_and_subcommand() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets
    assert [target for target in targets if f"`make {target}`" not in readme] == []
    assert [name for name in commands() if f"`bidding {name}" not in readme] == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Links to pages, files and headings. Pictures are left out: they are made from the running platform."""
    dead = []
    for link in _LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_diagrams_have_their_kind_on_a_line_of_its_own(page: Path) -> None:
    """An editor that fills paragraphs makes one line of all, which nobody can draw."""
    firsts = re.findall(r"^```mermaid\n(.*)$", page.read_text(), re.MULTILINE)
    kind = re.compile(r"flowchart (LR|TD|TB)|stateDiagram-v2|sequenceDiagram")
    assert [line for line in firsts if kind.fullmatch(line) is None] == []


def test_decision_records_are_numbered_and_listed() -> None:
    records = sorted(path.name for path in (DOCS / "decisions").glob("*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    overview = (DOCS / "architecture.md").read_text()
    assert [name for name in records if f"](decisions/{name})" not in overview] == []
    for name in records:
        text = (DOCS / "decisions" / name).read_text()
        positions = [text.find(f"\n## {part}\n") for part in ("Context", "Decision", "Consequences")]
        assert -1 not in positions, name
        assert positions == sorted(positions), name


def test_files_that_pages_name_are_there() -> None:
    """By their whole path or the end of it; the changelog tells of files that were."""
    there = {
        str(path.relative_to(ROOT))
        for folder in (*SERVICES, "shared", "infrastructure", "load_tests")
        for path in (ROOT / folder).rglob("*")
    }
    there |= {str(path.relative_to(ROOT)) for folder in ("bench", "tests") for path in (ROOT / folder).rglob("*.py")}
    named = re.compile(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|lua|sql))`")
    gone = [
        f"{page.name}: {path}"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for path in named.findall(page.read_text())
        if path not in there and not any(known.endswith(f"/{path}") for known in there)
    ]
    assert gone == []


WITH_CONTENTS = [page for page in PAGES if _CONTENTS.search(page.read_text())]


@pytest.mark.parametrize("page", WITH_CONTENTS, ids=lambda page: page.stem)
def test_the_contents_of_a_page_list_all_of_its_sections(page: Path) -> None:
    text = _FENCED.sub("", page.read_text())
    assert _CONTENTS.findall(text.partition("\n## ")[0]) == _SECTION.findall(text)


def test_every_column_of_an_import_is_on_its_page() -> None:
    section = (DOCS / "run-an-auction.md").read_text().split("\n## Many lots at once\n", 1)[1].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    assert {column for cell in cells for column in re.findall(r"`(\w+)`", cell)} == set(COLUMNS)
