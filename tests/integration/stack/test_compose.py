"""The compose file and the Dockerfile say what the documentation promises; and, where somebody asks, they run.

The static checks need no Docker. The run does: `BIDDING_TEST_COMPOSE=1 pytest tests/integration/stack/test_compose.py`;
it uses the ports of the compose file, a project name of its own, and removes its volumes.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from api_gateway.settings import Settings
from infrastructure.docker import healthcheck
from infrastructure.docker.addresses import DEFAULTS
from infrastructure.docker.make_env import SECRETS
from infrastructure.docker.programs import PROGRAMS
from shared.aws.credentials import LOCAL_MARK
from shared.identity.api_keys import ApiKeySettings
from shared.identity.settings import IdentitySettings
from tests.waiting import eventually

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "docker-compose.localstack.yml"
FOLDER = ROOT / "infrastructure" / "docker"
DOCKERFILE = FOLDER / "Dockerfile"

OWN = ("api_gateway", "broadcast_service", "archival_worker")
CACHE = ("cache_node", "cache_front_end")
ONE_SHOTS = ("migrate", "prepare_aws")
SERVERS = ("redis", "nats", "postgres", "aws")
DEFAULT_STACK = {*OWN, *ONE_SHOTS, *SERVERS}

_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::-([^}]*))?\}")

STACK: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, Any] = STACK["services"]


def variables() -> dict[str, set[str]]:
    """Every variable of the file with the defaults that it has there."""
    found: dict[str, set[str]] = {}
    for name, default in _VARIABLE.findall(COMPOSE.read_text()):
        found.setdefault(name, set()).add(default)
    return found


def test_what_starts_without_a_profile_is_the_whole_platform() -> None:
    assert {name for name, service in SERVICES.items() if "profiles" not in service} == DEFAULT_STACK
    profiles = {profile for service in SERVICES.values() for profile in service.get("profiles", ())}
    assert profiles == {"cache", "observability", "load", "operator"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_bounded_and_has_no_rights_to_spare(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    if name not in ("aws",):
        assert service["cap_drop"] == ["ALL"]
    if name not in ("aws", "postgres"):
        assert service["read_only"] is True


@pytest.mark.parametrize("name", [*sorted(DEFAULT_STACK - set(ONE_SHOTS)), *CACHE, "prometheus", "grafana"])
def test_what_stays_up_is_watched_and_comes_back(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ONE_SHOTS)
def test_somebody_waits_for_each_one_shot_to_end_well(name: str) -> None:
    """Also what `up --wait` needs: it would take the end of a container that nobody waits for as a failure."""
    assert SERVICES[name]["restart"] == "no"
    waiting = [other for other, service in SERVICES.items() if name in service.get("depends_on", {})]
    assert waiting
    for other in waiting:
        assert SERVICES[other]["depends_on"][name] == {"condition": "service_completed_successfully"}


def test_all_other_dependencies_wait_for_health() -> None:
    for service in SERVICES.values():
        for name, dependency in service.get("depends_on", {}).items():
            if name not in ONE_SHOTS:
                assert dependency == {"condition": "service_healthy"}


def test_ports_are_on_loopback_and_can_be_moved() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) >= 8
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z_]+_PORT:-\d+\}:\d+", port)] == []


def test_no_key_is_newer_than_docker_compose_1_29() -> None:
    assert "version" not in STACK
    assert "include" not in STACK
    for service in SERVICES.values():
        assert not {"deploy", "develop", "configs", "pull_policy", "attach"} & service.keys()
        assert "start_interval" not in service.get("healthcheck", {})
        assert all(set(one) == {"condition"} for one in service.get("depends_on", {}).values())


def test_every_secret_has_a_default_that_the_services_refuse_outside_of_local_use() -> None:
    named = {name for name in variables() if name.endswith(("_PASSWORD", "_SECRET"))}
    # What they do is off by default: tokens of an issuer, and API keys.
    named -= {"AUTH_HS256_SECRET", "API_KEY_SECRET"}
    assert named == set(SECRETS)
    for name in named:
        assert len(variables()[name]) == 1
        assert all(default.startswith(LOCAL_MARK) for default in variables()[name]), name
    assert STACK["x-environment"]["ENVIRONMENT"] == "${ENVIRONMENT:-local}"


def gateway_environment(given: dict[str, str]) -> dict[str, str]:
    """What the gateway's container gets where these variables are set outside."""

    def value(match: re.Match[str]) -> str:
        return given.get(match[1]) or match[2] or ""

    settings = SERVICES["api_gateway"]["environment"]
    return {name: _VARIABLE.sub(value, str(text)) for name, text in settings.items()}


