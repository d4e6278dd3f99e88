"""The compose stack by the command of the container engine: what runs, what it uses, and what it logs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Final

import psutil

from infrastructure.docker.addresses import COMPOSE_FILE
from load_tests.experiments.common.guard import Refused

_PATIENCE_S: Final = 300.0
_MISSING: Final = 127
_PROGRAMS: Final = (("docker", "compose"), ("docker-compose",))


class Project:
    """A compose project. An empty name means the file's own: the stack that people start by hand."""

    def __init__(self, name: str = "", variables: Mapping[str, str] | None = None) -> None:
        self._options = ["-f", str(COMPOSE_FILE), *(["-p", name] if name else [])]
        self._environment = os.environ | dict(variables or {})

    async def run(self, *arguments: str, patience_s: float = _PATIENCE_S) -> str:
        """``docker compose`` with these arguments, or ``docker-compose`` where that is what there is; its output.

        Raises:
            Refused: neither works.
        """
        problem = ""
        for program in _PROGRAMS:
            code, output, errors = await self._call(program, *self._options, *arguments, patience_s=patience_s)
            if code == 0:
                return output
            # The error of a program that is there tells more than that the other one is missing.
            problem = errors if code != _MISSING or not problem else problem
        raise Refused(f"`docker compose {' '.join(arguments)}` does not work here: {problem[-400:]}")

    async def containers(self, *services: str) -> list[str]:
        """The ids of the containers that run, of these services or of all."""
        found = (await self.run("ps", "-q", *services)).split()
        running = await self._docker("ps", "-q", "--no-trunc")
        return [each for each in found if each in running.split()]

    async def pids(self) -> dict[str, list[int]]:
        """The process ids of the containers that run, by service; none where the engine has a machine of its own, as on
        macOS, whose processes this one does not see."""
        found: dict[str, list[int]] = {}
        for container in await self.containers():
            shape = '{{.State.Pid}} {{index .Config.Labels "com.docker.compose.service"}}'
            pid, service = (await self._docker("inspect", "--format", shape, container)).split()
            if psutil.pid_exists(int(pid)):
                found.setdefault(service, []).append(int(pid))
        return found

    async def log_of(self, container: str) -> str:
        """The last lines of the container's log."""
        return await self._docker("logs", "--tail", "5", container)

    async def _docker(self, *arguments: str) -> str:
        code, output, errors = await self._call(("docker",), *arguments, patience_s=_PATIENCE_S)
        if code != 0:
            raise Refused(f"`docker {' '.join(arguments)}` does not work here: {errors[-400:]}")
        return output + errors if arguments[0] == "logs" else output

    async def _call(self, program: tuple[str, ...], *arguments: str, patience_s: float) -> tuple[int, str, str]:
        try:
            process = await asyncio.create_subprocess_exec(
                *program,
                *arguments,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            return _MISSING, "", str(error)
        try:
            async with asyncio.timeout(patience_s):
                output, errors = await process.communicate()
        except TimeoutError:
            return 124, "", f"no end after {patience_s:.0f} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace").strip()
