"""The names that deployments set."""

from __future__ import annotations

import pytest

from archival_worker.settings import Settings


def test_names_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://r:1/0")
    monkeypatch.setenv("NATS_URL", "nats://n:2")
    monkeypatch.setenv("POSTGRES_URL", "postgresql://p:3/db")
    monkeypatch.setenv("ARCHIVER_PORT", "9182")
    monkeypatch.setenv("ARCHIVER_BATCH_ROWS", "100")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    settings = Settings()
    assert settings.redis_url == "redis://r:1/0"
    assert settings.nats_url == "nats://n:2"
    assert settings.postgres_url == "postgresql://p:3/db"
    assert settings.archiver_port == 9182
    assert settings.archiver_batch_rows == 100
    assert settings.log_level == "DEBUG"
