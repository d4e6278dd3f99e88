"""A process that ends is started again, whatever its start runs into. The children here are small Python programs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from infrastructure.local import supervisor
from infrastructure.local.processes import ManagedProcess, ProcessSpec
from infrastructure.local.servers.probes import Readiness
from infrastructure.local.supervisor import Supervisor
from tests.waiting import eventually


async def at_once() -> Readiness:
    return Readiness(True, "")


class PretendStack:
    """One process, whose start fails with the errors that are left."""

    def __init__(self, folder: Path, *errors: Exception) -> None:
        argv = (sys.executable, "-c", "import time; time.sleep(600)")
        spec = ProcessSpec("child", argv, dict(os.environ), folder / "child.log", at_once, "nowhere")
        self.process = ManagedProcess(spec)
        self.processes = {"child": self.process}
        self.reporter = self
        self.told: list[str] = []
        self._errors = list(errors)

    def notice(self, text: str) -> None:
        self.told.append(text)

    async def start_process(self, name: str) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.process.spawn()
        await self.process.wait_ready()


@pytest_asyncio.fixture
async def stack(tmp_path: Path) -> AsyncIterator[PretendStack]:
    made = PretendStack(tmp_path, OSError("the disk is full"), ValueError("nobody has thought of this"))
    yield made
    await made.process.stop(lambda: True)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(40, marks=pytest.mark.skipif(sys.platform != "linux", reason="real-time signals are of Linux")),
    ],
)
async def test_whatever_a_start_runs_into_it_is_told_and_tried_again(
    stack: PretendStack, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PAUSE_FIRST_S", 0.001)
    stack.process.spawn()
    first = stack.process.pid
    assert first is not None
    async with Supervisor(cast(Any, stack)):
        os.kill(first, number)
        await eventually(lambda: len(stack.told) > 0, "the end is seen", seconds=5)
        await eventually(lambda: stack.process.pid not in (None, first), seconds=60)
    assert stack.process.restarts == 3
    told = "\n".join(stack.told)
    assert "the disk is full" in told
    assert "child could not be started: ValueError: nobody has thought of this" in told
