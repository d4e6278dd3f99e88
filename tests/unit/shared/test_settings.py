"""Settings of all services: secrets stay out of sight, and a `.env` is read where there is one."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from infrastructure.local.servers.ports import Ports
from infrastructure.local.services import service_environment, service_spec
from infrastructure.local.stack import Stack
from shared.aliases import AliasSettings
from shared.aws.settings import AwsSettings
from shared.clients.nats import StreamLimits
from shared.read_cache.settings import ReadCacheSettings
from tests.preforked import launch_service, run_forked_apart
from tests.waiting import eventually

SERVICES = ("api_gateway", "broadcast_service", "archival_worker")
SECRET = "0123456789abcdef0123456789abcdef"
OF_AWS = ("AWS_ENDPOINT_URL", "METRICS_CLOUDWATCH_NAMESPACE", "CLOUD_MAP_SERVICE_ID", "CLOUD_MAP_ADDRESS", "EXPORT_DIR")
IDENTITY = ("AUTH_MODE", "AUTH_HS256_SECRET")
URLS = {
    "REDIS_URL": f"rediss://:{SECRET}@redis.example:6380/0",
    "NATS_URL": f"tls://bidding:{SECRET}@one.example:4222,two.example:4222",
    "POSTGRES_URL": f"postgresql://bidding:{SECRET}@postgres.example/bidding",
}


def settings_of(service: str) -> BaseSettings:
    made: BaseSettings = importlib.import_module(f"{service}.settings").Settings()
    return made


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*URLS, "FEED_TOKEN_SECRET", "ALIAS_SECRET", *IDENTITY, "NATS_STREAM_REPLICAS", "LOG_LEVEL", *OF_AWS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_is_shown(service: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name, value in {**URLS, "FEED_TOKEN_SECRET": SECRET}.items():
        monkeypatch.setenv(name, value)
    settings = settings_of(service)
    logging.getLogger(__name__).warning("%s and %r", settings, settings)
    shown = f"{settings} {settings!r} {caplog.text}"
    assert SECRET not in shown
    # The rest of an address is there: it is what one looks for in a log.
    assert "redis.example:6380" in shown
    assert "two.example" in shown
    # The code that needs the value still has it.
    assert getattr(settings, "redis_url") == URLS["REDIS_URL"]  # noqa: B009 - a field of each service's class


@pytest.mark.parametrize("service", ["api_gateway", "broadcast_service"])
def test_the_key_of_the_tokens_is_a_secret_by_its_type(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEED_TOKEN_SECRET", SECRET)
    secret = settings_of(service).feed_token_secret  # type: ignore[attr-defined]
    assert isinstance(secret, SecretStr)
    assert secret.get_secret_value() == SECRET
    monkeypatch.delenv("FEED_TOKEN_SECRET")
    assert not settings_of(service).feed_token_secret  # type: ignore[attr-defined]


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_wrong_is_named_and_not_shown(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = {"api_gateway": "GATEWAY_PORT", "broadcast_service": "BROADCAST_PORT", "archival_worker": "ARCHIVER_PORT"}
    monkeypatch.setenv(port[service], SECRET)
    with pytest.raises(ValidationError, match=port[service].lower()) as raised:
        settings_of(service)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("service", SERVICES)
def test_a_file_is_read_and_the_environment_wins(
    service: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / ".env").write_text("# of this machine\nREDIS_URL=redis://file:1/0\nlog_level='DEBUG'\nFOREIGN=1\n")
    settings = settings_of(service)
    assert settings.redis_url == "redis://file:1/0"  # type: ignore[attr-defined]
    assert settings.log_level == "DEBUG"  # type: ignore[attr-defined]
    monkeypatch.setenv("REDIS_URL", "redis://environment:2/0")
    assert settings_of(service).redis_url == "redis://environment:2/0"  # type: ignore[attr-defined]


def test_what_is_no_field_of_a_service_is_read_from_the_file_too(own_folder: Path) -> None:
    """A key that is overlooked there would be the published one, and nobody would notice."""
    (own_folder / ".env").write_text(
        f"ALIAS_SECRET={SECRET}\nNATS_STREAM_REPLICAS=3\nMETRICS_CLOUDWATCH_NAMESPACE=Bidding/test\n"
    )
    assert AliasSettings().alias_secret.get_secret_value() == SECRET
    assert SECRET not in repr(AliasSettings())
    assert StreamLimits().replicas == 3
    assert AwsSettings().metrics_cloudwatch_namespace == "Bidding/test"


def test_aliases_hide_only_behind_a_secret_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_MODE", "jwt")
    with pytest.raises(ValidationError, match="ALIAS_SECRET must be set with AUTH_MODE=jwt"):
        AliasSettings()
    monkeypatch.setenv("ALIAS_SECRET", SECRET)
    assert AliasSettings().auth_mode == "jwt"
    for other in ("FEED_TOKEN_SECRET", "AUTH_HS256_SECRET"):
        monkeypatch.setenv(other, SECRET)
        with pytest.raises(ValidationError, match=f"ALIAS_SECRET and {other} must differ") as raised:
            AliasSettings()
        assert SECRET not in str(raised.value)
        monkeypatch.delenv(other)


def test_the_number_of_replicas_is_one_that_can_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert StreamLimits().replicas == 1
    monkeypatch.setenv("NATS_STREAM_REPLICAS", "2")
    with pytest.raises(ValueError, match="nats_stream_replicas"):
        StreamLimits()


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "url", [f"redis://h:6379/0?password={SECRET}", f"redis://:pa#{SECRET}@h:6379/0", f":{SECRET}@h:6379"]
)
def test_no_secret_is_shown_wherever_it_is_in_an_address(
    service: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    settings = settings_of(service)
    assert SECRET not in f"{settings} {settings!r}"
    assert settings.redis_url == url  # type: ignore[attr-defined]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("place", ["environment", "file"])
def test_an_empty_value_is_the_default(
    service: str, place: str, own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = type(settings_of(service)).model_fields
    if place == "file":
        (own_folder / ".env").write_text("".join(f"{name.upper()}=\n" for name in fields))
    else:
        for name in fields:
            monkeypatch.setenv(name.upper(), "")
    settings = settings_of(service)
    assert {name: getattr(settings, name) for name in fields} == {name: fields[name].default for name in fields}


def test_what_the_environment_leaves_empty_is_not_looked_up_in_the_file(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folder / ".env").write_text("METRICS_CLOUDWATCH_NAMESPACE=Bidding/test\nCLOUD_MAP_ADDRESS=one.example\n")
    monkeypatch.setenv("METRICS_CLOUDWATCH_NAMESPACE", "")
    settings = AwsSettings()
    assert settings.metrics_cloudwatch_namespace == ""
    assert settings.cloud_map_address == "one.example"


def test_the_file_of_the_compose_stack_does_not_steer_the_embedded_one(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in the folder in which `bidding up` runs."""
    (own_folder / ".env").write_text(
        "EXPORT_S3_BUCKET=bidding-exports\nIMAGES_S3_BUCKET=bidding-images\nAWS_ENDPOINT_URL=http://aws:4566\nMETRICS_CLOUDWATCH_NAMESPACE=Bidding/x\n"
        "CLOUD_MAP_SERVICE_ID=srv-1\nCLOUD_MAP_ADDRESS=h\nGATEWAY_PORT=7001\nREDIS_URL=redis://redis:6379\n"
        "BROADCAST_PUBLIC_URL=wss://live.example.com\nNATS_STREAM_REPLICAS=3\n"
        "READ_CACHE=cluster\nREAD_CACHE_MEMBERSHIP=cloud_map\nREAD_CACHE_CLOUD_MAP=bidding/cache\n"
        "READ_CACHE_NODES=a=10.0.0.1:8001\nREAD_CACHE_TLS_CERT_FILE=c\nREAD_CACHE_TLS_KEY_FILE=k\n"
        "READ_CACHE_TLS_CA_FILE=ca\nREAD_CACHE_LOADS_MAX=5\n"
    )
    stack = Stack(own_folder, ports=Ports(gateway=6))
    for name, value in service_environment(stack.urls, stack.ports, {"EXPORT_DIR": "/exports"}, {}).items():
        monkeypatch.setenv(name, value)
    archiver: Any = settings_of("archival_worker")
    assert (archiver.export_s3_bucket, archiver.aws_endpoint_url, archiver.export_dir) == ("", "", "/exports")
    aws = AwsSettings()
    assert (aws.metrics_cloudwatch_namespace, aws.cloud_map_service_id, aws.aws_endpoint_url) == ("", "", "")
    gateway: Any = settings_of("api_gateway")
    assert (gateway.gateway_port, gateway.images_s3_bucket) == (6, "")
    assert StreamLimits().replicas == 1
    cache = ReadCacheSettings()
    assert (cache.read_cache, cache.read_cache_membership, cache.read_cache_nodes) == ("local", "jetstream", "")
    assert (cache.cloud_map, cache.tls_files) == (("", ""), ("", "", ""))
    assert cache.read_cache_loads_max == 5, "what does not say where nodes are is taken"


