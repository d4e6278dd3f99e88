"""Small experiments on a real stack, and a report of their files. How high the figures are is not looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from load_tests.experiments.command import experiment
from load_tests.experiments.common.platform import platform_of
from load_tests.experiments.common.results import Kind, read_result
from load_tests.experiments.common.session import Session
from load_tests.experiments.contention.ladder import Ladder, climb
from load_tests.experiments.environment.emulator import EmulatorBackend
from load_tests.experiments.fanout.steps import Fanout, fan_out
from load_tests.experiments.resilience.phases import Plan, endure
from tests.stack import StackFactory

pytestmark = pytest.mark.integration


async def test_a_ladder_a_crowd_a_kill_and_the_report_of_them(start_stack: StackFactory, tmp_path: Path) -> None:
    platform = platform_of(await start_stack())

    def begun(kind: Kind) -> Session:
        session = Session(kind, tmp_path / f"{kind}.json", {})
        session.begin(platform.backend, platform.label)
        return session

    ladder, crowd, kill = begun("contention"), begun("fanout"), begun("resilience")
    assert await climb(ladder, platform, Ladder((5,), 1, processes=2))
    assert await climb(ladder, platform, Ladder((10,), 3, processes=2, generator="plain"))
    assert await fan_out(crowd, platform, Fanout((50,), 2, rate=10, slow=2))
    assert await endure(kill, platform, Plan("broadcast", 1, bidders=5, viewers=1))
    for session in (ladder, crowd, kill):
        session.finish()

    steps = read_result(ladder.out).ladder
    assert [(step.users, step.proof.ok, step.failures, step.processes, step.made_by) for step in steps] == [
        (5, True, 0, 2, "locust"),
        (10, True, 0, 2, "plain"),
    ]
    for step in steps:
        assert step.bids_per_s >= step.accepted_per_s > 0
        assert step.latency.p50_ms > 0
        assert step.generator is not None
        assert {"api_gateway", "redis", "nats", "postgres"} <= step.components.keys()
        assert step.generator.cpu > 0
        assert step.limit.what != "unknown"
        assert step.proof.highest.startswith("Redis ")
    (fan,) = read_result(crowd.out).fanout
    assert (fan.delivered, fan.at_newest, fan.went_back) == (fan.expected, 50, 0)
    assert fan.expected == 50 * fan.bids >= 50 * 15
    assert 0 < fan.decided_to_frame.p50_ms <= fan.sent_to_frame.p99_ms
    assert sum(fan.closed.values()) == 2
    baseline, failure, recovery = read_result(kill.out).phases
    assert baseline.frames > 0
    assert failure.bids > 0, "bids do not need the broadcaster"
    assert not failure.checks["viewers are shown bids"]
    assert recovery.proof is not None
    assert recovery.proof.ok
    assert recovery.recovered_s is not None

    report = tmp_path / "report.html"
    files = [str(session.out) for session in (ladder, crowd, kill)]
    outcome = CliRunner().invoke(experiment, ["compare", *files, "--out", str(report)])
    assert outcome.exit_code == 0, outcome.output
    assert "2 of 2 steps were proved" in report.read_text()
    assert "without broadcast, bids went on" in report.with_suffix(".md").read_text()


async def test_the_yardstick_loses_nothing_and_tries_again(start_stack: StackFactory, tmp_path: Path) -> None:
    """WATCH/MULTI is slow and sound; its small gateway stands beside the platform's Redis."""
    platform = platform_of(await start_stack(services=()))
    session = Session("contention", tmp_path / "optimistic.json", {})
    session.begin(platform.backend, platform.label)
    assert await climb(session, platform, Ladder((20,), 2, processes=1, strategy="optimistic"))
    (step,) = session.result.ladder
    assert step.proof.ok
    assert step.accepted > 0
    assert step.retries > 0
    assert "optimistic gateway" in step.components


async def test_a_repetition_in_the_emulator_counts_nothing_of_the_one_before() -> None:
    pytest.importorskip("moto")
    found = []
    for _ in range(2):
        async with EmulatorBackend().deployed() as there:
            found.append((await there.metrics(), await there.log_streams()))
    assert found == [(1.0, 1.0), (1.0, 1.0)]
