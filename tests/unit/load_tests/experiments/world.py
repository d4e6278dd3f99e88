"""Results as files have them, made by hand."""

from __future__ import annotations

from typing import Any

from load_tests.experiments.common.results import (
    EnvironmentTest,
    FanoutStep,
    Kind,
    LadderStep,
    Limit,
    Machine,
    Phase,
    ProofSummary,
    Result,
    Use,
)
from load_tests.generator.ledger import Latency


def result(kind: Kind, **fields: Any) -> Result:
    given: dict[str, Any] = {
        "backend": "embedded",
        "place": "private embedded stack",
        "started_at": "2030-01-01T00:00:00+00:00",
        "machine": Machine("Linux", "a processor", 2, 24.0),
        "versions": {"python": "3.11"},
        "commit": "0123456789abcdef",
        "settings": {},
        "complete": True,
    }
    return Result(kind=kind, **(given | fields))


def step(users: int, rate: float = 1_000.0, **fields: Any) -> LadderStep:
    given: dict[str, Any] = {
        "items": 1,
        "strategy": "lua",
        "loop": "closed",
        "seconds": 10.0,
        "accepted_per_s": rate / 10,
        "requests_per_s": rate * 1.1,
        "latency": Latency(1, 2, 3, 4),
        "bids": 100,
        "accepted": 10,
        "unknown": 0,
        "failures": 0,
        "proof": ProofSummary(ok=True, accepted=10, checks=17, highest="Redis 1.00"),
        "limit": Limit("api_gateway", "its busiest process used 95% of a core"),
        "components": {"api_gateway": Use(0.9, 0.9, 100)},
    }
    return LadderStep(users=users, bids_per_s=rate, **(given | fields))


def fan(viewers: int, delivered: int) -> FanoutStep:
    times = Latency(1, 2, 3, 4)
    return FanoutStep(
        viewers, 0, 5, 10, 1, 50, 50 * viewers, delivered, viewers, 0, times, times, Limit("rate", "kept")
    )


def phases(ok: bool = True) -> list[Phase]:
    times = Latency(1, 2, 3, 4)
    checks = {"bids get verdicts": True, "viewers are shown bids": False}
    return [
        Phase("baseline", "broadcast", 10, 100, 10, times, 0, 30),
        Phase("failure", "broadcast", 10, 100, 10, times, 0, 0, checks=checks),
        Phase("recovery", "broadcast", 10, 100, 10, times, 0, 30, recovered_s=12.5, proof=ProofSummary(ok=ok)),
    ]


def environment(median: float, **fields: Any) -> Result:
    tests = [
        EnvironmentTest("deployment time", "s", [median, median + 1, median - 1]),
        EnvironmentTest("cost", "USD/h", note="nothing is billed"),
    ]
    return result("environment", tests=tests, **fields)
