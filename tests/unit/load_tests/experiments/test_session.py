"""A run that is cut off leaves what it has, marked."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from load_tests.experiments.common.guard import Refused
from load_tests.experiments.common.results import read_result
from load_tests.experiments.common.session import EXIT_INTERRUPTED, EXIT_NO_RUN, EXIT_NOT_PROVED, Session, conduct
from tests.unit.load_tests.experiments.world import step


def session_at(path: Path) -> Session:
    return Session("contention", path, {"users": [1]})


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """As in a terminal: what a shell runs in the background ignores SIGINT, these tests too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_interrupts")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_partial_result(tmp_path: Path, number: signal.Signals) -> None:
    async def work(session: Session) -> bool:
        session.begin("embedded", "here")
        session.result.ladder.append(step(5))
        os.kill(os.getpid(), number)
        await asyncio.sleep(30)
        return True

    with pytest.raises(SystemExit) as ended:
        conduct(session_at(tmp_path / "result.json"), work)
    assert ended.value.code == EXIT_INTERRUPTED
    found = read_result(tmp_path / "result.json")
    assert (found.complete, found.cut_off, len(found.ladder)) == (False, "stopped by a signal", 1)


def test_a_run_that_is_refused_beforehand_leaves_no_file(tmp_path: Path) -> None:
    async def work(session: Session) -> bool:
        raise Refused("not today")

    with pytest.raises(SystemExit) as ended:
        conduct(session_at(tmp_path / "result.json"), work)
    assert ended.value.code == EXIT_NO_RUN
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("proved", "code"), [(True, 0), (False, EXIT_NOT_PROVED)])
def test_the_exit_code_says_whether_it_was_proved(tmp_path: Path, proved: bool, code: int) -> None:
    async def work(session: Session) -> bool:
        session.begin("embedded", "here")
        return proved

    with pytest.raises(SystemExit) as ended:
        conduct(session_at(tmp_path / "result.json"), work)
    assert ended.value.code == code
    assert read_result(tmp_path / "result.json").complete
