"""A Redis whose wall clock jumps: a few lines of C that are compiled here and preloaded into the server alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infrastructure.local.stack import Stack
from tests.faults.rig.harness import FaultRun

_SOURCE = Path(__file__).with_name("shifted_clock.c")
_COMPILER = shutil.which("cc")

needs_compiler = pytest.mark.skipif(
    _COMPILER is None or not sys.platform.startswith("linux"), reason="needs Linux and a C compiler named cc"
)


class RedisClock:
    """The clock of a stack's Redis, from the next start of Redis on. ``folder`` is made for it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._file = folder / "shift"
        self._library = folder / "shifted_clock.so"
        self.jump_to(0)
        assert _COMPILER is not None
        command = [_COMPILER, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a server that is to have this clock."""
        return {"LD_PRELOAD": str(self._library), "CLOCK_SHIFT_FILE": str(self._file)}

    async def start_under(self, stack: Stack) -> None:
        """Start Redis once more, with this clock."""
        stack.server_env["redis"] = self.environment
        await stack.restart("redis")

    def jump_to(self, shift_s: int) -> None:
        """Set the clock so many seconds ahead of the true time, or behind it where negative."""
        # In one step: the server may read at any moment.
        whole = self._file.with_suffix(".new")
        whole.write_text(f"{shift_s}\n")
        os.replace(whole, self._file)

    async def shift_s(self, run: FaultRun) -> float:
        """By how much Redis itself says that it is off."""
        async with run.redis() as redis:
            seconds, _ = await redis.time()
        return float(seconds) - time.time()