def test_settings_of_who_is_believed_reach_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """With AUTH_MODE=jwt outside it must not run open without a word."""
    names = [name.upper() for name in IdentitySettings.model_fields | ApiKeySettings.model_fields]
    for name in (*names, "OPEN_CATALOGUE", "OPEN_IDENTITY"):
        monkeypatch.delenv(name, raising=False)
    handed = gateway_environment({name: f"given-{name}" for name in names})
    assert {name: handed[name] for name in names} == {name: f"given-{name}" for name in names}

    def settings_of(given: dict[str, str]) -> Settings:
        found = gateway_environment(given)
        for name in (*names, "OPEN_CATALOGUE", "OPEN_IDENTITY"):
            monkeypatch.setenv(name, found[name])
        return Settings()

    assert settings_of({}).auth_mode == "open"
    whom = {"AUTH_MODE": "jwt", "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a", "AUTH_HS256_SECRET": "0123456789abcdef" * 2}
    with pytest.raises(ValueError, match="OPEN_CATALOGUE must be false"):
        settings_of(whom)
    closed = settings_of(whom | {"OPEN_CATALOGUE": "false", "OPEN_IDENTITY": "false"})
    assert (closed.auth_mode, closed.auth_issuer, closed.auth_leeway_s) == ("jwt", "i", 30)


def test_all_who_show_items_know_whether_aliases_alone_are_public() -> None:
    for name in ("api_gateway", "broadcast_service", "cache_node", "cache_front_end"):
        assert SERVICES[name]["environment"]["AUTH_MODE"] == "${AUTH_MODE:-open}", name


def test_settings_of_images_reach_the_gateway() -> None:
    given = {"IMAGE_BYTES_MAX": "100000", "IMAGE_HOSTS": "img.example.com"}
    handed = gateway_environment(given)
    assert {name: handed[name] for name in given} == given


def test_the_addresses_for_load_runs_have_the_defaults_of_the_file() -> None:
    assert {name: variables()[name] for name in DEFAULTS} == {name: {default} for name, default in DEFAULTS.items()}


