"""run.json, the lock of a data directory, and the recognition of processes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infrastructure.local.errors import AlreadyRunning, StackError
from infrastructure.local.state import DataDirLock, ProcessRecord, RunRecord, end_leftovers, own_record, run_path


def make_sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield child
    child.kill()
    child.wait()


sleeper = pytest.fixture(make_sleeper, name="sleeper")
stranger = pytest.fixture(make_sleeper, name="stranger")


def record_of(pid: int) -> ProcessRecord:
    return ProcessRecord(pid=pid, create_time=psutil.Process(pid).create_time())


def run_record(**processes: ProcessRecord) -> RunRecord:
    return RunRecord(
        phase="ready",
        supervisor=own_record(),
        urls={"redis_url": "redis://127.0.0.1:1/0"},
        ports={"redis": 1},
        processes=processes,
    )


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = run_path(tmp_path)
    written = run_record(redis=ProcessRecord(pid=1, create_time=2.5, address="a", ready_at=3.5, restarts=4))
    written.write(path)
    assert RunRecord.read(path) == written
    assert path.stat().st_mode & 0o077 == 0, "it may hold a password"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format": 0}', '{"format": 1}', '{"format": 1, "supervisor": 7}']
)
def test_what_is_no_record_of_ours_is_none(tmp_path: Path, text: str) -> None:
    run_path(tmp_path).write_text(text)
    assert RunRecord.read(run_path(tmp_path)) is None


def test_a_process_is_found_by_pid_and_creation_time(sleeper: subprocess.Popen[bytes]) -> None:
    record = record_of(sleeper.pid)
    assert record.find() is not None
    reused = dataclasses.replace(record, create_time=record.create_time - 60)
    assert reused.find() is None, "the pid now belongs to another process"
    sleeper.kill()
    sleeper.wait()
    assert record.find() is None


def test_one_that_has_ended_but_was_not_waited_for_is_gone(sleeper: subprocess.Popen[bytes]) -> None:
    record = record_of(sleeper.pid)
    found = record.find()
    assert found is not None
    sleeper.kill()
    found.wait(10)
    assert record.find() is None


async def test_leftovers_are_ended_and_strangers_are_not(
    sleeper: subprocess.Popen[bytes], stranger: subprocess.Popen[bytes]
) -> None:
    reused = dataclasses.replace(record_of(stranger.pid), create_time=1.0)
    ended = await end_leftovers(run_record(api_gateway=record_of(sleeper.pid), redis=reused))
    assert ended == ["api_gateway"]
    assert sleeper.poll() is not None
    assert stranger.poll() is None


def test_a_data_directory_has_one_holder(tmp_path: Path) -> None:
    first, second = DataDirLock(tmp_path), DataDirLock(tmp_path)
    first.acquire()
    run_record().write(run_path(tmp_path))
    with pytest.raises(AlreadyRunning) as caught:
        second.acquire()
    assert caught.value.pid == own_record().pid
    assert not second.is_held
    first.release()
    second.acquire()
    second.release()


def test_a_data_directory_that_cannot_be_made_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="Cannot write to the data directory"):
        DataDirLock(tmp_path / "file" / "below").acquire()


def test_a_data_directory_is_for_its_owner(tmp_path: Path) -> None:
    lock = DataDirLock(tmp_path / "new")
    lock.acquire()
    lock.release()
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