def test_the_embedded_stack_uses_aws_where_its_own_environment_says_so() -> None:
    stack = Stack(Path("unused"), ports=Ports())
    inherited = {"EXPORT_S3_BUCKET": "mine"}
    assert service_environment(stack.urls, stack.ports, inherited, {})["EXPORT_S3_BUCKET"] == "mine"


# ------------------------------------------------------------------------------------------- programs and their ends

WRONG = {
    "api_gateway": {
        "BID_ACK": "one of redis, replica, log",
        "GATEWAY_PORT": "a whole number from 0 to 65535",
        "OPEN_CATALOGUE": "true or false",
        "BODY_TIMEOUT_S": "a number above 0",
        "BID_QUEUE_MAX": "a whole number, at least 1",
        "FEED_TOKEN_SECRET": "at least 32 bytes",
        "LOG_LEVEL": "one of DEBUG, INFO",
        "NATS_STREAM_REPLICAS": "a whole number",
    },
    "broadcast_service": {
        "FEED_TIME_S": "a number above 0",
        "FEED_ORIGINS": "https://auction.example.com",
        "FEED_TRUSTED_PROXIES": "10.0.0.0/8",
        "METRICS_CLOUDWATCH_INTERVAL_S": "a number from 1 to 3600",
        "LOG_LEVEL": "one of DEBUG, INFO",
    },
    "cache_node": {
        "CACHE_ROLE": "one of node, front_end",
        "CACHE_NODE_HOST": "an IP address of loopback or of a private network",
        "CACHE_NODE_PORT": "a whole number from 1 to 65535",
        "CACHE_POSTGRES_TIMEOUT_S": "a number above 0, at most 5",
        "READ_CACHE_BYTES_MAX": "a whole number, at least 1048576",
        "READ_CACHE_MEMBERSHIP": "one of static, cloud_map, jetstream",
        "LOG_LEVEL": "one of DEBUG, INFO",
    },
    "archival_worker": {
        "ARCHIVER_PORT": "a whole number from 0 to 65535",
        "ARCHIVER_CHAIN": "true or false",
        "LOG_LEVEL": "one of DEBUG, INFO",
    },
}


