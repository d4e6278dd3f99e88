"""What is refused before anything starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from api_gateway.settings import Settings
from load_tests.experiments.command import experiment
from load_tests.experiments.common import guard
from load_tests.experiments.common.guard import (
    Refused,
    ask_before_leaving,
    is_local,
    require_allowance,
    require_descriptors,
    require_ports,
)
from load_tests.experiments.common.platform import Platform
from load_tests.experiments.common.results import write_result
from load_tests.experiments.common.session import EXIT_NO_RUN
from load_tests.experiments.resilience.breakers import breaker_for
from tests.unit.load_tests.experiments.world import result, step


def run(*arguments: str, said: str = "") -> Result:
    empty = {"REDIS_URL": "", "NATS_URL": "", "POSTGRES_URL": ""}
    return CliRunner(env=empty).invoke(experiment, arguments, input=said)


def test_a_target_that_does_not_answer(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    outcome = run(
        "contention", "--users", "2", "--target", "http://127.0.0.1:1", "--data-dir", str(tmp_path), "--out", str(out)
    )
    assert outcome.exit_code == EXIT_NO_RUN
    assert "nothing answers at http://127.0.0.1:1" in outcome.output
    assert not out.exists()


@pytest.mark.parametrize("command", [("contention", "--users"), ("fanout", "--connections")])
@pytest.mark.parametrize("value", ["", "many", "0", "5,4", "5,5", "-3", "1,2000000"])
def test_steps_that_are_none(command: tuple[str, str], value: str) -> None:
    outcome = run(*command, value)
    assert outcome.exit_code == EXIT_NO_RUN
    assert command[1] in outcome.output


def test_a_crowd_that_this_machine_cannot_hold() -> None:
    with pytest.raises(Refused, match=r"ulimit -n"):
        require_descriptors(10**12, 2, "users")
    require_descriptors(10, 2, "users")


@pytest.mark.parametrize(("setting", "most"), [(None, 1_000), ("50", 50), ("0", None)])
def test_a_gateway_that_would_turn_users_away(setting: str | None, most: int | None) -> None:
    variables = {} if setting is None else {"GATEWAY_CONNECTIONS_PER_ADDRESS_MAX": setting}
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables) as gateway:
        # Its environment cannot be read before it runs.
        assert gateway.stdout is not None
        gateway.stdout.readline()
        require_allowance([gateway.pid], most or 100_000)
        if most is not None:
            with pytest.raises(Refused, match=f"lets one address have {most:,} connections"):
                require_allowance([gateway.pid], most + 1)


def test_the_default_is_that_of_the_gateway() -> None:
    assert Settings.model_fields["gateway_connections_per_address_max"].default == guard._ALLOWANCE_DEFAULT


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8080", True),
        ("redis://:secret@localhost:6379/0", True),
        ("http://[::1]:8080", True),
        ("http://192.0.2.1:8080", False),
        ("http://0.0.0.0.invalid", False),
    ],
)
def test_what_is_this_machine(url: str, local: bool) -> None:
    assert is_local(url) is local


def test_load_leaves_this_machine_only_after_a_yes(tmp_path: Path) -> None:
    outcome = run(
        "contention", "--users", "2", "--target", "http://192.0.2.1:8080", "--data-dir", str(tmp_path), said="n\n"
    )
    assert outcome.exit_code == EXIT_NO_RUN
    assert "192.0.2.1:8080, which is not this machine" in outcome.output
    assert "--yes says it in advance" in outcome.output
    ask_before_leaving(["http://192.0.2.1"], yes=True)
    ask_before_leaving(["http://127.0.0.1"], yes=False)


def test_a_file_that_is_no_result(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"users": 5}')
    for path in (other, tmp_path / "missing.json"):
        outcome = run("compare", str(path), "--out", str(tmp_path / "report.html"))
        assert outcome.exit_code == EXIT_NO_RUN
        assert str(path) in outcome.output
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("command", [("contention", "--rate"), ("fanout", "--rate"), ("network", "--cpu")])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_a_number_that_is_none(command: tuple[str, str], value: str) -> None:
    outcome = (
        run(*command, value, "--target", "http://127.0.0.1:1") if command[0] != "network" else run(*command, value)
    )
    assert outcome.exit_code == EXIT_NO_RUN
    assert f"Invalid value for '{command[1]}'" in outcome.output


@pytest.mark.parametrize("value", ["mars=1ms", "redis", "redis=long", "redis=11s"])
def test_a_hop_that_is_none(value: str) -> None:
    assert "is no hop such as client=15ms" in run("network", "--hop", value).output


@pytest.mark.parametrize("out", ["result.json", "result.html", "report.md"])
def test_a_report_takes_no_results_place(tmp_path: Path, out: str) -> None:
    files = [tmp_path / "result.json", tmp_path / "result.md"]
    for path in files:
        write_result(path, result("contention", ladder=[step(100)]))
    kept = [path.read_bytes() for path in files]
    outcome = run("compare", *map(str, files), "--out", str(tmp_path / out))
    assert outcome.exit_code == EXIT_NO_RUN
    assert "No report: --out " in outcome.output
    assert [path.read_bytes() for path in files] == kept
    assert sorted(tmp_path.iterdir()) == files


def test_more_users_than_this_machine_has_ports(tmp_path: Path) -> None:
    ports = tmp_path / "range"
    ports.write_text("32768\t60999\n")
    require_ports(28_232, ports)
    with pytest.raises(Refused, match=r"has 28,232 for one target"):
        require_ports(28_233, ports)
    require_ports(10**6, tmp_path / "none")


def test_nothing_on_aws_is_changed_without_a_yes(tmp_path: Path) -> None:
    """Also where the target is this machine: the service that is changed is not."""
    where = ("--target", "http://127.0.0.1:1", "--out", str(tmp_path / "result.json"))
    outcome = run("environment", "--backend", "aws", *where, said="n\n")
    assert outcome.exit_code == EXIT_NO_RUN
    assert "deploys gateway in the ECS cluster bidding-dev anew 5 times" in outcome.output
    assert "nothing is changed on AWS without a yes" in outcome.output
    kill = ("resilience", "--kill", "archival", "--ecs-cluster", "bidding-prod", *where)
    outcome = run(*kill, said="n\n")
    assert outcome.exit_code == EXIT_NO_RUN
    assert "takes all tasks of archiver in the ECS cluster bidding-prod away" in outcome.output
    outcome = run("resilience", "--kill", "redis", "--ecs-cluster", "bidding-prod", "--yes", *where)
    assert "redis is no service of ECS" in outcome.output


def test_no_service_on_aws_is_broken_for_a_platform_elsewhere() -> None:
    here = Platform("embedded", "here", "http://127.0.0.1:1", None, None, dict)
    with pytest.raises(Refused, match="--aws and --target name the platform there"):
        breaker_for(here, "gateway", cluster="bidding-prod")
