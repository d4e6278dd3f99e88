"""The record of what runs: a data directory's lock, `run.json`, and the leftovers of a killed run."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil

from infrastructure.local.errors import AlreadyRunning, StackError
from infrastructure.local.processes import end_by_force, family_of

Phase = Literal["starting", "ready", "stopping"]

_FORMAT = 1
# psutil computes creation times from the boot time, which moves a little when the clock is set.
_CREATE_TIME_TOLERANCE_S = 2.0
_LEFTOVER_DEADLINE_S = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process: pid and creation time together identify it even if the system gives the pid to another."""

    pid: int
    create_time: float
    address: str = ""
    ready_at: float | None = None
    restarts: int = 0

    def find(self) -> psutil.Process | None:
        """The running process of this record, if there still is one."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < _CREATE_TIME_TOLERANCE_S
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


@dataclasses.dataclass(frozen=True, slots=True)
class RunRecord:
    """The contents of run.json."""

    phase: Phase
    supervisor: ProcessRecord
    urls: Mapping[str, str]
    ports: Mapping[str, int]
    processes: Mapping[str, ProcessRecord]

    def write(self, path: Path) -> None:
        """Replace the file in one step: a reader never sees half of it."""
        scratch = path.with_suffix(".tmp")
        # Readable by its owner alone: the URL of a server that the user named may hold a password.
        scratch.unlink(missing_ok=True)
        scratch.touch(mode=0o600, exist_ok=False)
        scratch.write_text(json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n")
        scratch.replace(path)

    @classmethod
    def read(cls, path: Path) -> RunRecord | None:
        """Read the file. None if there is none, or it cannot be read (an older format, a damaged file)."""
        try:
            data: dict[str, Any] = json.loads(path.read_text())
            if data.pop("format") != _FORMAT:
                return None
            data["supervisor"] = ProcessRecord(**data["supervisor"])
            data["processes"] = {name: ProcessRecord(**record) for name, record in data["processes"].items()}
            return cls(**data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def run_path(data_dir: Path) -> Path:
    return data_dir / "run.json"


def make_data_dir(data_dir: Path) -> None:
    """Make the folder, for its owner alone, as it will hold hidden maxima and reserves. OSError if that fails."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)


def own_record() -> ProcessRecord:
    """The record of this process."""
    return ProcessRecord(pid=os.getpid(), create_time=psutil.Process().create_time())


class DataDirLock:
    """Allows one supervisor per data directory. The system releases the lock however its holder ends."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._file: int | None = None

    def acquire(self) -> None:
        """Raises AlreadyRunning while another holds it, StackError when the folder cannot be written."""
        try:
            make_data_dir(self._data_dir)
            file = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StackError(f"Cannot write to the data directory {self._data_dir}: {error.strerror}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            record = RunRecord.read(run_path(self._data_dir))
            raise AlreadyRunning(self._data_dir, record.supervisor.pid if record else None) from error
        self._file = file

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def living(record: RunRecord) -> dict[str, psutil.Process]:
    """The recorded children that are still alive."""
    return {name: found for name, entry in record.processes.items() if (found := entry.find()) is not None}


async def end_leftovers(record: RunRecord) -> list[str]:
    """End the children of a supervisor that was killed, services before servers; the sorted names of those ended.

    They are ended rather than adopted: a process that is not our child cannot be waited for or supervised, and a start
    with existing data takes seconds. Servers are asked to end (Redis and NATS by SIGTERM, PostgreSQL by SIGINT), then
    killed.
    """
    found = living(record)
    servers = [name for name in found if name.partition("-")[0] in ("redis", "nats", "postgres")]
    for batch in ([name for name in found if name not in servers], servers):
        await _end(batch, found)
    return sorted(found)


async def _end(names: list[str], found: Mapping[str, psutil.Process]) -> None:
    processes = [found[name] for name in names]
    families = [child for process in processes for child in family_of(process.pid)]
    for name, process in zip(names, processes, strict=True):
        with contextlib.suppress(psutil.Error):
            process.resume()
            process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
    await end_by_force([*processes, *families], patience_s=_LEFTOVER_DEADLINE_S)
