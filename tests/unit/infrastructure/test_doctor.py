"""What `bidding doctor` finds, and what it advises."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from infrastructure.local import doctor
from infrastructure.local.cli import main
from infrastructure.local.servers.ports import Ports, free_ports
from infrastructure.local.state import own_record, run_path
from tests.unit.infrastructure.test_state import run_record


def test_a_machine_on_which_the_tests_run_is_fit(tmp_path: Path) -> None:
    findings = doctor.examine(tmp_path / "new", Ports.free(), {"PATH": os.environ["PATH"]})
    assert [finding for finding in findings if finding.grade == "fail"] == []
    assert not (tmp_path / "new").exists(), "it only looks"
    names = {finding.check for finding in findings}
    assert {"python", "redis", "nats", "postgres", "data directory", "disk space", "open files"} <= names


def test_an_old_python_fails_with_advice() -> None:
    finding = doctor.check_python((3, 10), "/usr/bin/python3")
    assert finding.grade == "fail"
    assert "3.11" in finding.advice
    assert doctor.check_python((3, 11), "/usr/bin/python3").grade == "ok"


def test_a_taken_port_fails_with_its_setting(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        findings = doctor.check_ports(tmp_path, Ports(redis=port), ["redis"])
    (failed,) = [finding for finding in findings if finding.check == f"port {port}"]
    assert failed.grade == "fail"
    assert "REDIS_PORT" in failed.advice


def test_a_port_held_by_our_own_process_is_fine(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        record = run_record(redis=own_record())
        record = type(record)(record.phase, record.supervisor, record.urls, {"redis": port}, record.processes)
        record.write(run_path(tmp_path))
        findings = doctor.check_ports(tmp_path, Ports(redis=port), ["redis"])
    (finding,) = [finding for finding in findings if finding.check == f"port {port}"]
    assert (finding.grade, finding.detail) == ("ok", "in use by redis of this stack")


def test_a_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    finding = doctor.check_folder(tmp_path / "file" / "below")
    assert finding.grade == "fail"
    assert "--data-dir" in finding.advice


def test_a_given_server_that_does_not_answer_fails() -> None:
    (closed,) = free_ports(1)
    external = {"redis": f"redis://127.0.0.1:{closed}/0", "nats": None, "postgres": None}
    redis, nats, postgres = doctor.check_servers(external, {"PATH": os.environ["PATH"]})
    assert (redis.grade, nats.grade, postgres.grade) == ("fail", "ok", "ok")
    assert "unset REDIS_URL" in redis.advice


@pytest.mark.parametrize(("taken", "exit_code"), [(False, 0), (True, 1)])
def test_the_exit_code_tells_programs(tmp_path: Path, taken: bool, exit_code: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = Ports.free()
        port = server.getsockname()[1] if taken else ports.gateway
        settings = {f"{name.upper()}_PORT": str(getattr(ports, name)) for name in Ports.__slots__}
        env = settings | {"GATEWAY_PORT": str(port)}
        result = CliRunner().invoke(main, ["doctor", "--json", "--data-dir", str(tmp_path)], env=env)
    assert result.exit_code == exit_code
    grades = {finding["check"]: finding["grade"] for finding in json.loads(result.output)}
    assert grades[f"port {port}"] == ("fail" if taken else "ok")
