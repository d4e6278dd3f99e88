"""CPU quotas: so many cores for a group of processes, by a control group of Linux, or by stopping and continuing
them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Final

import psutil

_V1: Final = Path("/sys/fs/cgroup/cpu")
_V2: Final = Path("/sys/fs/cgroup")
_PERIOD_US: Final = 100_000
_LOOK_S: Final = 0.02
_EMPTY_WITHIN_S: Final = 5.0


class QuotaEnded(Exception):
    """The processes of a group had all cores from some moment on."""

    def __init__(self, group: str, error: Exception) -> None:
        super().__init__(
            f"the CPU quota of {group} ended early, so the figures are wrong and the run must be repeated: "
            f"{type(error).__name__}: {error}"
        )


@contextlib.asynccontextmanager
async def quotas(groups: Mapping[str, Iterable[int]], cores: float) -> AsyncIterator[str]:
    """While the block runs, each group of processes (with their descendants) gets at most so many cores.

    Yields how: ``cgroup`` or ``stop and continue``. The first is what Fargate does; the second is coarser.

    Raises:
        QuotaEnded: at the end of the block: a quota has ended before it, so what was measured is not what it was to be.
    """
    made = [] if cores <= 0 else _make_groups(groups, cores)
    if made:
        try:
            yield "cgroup"
        finally:
            await _remove(made)
        return
    tasks = [asyncio.create_task(_duty_cycle(list(pids), cores)) for pids in groups.values()] if cores > 0 else []
    try:
        yield "stop and continue" if tasks else "none"
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for name, end in zip(groups, ends, strict=False):
        if isinstance(end, Exception):
            raise QuotaEnded(name, end) from end


def _make_groups(groups: Mapping[str, Iterable[int]], cores: float) -> list[Path]:
    """One control group per group; none at all where the system does not let us."""
    made: list[Path] = []
    try:
        for name, pids in groups.items():
            made.append(_make_group(f"bidding-{os.getpid()}-{name.replace(' ', '-')}", cores))
            for pid in _family(pids):
                with contextlib.suppress(ProcessLookupError):
                    (made[-1] / "cgroup.procs").write_text(str(pid))
    except OSError:
        _remove_now(made)
        return []
    return made


def _make_group(name: str, cores: float) -> Path:
    """Raises OSError where control groups of CPU time cannot be made."""
    quota_us = max(1_000, round(cores * _PERIOD_US))
    if (_V1 / "cpu.shares").exists() or (_V1 / "cpu.cfs_period_us").exists() or (_V1 / "cgroup.procs").exists():
        folder = _V1 / name
        folder.mkdir()
        (folder / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        return folder
    folder = _V2 / name
    folder.mkdir()
    try:
        (folder / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
    except OSError:
        folder.rmdir()
        raise
    return folder


def _parent_of(folder: Path) -> Path:
    return folder.parent / "cgroup.procs"


def _remove_now(made: list[Path]) -> None:
    for folder in made:
        with contextlib.suppress(OSError):
            for pid in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    _parent_of(folder).write_text(pid)
            folder.rmdir()


def _still_there(made: list[Path]) -> list[Path]:
    return [folder for folder in made if folder.is_dir()]


async def _remove(made: list[Path]) -> None:
    """A group can be removed only once no process is in it; those that still run go back to the group above."""
    deadline_s = time.monotonic() + _EMPTY_WITHIN_S
    while made and time.monotonic() < deadline_s:
        _remove_now(made)
        made = _still_there(made)
        await asyncio.sleep(_LOOK_S)


async def _duty_cycle(pids: list[int], cores: float) -> None:
    """Stop the processes whenever they have used more than their part of the time since this began, with a tenth of a
    second of credit."""
    began_s = time.monotonic()
    first = _cpu_s(pids)
    is_stopped = False
    try:
        while True:
            used = _cpu_s(pids) - first
            passed = time.monotonic() - began_s
            allowed = cores * passed
            if allowed - used > cores * 0.1:
                # What was not used is not saved up.
                first -= allowed - used - cores * 0.1
            should_stop = used > allowed
            if should_stop != is_stopped:
                _each(pids, "suspend" if should_stop else "resume")
                is_stopped = should_stop
            await asyncio.sleep(_LOOK_S)
    finally:
        if is_stopped:
            _each(pids, "resume")


def _each(pids: list[int], what: str) -> None:
    for pid in _family(pids):
        with contextlib.suppress(psutil.Error):
            getattr(psutil.Process(pid), what)()


def _family(pids: Iterable[int]) -> list[int]:
    found: list[int] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            found += [pid, *(child.pid for child in root.children(recursive=True))]
    return found


def _cpu_s(pids: list[int]) -> float:
    total = 0.0
    for pid in _family(pids):
        with contextlib.suppress(psutil.Error):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total