def test_the_emulator_is_motos_server_of_the_version_that_the_tests_use() -> None:
    locked = re.search(r"^moto==(\S+)", (ROOT / "requirements" / "dev.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert SERVICES["aws"]["image"] == f"${{AWS_EMULATOR_IMAGE:-motoserver/moto:{locked[1]}}}"


def test_every_image_has_a_version() -> None:
    images = [service["image"] for service in SERVICES.values() if not service["image"].startswith("bidding-")]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    for image in images:
        assert re.search(r":[^/]*\d", image), image
        assert "latest" not in image


@pytest.mark.parametrize("name", [*OWN, *CACHE, *ONE_SHOTS])
def test_our_own_containers_run_a_program_of_the_image(name: str) -> None:
    (program,) = SERVICES[name]["command"]
    assert program in PROGRAMS
    assert SERVICES[name]["init"] is True
    assert SERVICES[name]["build"] == {
        "context": ".",
        "dockerfile": "infrastructure/docker/Dockerfile",
        "target": "runtime",
    }


@pytest.mark.parametrize("name", [*OWN, *CACHE])
def test_a_container_is_stopped_no_sooner_than_its_service_needs(name: str) -> None:
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 15


def test_redis_and_nats_write_to_disk_before_they_answer_and_drop_nothing() -> None:
    redis = (FOLDER / "redis.conf").read_text().splitlines()
    assert {"appendonly yes", "appendfsync always", "maxmemory-policy noeviction", 'save ""'} <= set(redis)
    nats = (FOLDER / "nats.conf").read_text()
    assert re.search(r"^\s*sync_interval: always$", nats, re.MULTILINE)
    assert 'http: "0.0.0.0:8222"' in nats
    assert 'include "nats-users.conf"' in nats


def test_files_that_are_mounted_are_there() -> None:
    mounts = [each for service in SERVICES.values() for each in service.get("volumes", ()) if each.startswith("./")]
    assert len(mounts) >= 5
    for mount in mounts:
        source, _, mode = mount.split(":")
        assert (ROOT / source).exists(), mount
        assert mode == "ro"


def test_prometheus_asks_every_service_where_it_listens() -> None:
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    asked = {target for job in jobs for static in job.get("static_configs", ()) for target in static["targets"]}
    assert asked == {f"{name}:{PROGRAMS[name].port}" for name in OWN}
    # A job with a name may have several targets or none: one for each address of the name.
    found = {
        (name, each["type"], each["port"])
        for job in jobs
        for each in job.get("dns_sd_configs", ())
        for name in each["names"]
    }
    assert found == {(name, "A", PROGRAMS["cache_node"].port) for name in CACHE}


def test_the_profile_cache_is_three_nodes_and_a_front_end() -> None:
    node, front_end = (SERVICES[name] for name in CACHE)
    assert node["scale"] == 3
    assert "ports" not in node, "three containers cannot have one port"
    assert front_end["environment"]["CACHE_ROLE"] == "front_end"
    assert "CACHE_ROLE" not in node["environment"], "a node by default"
    assert front_end["ports"] == ["127.0.0.1:${CACHE_PORT:-9999}:9999"]


def test_prometheus_finds_its_alerts_beside_its_configuration() -> None:
    """That alerts and dashboard ask for metrics that exist is in tests/acceptance/test_metrics.py."""
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    folder = "/etc/prometheus"
    mounted = [mount.split(":")[1] for mount in SERVICES["prometheus"]["volumes"]]
    assert [f"{folder}/{name}" for name in configuration["rule_files"]] == [f"{folder}/alerts.yml"]
    assert {f"{folder}/prometheus.yml", f"{folder}/alerts.yml"} <= set(mounted)


# ------------------------------------------------------------------------------------------------------ Dockerfile


def stage(name: str) -> str:
    return re.split(r"^FROM .* AS ", DOCKERFILE.read_text(), flags=re.MULTILINE)[
        ["", "packages", "sources", "runtime", "load"].index(name)
    ]


def test_the_image_is_built_from_the_lock_with_hashes_and_without_a_compiler() -> None:
    text = DOCKERFILE.read_text()
    assert "# syntax" not in text
    assert "--require-hashes" in stage("packages")
    assert "--only-binary=:all:" in stage("packages")
    assert "requirements/container.lock" in stage("packages")
    assert not re.search(r"apt-get|apk |gcc|curl|wget|ADD http", text)


def test_the_image_runs_as_nobody_in_particular_and_checks_itself() -> None:
    runtime = stage("runtime")
    assert re.search(r"^USER \d{5}:\d{5}$", runtime, re.MULTILINE)
    assert re.search(r'^ENTRYPOINT \["python", "-m", "infrastructure.docker.entrypoint"\]$', runtime, re.MULTILINE)
    assert re.search(r'^\s+CMD \["python", "-m", "infrastructure.docker.healthcheck"\]$', runtime, re.MULTILINE)
    assert "PYTHONDONTWRITEBYTECODE=1" in runtime
    assert "pip" not in runtime
    assert "ENVIRONMENT=" not in runtime


def test_only_what_the_image_needs_reaches_its_build() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"

    def reaches(path: str) -> bool:
        """The last pattern that matches the path, or a folder above it, decides."""
        candidates = [path, *map(str, Path(path).parents)]
        ignored = False
        for line in lines:
            pattern = line.removeprefix("!").removeprefix("**/")
            names = candidates if not line.startswith("**/") else [Path(each).name for each in candidates]
            if any(fnmatch.fnmatch(each, pattern) for each in names if each != "."):
                ignored = not line.startswith("!")
        return not ignored

    for wanted in ("shared/names.py", "api_gateway/engine/lua/place_bids.lua", "infrastructure/docker/entrypoint.py"):
        assert reaches(wanted), wanted
    for unwanted in (".env", ".git/config", ".bidding/run.json", "tests/stack.py", "infrastructure/terraform/a.tf"):
        assert not reaches(unwanted), unwanted


# ------------------------------------------------------------------------------------------------------ for real


def is_ready(port: int) -> bool:
    """Whether a service says so, through the port that is published on this machine."""
    try:
        return healthcheck.ask(port, "/ready")[0] == 200
    except (OSError, ValueError):
        return False


@pytest.mark.skipif("BIDDING_TEST_COMPOSE" not in os.environ, reason="BIDDING_TEST_COMPOSE=1 builds and runs the stack")
@pytest.mark.timeout(900)
def test_the_stack_comes_up_and_a_load_run_is_proved() -> None:
    tool = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    command = [*tool, "-p", "bidding-test", "-f", str(COMPOSE)]

    def run(*arguments: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1"}
        return subprocess.run(arguments, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=timeout_s)

    try:
        up = run(*command, "up", "-d", "--build")
        assert up.returncode == 0, up.stderr[-2_000:]
        # docker-compose 1.29 cannot wait by itself.
        try:
            asyncio.run(eventually(lambda: all(is_ready(PROGRAMS[name].port) for name in OWN), seconds=180))
        except TimeoutError:
            pytest.fail(run(*command, "ps").stdout)
        load = run(sys.executable, "-m", "load_tests", "--compose", "--users", "20", "--duration", "5s")
        assert load.returncode == 0, load.stdout + load.stderr
        assert "PROVED" in load.stdout
    finally:
        run(*command, "down", "-v", timeout_s=120)
