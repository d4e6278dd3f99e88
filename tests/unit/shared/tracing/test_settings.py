"""When bids are traced, and how a service ends that cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shared.settings import EXIT_MISCONFIGURED, settings_or_exit
from shared.tracing.settings import TracingSettings

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
HERE = "http://127.0.0.1:4318"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in TracingSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)


def test_it_is_off_until_an_endpoint_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not TracingSettings().is_on
    monkeypatch.setenv(ENDPOINT, "")
    assert not TracingSettings().is_on
    monkeypatch.setenv(ENDPOINT, HERE)
    assert TracingSettings().is_on
    monkeypatch.delenv(ENDPOINT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{HERE}/v1/traces")
    assert TracingSettings().is_on


def test_a_file_of_settings_does_not_count_since_the_sdk_reads_none(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{ENDPOINT}={HERE}\n")
    assert not TracingSettings().is_on


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "TRUE"), ("OTEL_TRACES_EXPORTER", "none")])
def test_it_is_off_where_the_sdk_would_be(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(ENDPOINT, HERE)
    monkeypatch.setenv(name, value)
    assert not TracingSettings().is_on


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        settings_or_exit(TracingSettings)
    assert ended.value.code == EXIT_MISCONFIGURED == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("package", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
def test_without_the_extra_a_service_ends_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert not TracingSettings().is_on
    monkeypatch.setenv(ENDPOINT, HERE)
    said = refusal(capsys)
    assert said.startswith(f"error: {ENDPOINT} is set")
    assert "pip install 'bidding-platform[tracing]'" in said
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    settings_or_exit(TracingSettings)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (ENDPOINT, "collector:4318", f"{ENDPOINT} must be an address"),
        (ENDPOINT, "http://[", f"{ENDPOINT} must be an address"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://x", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT must be an address"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "OTEL_TRACES_EXPORTER must be otlp or none"),
    ],
)
def test_what_cannot_work_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(ENDPOINT, HERE)
    monkeypatch.setenv(name, value)
    assert f"error: {said}" in refusal(capsys)
