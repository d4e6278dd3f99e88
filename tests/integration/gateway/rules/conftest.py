"""The scripts on a real Redis, which the tests here share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from tests.integration.gateway.rules.rule_engine import Engine


@pytest.fixture(scope="module")
def engine(redis_url: str) -> Iterator[Engine]:
    with Redis.from_url(redis_url, protocol=2) as redis:
        yield Engine(redis)
