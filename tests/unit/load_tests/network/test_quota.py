"""A quota holds, by a control group where there are any, and by stopping and continuing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import psutil
import pytest

from load_tests.network import quota
from load_tests.network.quota import QuotaEnded, quotas

BUSY = (sys.executable, "-c", "while True: pass")
CORES = 0.2


@pytest.mark.parametrize("by_group", [True, False])
async def test_a_process_gets_no_more_than_its_part(by_group: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not by_group:
        monkeypatch.setattr(quota, "_V1", Path("/nonexistent"))
        monkeypatch.setattr(quota, "_V2", Path("/nonexistent"))
    process = await asyncio.create_subprocess_exec(*BUSY)
    try:
        found = psutil.Process(process.pid)
        async with quotas({"busy": [process.pid]}, CORES) as how:
            if by_group and how != "cgroup":
                pytest.skip("this system lets us make no control groups")
            assert how == ("cgroup" if by_group else "stop and continue")
            before = found.cpu_times().user
            await asyncio.sleep(1.5)
            used = (found.cpu_times().user - before) / 1.5
        assert 0.02 < used < 2 * CORES
        assert found.status() != psutil.STATUS_STOPPED
    finally:
        process.kill()
        await process.wait()


async def test_without_a_quota_nothing_is_done() -> None:
    async with quotas({"busy": [1]}, 0) as how:
        assert how == "none"


async def test_a_quota_that_ends_early_is_told_and_leaves_nobody_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say because there are no more open files for a look into /proc."""
    monkeypatch.setattr(quota, "_V1", Path("/nonexistent"))
    monkeypatch.setattr(quota, "_V2", Path("/nonexistent"))
    process = await asyncio.create_subprocess_exec(*BUSY)
    found = psutil.Process(process.pid)
    cpu_s, has_failed = quota._cpu_s, asyncio.Event()

    def until_it_is_stopped(pids: list[int]) -> float:
        if found.status() == psutil.STATUS_STOPPED:
            has_failed.set()
            raise OSError("too many open files")
        return cpu_s(pids)

    monkeypatch.setattr(quota, "_cpu_s", until_it_is_stopped)
    try:
        with pytest.raises(QuotaEnded, match=r"quota of busy ended early.*too many open files"):
            async with quotas({"busy": [process.pid]}, 0.01):
                await asyncio.wait_for(has_failed.wait(), 60)
        assert found.status() != psutil.STATUS_STOPPED
    finally:
        process.kill()
        await process.wait()