async def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it in the folder in which this process is."""
    inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")}
    return await run_forked_apart(*arguments, env={**inherited, **environment})


@pytest.mark.parametrize("service", WRONG)
async def test_a_service_says_in_a_line_each_what_is_wrong(service: str, own_folder: Path) -> None:
    done = await run(service, **dict.fromkeys(WRONG[service], "Wr0ng"))
    assert (done.returncode, done.stdout) == (2, "")
    lines = dict(line.removeprefix("error: ").split(" ", 1) for line in done.stderr.splitlines())
    assert lines.keys() == WRONG[service].keys()
    for name, allowed in WRONG[service].items():
        assert allowed in lines[name]
    assert "Wr0ng" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["migrate", "recover", "dead-letters", "audit"])
async def test_so_do_the_commands(command: str, own_folder: Path) -> None:
    rest = {"audit": ["lot"], "dead-letters": ["list"]}.get(command, [])
    done = await run("archival_worker", command, *rest, ARCHIVER_PORT="many")
    assert done.returncode == 2
    assert done.stderr == "error: ARCHIVER_PORT must be a whole number from 0 to 65535\n"


async def test_settings_that_do_not_fit_together_are_named(own_folder: Path) -> None:
    done = await run("api_gateway", BID_ACK="replica", BID_ACK_TIMEOUT_MS="9000")
    assert done.returncode == 2
    assert done.stderr == "error: BID_ACK_TIMEOUT_MS must be below REDIS_TIMEOUT_MS with BID_ACK=replica\n"


async def test_a_number_that_is_none_of_those_allowed(own_folder: Path) -> None:
    done = await run("archival_worker", "migrate", NATS_STREAM_REPLICAS="2")
    assert done.returncode == 2
    assert done.stderr == "error: NATS_STREAM_REPLICAS must be 1, 3 or 5\n"


async def test_a_file_that_is_no_text_is_named(own_folder: Path) -> None:
    (own_folder / ".env").write_bytes(b"REDIS_URL=\xff\xfe\n")
    done = await run("broadcast_service")
    assert done.returncode == 2
    assert done.stderr.startswith("error: .env ")
    assert done.stderr.count("\n") == 1


async def test_a_service_of_a_test_stack_ends_in_the_same_way(own_folder: Path) -> None:
    """It is forked, not started as a program."""
    environment = {**os.environ, "BID_ACK": "perhaps"}
    spec = dataclasses.replace(
        service_spec("api_gateway", "api_gateway", "127.0.0.1", 1, own_folder, environment), cwd=own_folder
    )
    with (own_folder / "output").open("wb") as output:
        child = launch_service(spec, output.fileno())

        async def has_ended() -> bool:
            return child.poll() is not None

        await eventually(has_ended, seconds=30)
    assert child.poll() == 2
    assert (own_folder / "output").read_text() == "error: BID_ACK must be one of redis, replica, log\n"
