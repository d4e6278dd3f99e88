"""The `bidding` command, as far as it starts nothing."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from infrastructure.local import cli
from infrastructure.local.commands.platform.logs import Follower
from infrastructure.local.commands.platform.status import age_text
from infrastructure.local.servers.ports import Ports, free_ports
from infrastructure.local.state import ProcessRecord, RunRecord, own_record, run_path


def bidding(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


@pytest.mark.parametrize("name", cli.commands())
def test_every_subcommand_explains_itself(name: str) -> None:
    result = bidding(name, "--help")
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output
    assert "not available" not in result.output


def test_help_lists_all_subcommands() -> None:
    output = bidding("--help").output
    assert [name for name in cli.commands() if f"  {name} " not in output] == []


def leaves(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of every subcommand that has none of its own."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("words", [(), ("items",), ("cache",), ("dead-letters",)], ids=" ".join)
def test_no_line_of_help_is_cut(words: tuple[str, ...]) -> None:
    listed = bidding(*words, "--help").output.partition("\nCommands:\n")[2]
    assert listed
    assert [line for line in listed.splitlines() if line.endswith("...")] == []


@pytest.mark.parametrize("words", list(leaves(cli.main)), ids=" ".join)
def test_help_has_examples_that_are_understood(words: tuple[str, ...], tmp_path: Path) -> None:
    output = bidding(*words, "--help").output
    found = re.findall(r"^ {4}bidding (.+)$", output, re.MULTILINE)
    assert found, output
    for example in found:
        given = shlex.split(example)
        assert tuple(given[: len(words)]) == words
        command: click.Command = cli.main
        context = click.Context(cli.main)
        for word in words:
            assert isinstance(command, click.Group)
            command = command.get_command(context, word) or pytest.fail(word)
        # Parsed, and not run. A file of an example need not be there.
        parser_context = click.Context(command, info_name=words[-1], resilient_parsing=True)
        parser = command.make_parser(parser_context)
        _, rest, _ = parser.parse_args(list(given[len(words) :]))
        assert rest == [] or any(isinstance(each, click.Argument) for each in command.params)


def test_an_unknown_subcommand_is_a_usage_error_that_names_what_may_be_meant() -> None:
    result = bidding("fly")
    assert result.exit_code == 2
    assert "Did you mean" not in result.output
    assert "No such command 'dmeo'. Did you mean demo or deploy?" in bidding("dmeo").output
    assert "Did you mean pause?" in bidding("items", "puase").output


@pytest.mark.parametrize(
    "arguments",
    [("feed-token", "no spaces"), ("logs",), ("cache", "ring"), ("items", "pause", "x", "--reason", "y"), ("demo",)],
    ids=" ".join,
)
def test_errors_have_one_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    monkeypatch.delenv("GATEWAY_URL", raising=False)
    result = bidding(*arguments, "--data-dir", str(tmp_path))
    assert result.exit_code in (1, 2)
    assert result.output.startswith("Error: ")


def test_items_of_a_gateway_that_is_not_there() -> None:
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    result = bidding("items", "pause", "lamp", "--reason", "x", "--gateway-url", url)
    assert (result.exit_code, f"Error: Nothing answers at {url}" in result.output) == (2, True)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--start-price", "1e"),
        ("--start-price", "NaN"),
        ("--ends-in", "1 hour"),
        ("--soft-close", "2m"),
        ("--increment", "%"),
    ],
)
def test_terms_that_are_none_are_usage_errors(option: str, value: str) -> None:
    result = bidding("items", "create", "Lamp", option, value, "--gateway-url", "http://127.0.0.1:1")
    assert result.exit_code == 2
    assert option in result.output


def test_one_whose_packages_are_missing_says_so_and_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.LAZY, "gone", "package_that_is_not_there:command")
    assert "gone" in bidding("--help").output
    result = bidding("gone", "--some", "option")
    assert result.exit_code == 1
    assert "package_that_is_not_there" in result.output


def test_status_of_nothing(tmp_path: Path) -> None:
    result = bidding("status", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert result.output.startswith("stopped")


def test_status_of_a_run_that_ended_without_a_word(tmp_path: Path) -> None:
    gone = ProcessRecord(pid=2**22 + 1, create_time=time.time() - 50)
    ports = {name: getattr(Ports(), name) for name in Ports.__slots__}
    urls = {"postgres_url": "postgresql://me:secret@127.0.0.1:1/x"}
    record = RunRecord(phase="ready", supervisor=gone, urls=urls, ports=ports, processes={"redis": gone})
    record.write(run_path(tmp_path))
    result = bidding("status", "--json", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    answer = json.loads(result.output)
    assert answer["phase"] == "stopped"
    assert [(row["name"], row["state"]) for row in answer["processes"]] == [("redis", "ended")]
    assert "secret" not in result.output


def test_status_of_a_run_of_which_a_part_has_died(tmp_path: Path) -> None:
    gone = ProcessRecord(pid=2**22 + 1, create_time=time.time() - 50)
    ports = {name: getattr(Ports(), name) for name in Ports.__slots__}
    record = RunRecord(phase="ready", supervisor=own_record(), urls={}, ports=ports, processes={"redis": gone})
    record.write(run_path(tmp_path))
    result = bidding("status", "--data-dir", str(tmp_path))
    assert (result.exit_code, result.output.startswith("not all is ready")) == (1, True)


def test_down_where_nothing_runs(tmp_path: Path) -> None:
    result = bidding("down", "--data-dir", str(tmp_path))
    assert result.exit_code == 0
    assert "Nothing runs" in result.output


def test_a_port_that_is_none_is_refused_with_its_setting() -> None:
    result = CliRunner().invoke(cli.main, ["up"], env={"REDIS_PORT": "99999"})
    assert result.exit_code == 2
    assert "REDIS_PORT" in result.output


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [
        (("demo",), 2),
        (("items", "pause", "lamp", "--reason", "x"), 2),
        (("recover",), 1),
        (("dead-letters", "list"), 1),
        (("dead-letters", "retry", "1"), 1),
        (("audit", "lot-1"), 2),
    ],
)
def test_without_a_platform_no_other_one_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], exit_code: int
) -> None:
    for setting in ("GATEWAY_URL", "REDIS_URL", "NATS_URL", "POSTGRES_URL"):
        monkeypatch.delenv(setting, raising=False)
    result = bidding(*command, "--data-dir", str(tmp_path))
    assert result.exit_code == exit_code
    assert "No platform is up with its data in" in result.output
    assert "up --data-dir" in result.output


@pytest.mark.parametrize(("no_color", "colours"), [("", True), ("1", False)])
def test_colours_can_be_switched_off(tmp_path: Path, no_color: str, colours: bool) -> None:
    for command in (["doctor", "--data-dir", str(tmp_path)], ["demo", "--data-dir", str(tmp_path)]):
        result = CliRunner(env={"NO_COLOR": no_color}).invoke(cli.main, command, color=True)
        assert ("\x1b[" in result.output) is colours


def test_a_terminal_that_knows_no_check_marks_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("✓ redis\n")
    result = CliRunner(charset="iso-8859-1").invoke(cli.main, ["logs", "a", "--data-dir", str(tmp_path)])
    assert (result.exit_code, result.output) == (0, "? redis\n")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://[::1", "http://a:b"])
@pytest.mark.parametrize("command", ["demo", "replay"])
def test_what_is_no_address_is_a_usage_error(tmp_path: Path, command: str, url: str) -> None:
    path = tmp_path / "bids.csv"
    path.touch()
    result = bidding(command, *([str(path)] if command == "replay" else []), "--gateway-url", url)
    assert result.exit_code == 2
    assert "is no address such as http://127.0.0.1:8080" in result.output


def test_logs_of_one_and_of_all(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "redis.log").write_text("r1\nr2\n")
    (tmp_path / "logs" / "nats.log").write_text("n1\n")
    assert bidding("logs", "redis", "-n", "1", "--data-dir", str(tmp_path)).output == "r2\n"
    both = bidding("logs", "--data-dir", str(tmp_path)).output
    assert both == "nats  | n1\nredis | r1\nredis | r2\n"
    unknown = bidding("logs", "mongo", "--data-dir", str(tmp_path))
    assert unknown.exit_code == 1
    assert "There are: nats, redis" in unknown.output


def test_following_a_log_across_its_replacement(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n")
    follower = Follower(log)
    assert follower.new_lines() == []
    with log.open("a") as file:
        file.write("one\ntw")
    assert follower.new_lines() == ["one"]
    with log.open("a") as file:
        file.write("o\nlast")
    assert follower.new_lines() == ["two"]
    log.replace(tmp_path / "a.log.1")
    log.write_text("new\n")
    assert [line for _ in range(3) for line in follower.new_lines()] == ["last", "new"]
    follower.close()


def test_following_a_log_that_was_emptied(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("old\n")
    follower = Follower(log)
    log.write_text("")
    assert follower.new_lines() == []
    log.write_text("new\n")
    assert follower.new_lines() == ["new"]
    follower.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_500, "2 h 05 min")],
)
def test_ages(seconds: float | None, text: str) -> None:
    assert age_text(seconds) == text


def test_every_entry_is_a_command() -> None:
    context = click.Context(cli.main)
    assert all(cli.main.get_command(context, name) is not None for name in cli.commands())


def test_a_file_that_cannot_be_read_is_an_error_like_every_other(tmp_path: Path) -> None:
    lots = tmp_path / "lots.csv"
    lots.write_text("name,ends_in\nA vase,2h\n")
    result = bidding("import", str(lots))
    assert (result.exit_code, result.output) == (1, "Error: line 1: 'ends_in' is no column; did you mean end_time?\n")
    result = bidding("verify-export", str(tmp_path))
    assert (result.exit_code, "is a directory" in result.output) == (2, True)
