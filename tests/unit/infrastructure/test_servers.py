"""Configuration of the private servers, and the choice of their executables."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from infrastructure.local.errors import BinaryMissing, StackError
from infrastructure.local.servers import binaries
from infrastructure.local.servers.ports import Ports
from infrastructure.local.servers.postgres import remove_stale_pid_file
from infrastructure.local.servers.probes import get_request
from infrastructure.local.servers.redis_and_nats import nats_spec, redis_spec
from infrastructure.local.services import reachable_host, service_environment
from infrastructure.local.stack import Stack
from infrastructure.local.supervisor import PAUSE_FIRST_S, PAUSE_MAX_S, next_pause_s
from shared.clients.nats import StreamLimits


def fake_server(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


def test_redis_keeps_every_bid_by_default(tmp_path: Path) -> None:
    spec = redis_spec(tmp_path / "with space", Ports().redis, os.environ)
    lines = Path(spec.argv[1]).read_text().splitlines()
    for needed in (
        "bind 127.0.0.1",
        "appendonly yes",
        "appendfsync always",
        "maxmemory-policy noeviction",
        'save ""',
        f'dir "{tmp_path}/with space/redis"',
    ):
        assert needed in lines


def test_the_fsync_mode_can_be_chosen_and_is_checked(tmp_path: Path) -> None:
    spec = redis_spec(tmp_path, Ports().redis, os.environ, "everysec")
    assert "appendfsync everysec" in Path(spec.argv[1]).read_text()
    with pytest.raises(StackError, match="always, everysec, no"):
        redis_spec(tmp_path, Ports().redis, os.environ, "sometimes")  # type: ignore[arg-type]


def test_nats_listens_here_alone_and_stores_in_the_data_directory(tmp_path: Path) -> None:
    config = Path(nats_spec(tmp_path, Ports(nats=5, nats_monitor=6), os.environ).argv[2]).read_text()
    assert 'host: "127.0.0.1"' in config
    assert "port: 5" in config
    assert 'http: "127.0.0.1:6"' in config
    assert f'store_dir: "{tmp_path}/nats"' in config
    allowed = re.search(r"max_file_store: (\d+)GB", config)
    assert allowed is not None, "otherwise it depends on the free disk whether the stream can be made"
    assert int(allowed[1]) * 2**30 > StreamLimits().bytes_max


def test_the_passwords_of_nats_are_for_its_owner_alone_whatever_was_left_there(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    for name in ("nats.conf", "nats.tmp"):
        (tmp_path / "config" / name).write_text("of an earlier run, which was killed")
        (tmp_path / "config" / name).chmod(0o644)
    config = Path(nats_spec(tmp_path, Ports(), os.environ, users="# secret").argv[2])
    assert "# secret" in config.read_text()
    assert stat.S_IMODE(config.stat().st_mode) == 0o600


@pytest.mark.parametrize(("chosen", "line"), [("", '"10s"'), ("always", "always"), ("500ms", '"500ms"')])
def test_how_often_nats_forces_to_disk(tmp_path: Path, chosen: str, line: str) -> None:
    environment = {**os.environ, "NATS_SYNC_INTERVAL": chosen}
    config = Path(nats_spec(tmp_path, Ports(), environment).argv[2]).read_text()
    assert f"sync_interval: {line}\n" in config


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="NATS_SYNC_INTERVAL must be always, or a time such as 10s, not '10'"):
        nats_spec(tmp_path, Ports(), {**os.environ, "NATS_SYNC_INTERVAL": "10"})


def test_the_packaged_valkey_is_run_by_default(tmp_path: Path) -> None:
    fake_server(tmp_path, "redis-server", "Redis server v=8.0.0")
    for choice in ("auto", "", "packaged"):
        found = binaries.find_redis({"PATH": str(tmp_path), "BIDDING_REDIS_SERVER": choice})
        assert found.name == "valkey-server"
        assert int(binaries.version_of(found).partition(".")[0]) >= 9


def test_one_on_path_is_run_where_it_is_asked_for(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path), "BIDDING_REDIS_SERVER": "path"}
    redis = fake_server(tmp_path, "redis-server", "Redis server v=7.2.4 sha=0")
    assert binaries.find_redis(environment) == redis
    valkey = fake_server(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=0")
    assert binaries.find_redis(environment) == valkey


@pytest.mark.parametrize(("version", "is_run"), [("Redis server v=7.0.15", True), ("Redis server v=6.2.14", False)])
def test_without_a_package_one_on_path_is_run_unless_it_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_run: bool
) -> None:
    monkeypatch.setattr(binaries, "_packaged_redis", lambda: None)
    on_path = fake_server(tmp_path, "redis-server", version)
    environment = {"PATH": str(tmp_path)}
    if is_run:
        assert binaries.find_redis(environment) == on_path
    else:
        with pytest.raises(BinaryMissing, match="version 7"):
            binaries.find_redis(environment)


def test_a_named_redis_is_run(tmp_path: Path) -> None:
    named = fake_server(tmp_path / "own", "my-redis", "Redis server v=7.0.0")
    assert binaries.find_redis({"PATH": "", "BIDDING_REDIS_SERVER": str(named)}) == named


@pytest.mark.parametrize("choice", ["/nowhere/redis-server", "path"])
def test_a_redis_that_is_not_there_says_what_to_do(tmp_path: Path, choice: str) -> None:
    with pytest.raises(BinaryMissing, match=r"(?s)BIDDING_REDIS_SERVER.*REDIS_URL"):
        binaries.find_redis({"PATH": str(tmp_path), "BIDDING_REDIS_SERVER": choice})


def test_a_postgres_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BinaryMissing, match=r"(?s)BIDDING_POSTGRES_BIN.*POSTGRES_URL"):
        binaries.find_postgres({"BIDDING_POSTGRES_BIN": str(tmp_path)})


def test_a_nats_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BinaryMissing, match=r"(?s)BIDDING_NATS_SERVER.*NATS_URL"):
        binaries.find_nats({"BIDDING_NATS_SERVER": str(tmp_path / "none")})


def test_versions_are_read_from_what_programs_say(tmp_path: Path) -> None:
    assert binaries.version_of(fake_server(tmp_path, "a", "postgres (PostgreSQL) 18.4")) == "18.4"
    assert binaries.version_of(fake_server(tmp_path, "b", "nats-server: v2.15.1")) == "2.15.1"
    assert binaries.version_of(fake_server(tmp_path, "c", "hello")) == "unknown"
    assert binaries.version_of(tmp_path / "none") == "unknown"


def test_a_pid_file_whose_number_went_to_another_program_is_removed(tmp_path: Path) -> None:
    pid_file = tmp_path / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{tmp_path}\n")
    remove_stale_pid_file(tmp_path)
    assert not pid_file.exists()
    remove_stale_pid_file(tmp_path)  # nothing to do


@pytest.mark.parametrize(
    ("setting", "reached"), [("", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.5", "10.0.0.5")]
)
def test_a_service_is_reached_where_it_listens(setting: str, reached: str) -> None:
    assert reachable_host("gateway", {"GATEWAY_HOST": setting}) == reached


def test_an_address_of_version_6_stands_in_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_HOST", "::")
    assert Stack(Path("unused"), ports=Ports(gateway=6)).urls.gateway_url == "http://[::1]:6"
    # A gateway refuses a Host that is none, so it would never be found ready.
    assert b"\r\nHost: [::1]:6\r\n" in get_request("::1", 6, "/ready")


def test_a_service_gets_the_addresses_of_its_stack_whatever_it_inherits() -> None:
    urls = Stack(Path("unused"), ports=Ports(redis=5, gateway=6)).urls
    inherited = {"REDIS_URL": "redis://elsewhere", "GATEWAY_PORT": "1", "BROADCAST_HOST": "0.0.0.0", "HOME": "/h"}
    env = service_environment(urls, Ports(redis=5, gateway=6), inherited, {"BID_ACK": "redis"})
    assert env["REDIS_URL"] == "redis://127.0.0.1:5/0"
    assert (env["GATEWAY_PORT"], env["GATEWAY_HOST"], env["BROADCAST_HOST"]) == ("6", "127.0.0.1", "0.0.0.0")
    assert (env["BID_ACK"], env["HOME"], env["OPEN_CATALOGUE"]) == ("redis", "/h", "true")


def test_restarts_come_slower_and_slower_and_quickly_again_after_calm() -> None:
    pauses = [0.0]
    for _ in range(8):
        pauses.append(next_pause_s(pauses[-1], lived_s=1))
    assert pauses[1:5] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == PAUSE_MAX_S
    assert next_pause_s(PAUSE_MAX_S, lived_s=61) == PAUSE_FIRST_S
