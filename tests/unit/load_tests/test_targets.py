"""Which platform is tested: never a mixture of two."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrastructure.local.state import ProcessRecord, RunRecord, own_record, run_path
from load_tests.targets import TargetError, Targets, choose_targets, running_targets, running_urls

ALL = {"gateway_url": "http://g", "redis_url": "redis://r", "nats_url": "nats://n", "postgres_url": "postgresql://p"}
RUNNING = Targets(**ALL)


def write_run(data_dir: Path, supervisor: ProcessRecord, phase: str = "ready") -> None:
    record = RunRecord(phase=phase, supervisor=supervisor, urls=ALL, ports={}, processes={})  # type: ignore[arg-type]
    record.write(run_path(data_dir))


def test_all_four_named() -> None:
    named = {name: value + "-named" for name, value in ALL.items()}
    assert choose_targets(named, None) == Targets(**named)
    assert choose_targets(named, RUNNING) == Targets(**named)


def test_none_named() -> None:
    nothing = dict.fromkeys(ALL)
    assert choose_targets(nothing, None) is None
    assert choose_targets(nothing, RUNNING) == RUNNING


def test_some_named_that_agree_with_the_platform_that_is_up() -> None:
    assert choose_targets({"redis_url": "redis://r", "nats_url": None}, RUNNING) == RUNNING


@pytest.mark.parametrize("running", [None, RUNNING])
def test_some_named_that_belong_elsewhere_name_what_is_missing(running: Targets | None) -> None:
    with pytest.raises(TargetError, match=r"NATS_URL, POSTGRES_URL must be set too, since GATEWAY_URL is"):
        choose_targets({"gateway_url": "http://other", "redis_url": "redis://r"}, running)


def test_a_platform_that_is_up_is_found(tmp_path: Path) -> None:
    assert running_targets(tmp_path) is None
    write_run(tmp_path, own_record())
    assert running_targets(tmp_path) == RUNNING


def test_a_platform_that_died_or_is_only_starting_is_not_used(tmp_path: Path) -> None:
    write_run(tmp_path, ProcessRecord(pid=own_record().pid, create_time=1.0))
    assert running_urls(tmp_path) is None
    write_run(tmp_path, own_record(), phase="starting")
    assert running_targets(tmp_path) is None
