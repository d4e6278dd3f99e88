"""Viewers by the thousand, in a process of their own, told what to do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from typing import Any, Self

import click


class Viewers:
    """A process full of viewers; see :mod:`load_tests.generator.viewers`.

    Raises:
        click.ClickException: it ended.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.connected: dict[str, Any] = {}

    @classmethod
    @contextlib.asynccontextmanager
    async def watching(
        cls,
        port: int,
        path: str,
        count: int,
        *,
        stalled: int = 0,
        host: str = "127.0.0.1",
        addresses: str = "127.0.0",
        per_address: int = 5_000,
    ) -> AsyncIterator[Self]:
        """Viewers that are connected and have their snapshots; they are disconnected afterwards."""
        options = {
            "--host": host,
            "--port": port,
            "--path": path,
            "--count": count,
            "--stalled": stalled,
            "--addresses": addresses,
            "--per-address": per_address,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "load_tests.generator.viewers",
            *(str(part) for pair in options.items() for part in pair),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        viewers = cls(process)
        try:
            viewers.connected = await viewers.answer(120)
            yield viewers
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    async def ask(self, command: str) -> dict[str, Any]:
        """``mark``, ``report`` or ``read``."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        return await self.answer(60)

    async def answer(self, patience_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), patience_s)
        if not line:
            raise click.ClickException("the process of the viewers ended; its error is above")
        answer: dict[str, Any] = json.loads(line)
        return answer
