"""Settings of all services: secrets stay out of sight, and a `.env` is read where there is one."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

from shared.aliases import AliasSettings
from shared.aws.settings import AwsSettings
from shared.clients.nats import StreamLimits

SERVICES = ("api_gateway", "broadcast_service", "archival_worker")
SECRET = "0123456789abcdef0123456789abcdef"
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
    for name in (*URLS, "FEED_TOKEN_SECRET", "ALIAS_SECRET", "NATS_STREAM_REPLICAS", "LOG_LEVEL"):
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
    # Who needs it has it.
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


def test_the_number_of_replicas_is_one_that_can_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert StreamLimits().replicas == 1
    monkeypatch.setenv("NATS_STREAM_REPLICAS", "2")
    with pytest.raises(ValueError, match="nats_stream_replicas"):
        StreamLimits()
