"""The rule that names what limited a step."""

from __future__ import annotations

import pytest

from load_tests.experiments.common.bottleneck import limit_of
from load_tests.experiments.common.results import Use
from load_tests.experiments.common.sampling import Measured

IDLE = Use(0.1, 0.1, 50)
FULL = Use(0.95, 0.95, 50)


def found(
    gateway: Use = IDLE, generator: Use | None = IDLE, *, busy: float = 0.3, postgres: Use = IDLE, others: float = 0.0
) -> Measured:
    return Measured({"api_gateway": gateway, "postgres": postgres}, generator, 0.5, busy, others)


@pytest.mark.parametrize(
    ("measured", "what"),
    [
        (found(gateway=FULL), "api_gateway"),
        (found(generator=FULL), "generator"),
        (found(gateway=FULL, generator=FULL), "api_gateway"),
        (found(busy=0.95), "machine"),
        (found(), "waiting"),
        # PostgreSQL has many processes: one of them at a core is not the end of what it can do.
        (found(postgres=FULL), "waiting"),
        (Measured({}, None, 0.0, 0.0, 0.0), "unknown"),
    ],
)
def test_the_first_that_holds_is_the_answer(measured: Measured, what: str) -> None:
    assert limit_of(measured).what == what


def test_a_limit_that_the_load_shares_is_a_lower_bound() -> None:
    assert "lower bound" in limit_of(found(gateway=FULL, generator=FULL)).why
    assert "lower bound" in limit_of(found(generator=FULL)).why
    assert "lower bound" in limit_of(found(busy=0.95)).why
    assert "lower bound" not in limit_of(found(gateway=FULL)).why


def test_an_open_run_that_keeps_its_rate_has_no_limit() -> None:
    assert limit_of(found(gateway=FULL), offered_per_s=100, reached_per_s=96).what == "rate"
    assert limit_of(found(gateway=FULL), offered_per_s=100, reached_per_s=90).what == "api_gateway"


def test_a_quota_is_a_smaller_core_for_every_component() -> None:
    half = Use(0.45, 0.45, 50)
    assert limit_of(found(gateway=half)).what == "waiting"
    assert limit_of(found(gateway=half), quota=0.5).what == "api_gateway"
    assert limit_of(found(postgres=half), quota=0.5).what == "postgres"


def test_other_programs_are_told_of() -> None:
    assert "other programs used 0.7 cores" in limit_of(found(gateway=FULL, others=0.7)).why
    assert "other programs" not in limit_of(found(gateway=FULL)).why
