"""One child process: readiness, and an end that always comes. The children here are small Python programs."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from infrastructure.local.errors import ProcessFailed
from infrastructure.local.processes import (
    LOG_BYTES_MAX,
    ManagedProcess,
    ProcessSpec,
    family_of,
    keep_short,
    log_tail,
)
from infrastructure.local.servers.probes import Readiness

READY_THEN_SLEEP = "import pathlib, time; pathlib.Path('ready').touch(); time.sleep(600)"
DEAF = (
    "import pathlib, signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "pathlib.Path('ready').touch()\n"
    "time.sleep(600)\n"
)


class Children:
    """Makes processes in a folder of their own and ends them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: list[ManagedProcess] = []

    def make(self, program: str, **changes: object) -> ManagedProcess:
        async def is_ready() -> Readiness:
            return Readiness((self._folder / "ready").exists(), "no file yet")

        spec = ProcessSpec(
            name="child",
            argv=(sys.executable, "-c", program),
            env=dict(os.environ),
            log=self._folder / "logs" / "child.log",
            ready=is_ready,
            address="nowhere",
            cwd=self._folder,
        )
        process = ManagedProcess(dataclasses.replace(spec, **changes))  # type: ignore[arg-type]
        self._made.append(process)
        return process

    async def end(self) -> None:
        for process in self._made:
            await process.stop(lambda: True)


@pytest_asyncio.fixture
async def children(tmp_path: Path) -> AsyncIterator[Children]:
    made = Children(tmp_path)
    yield made
    await made.end()


async def test_ready_then_stopped(children: Children) -> None:
    process = children.make(READY_THEN_SLEEP)
    process.spawn()
    await process.wait_ready()
    assert process.pid is not None
    assert process.ready_at is not None
    await process.stop()
    assert process.pid is None
    assert process.exit_text == "was ended by SIGTERM"


async def test_one_that_ends_before_it_is_ready_shows_its_last_words(children: Children) -> None:
    process = children.make("import sys; sys.exit('the disk is full')")
    process.spawn()
    with pytest.raises(ProcessFailed, match=r"child ended with exit code 1(?s:.*)\| the disk is full"):
        await process.wait_ready()


async def test_one_that_never_gets_ready_is_given_up(children: Children) -> None:
    process = children.make("import time; time.sleep(600)", ready_timeout_s=0.2)
    process.spawn()
    with pytest.raises(ProcessFailed, match=r"was not ready after 0\.2 s \(no file yet\)"):
        await process.wait_ready()


async def test_a_program_that_is_not_there_is_an_error_of_ours(children: Children) -> None:
    process = children.make("", argv=("/nowhere/at-all",))
    with pytest.raises(ProcessFailed, match="could not be started"):
        process.spawn()


async def test_a_log_that_cannot_be_written_is_an_error_of_ours(children: Children, tmp_path: Path) -> None:
    (tmp_path / "logs").touch()
    with pytest.raises(ProcessFailed, match="could not be started"):
        children.make(READY_THEN_SLEEP).spawn()


async def test_one_that_ignores_the_signal_is_ended_by_force_with_its_children(children: Children) -> None:
    process = children.make(DEAF, stop_timeout_s=0.2)
    process.spawn()
    await process.wait_ready()
    assert process.pid is not None
    family = [psutil.Process(process.pid), *family_of(process.pid)]
    assert len(family) == 2
    await process.stop()
    assert process.exit_text == "was ended by SIGKILL"
    assert [one for one in family if one.is_running() and one.status() != psutil.STATUS_ZOMBIE] == []


async def test_a_hurry_does_not_wait_for_the_deadline(children: Children) -> None:
    process = children.make(DEAF, stop_timeout_s=60)
    process.spawn()
    await process.wait_ready()
    started = time.monotonic()
    await process.stop(lambda: True)
    assert time.monotonic() - started < 30


async def test_a_suspended_one_hears_the_stop(children: Children) -> None:
    process = children.make(READY_THEN_SLEEP, stop_timeout_s=30)
    process.spawn()
    await process.wait_ready()
    process.send(signal.SIGSTOP)
    await process.stop()
    assert process.exit_text == "was ended by SIGTERM"


async def test_a_ctrl_c_of_the_terminal_does_not_reach_it(children: Children) -> None:
    process = children.make(READY_THEN_SLEEP)
    process.spawn()
    assert process.pid is not None
    assert os.getpgid(process.pid) != os.getpgid(0)


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "some.log"
    log.write_bytes(b"one\ntwo\nthr\xff\xe9e\n")
    assert log_tail(log, 2) == "two\nthr��e"
    assert log_tail(tmp_path / "none.log", 2) == ""


def test_a_log_is_kept_short_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "some.log"
    with log.open("ab") as writer:
        writer.truncate(LOG_BYTES_MAX)
        keep_short(log)
        assert log.stat().st_size == LOG_BYTES_MAX, "it is not too long yet"
        writer.write(b"the last line\n")
        writer.flush()
        keep_short(log)
        assert log.stat().st_size == 0
        writer.write(b"the next line\n")
    assert log.read_bytes() == b"the next line\n"
    assert log_tail(tmp_path / "some.log.1", 1).endswith("the last line")
    keep_short(tmp_path / "none.log")
