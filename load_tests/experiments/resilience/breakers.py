"""Ways to make a part fail and come back: by process here, by container in compose, by desired count on ECS."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from infrastructure.local.stack import Stack
from infrastructure.local.state import ProcessRecord, RunRecord, run_path
from load_tests.experiments.common.containers import Project
from load_tests.experiments.common.guard import Refused
from load_tests.experiments.common.platform import Platform
from load_tests.experiments.environment.aws import boto_client

VICTIMS: Final = {
    "broadcast": "broadcast_service",
    "archival": "archival_worker",
    "nats": "nats",
    "postgres": "postgres",
    "redis": "redis",
    "gateway": "api_gateway",
    "cache": "cache_node-1",
}
"""What `--kill` names, and the process behind it."""

ECS_SERVICES: Final = {
    "broadcast": "broadcaster",
    "archival": "archiver",
    "nats": "nats-0",
    "gateway": "gateway",
    "cache": "cache-node",
}
"""The same on ECS, as infrastructure/terraform names its services; Redis and PostgreSQL are no services there."""

_BACK_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.1
_ECS_LOOK_EVERY_S: Final = 2.0


class Breaker(Protocol):
    """Breaks one part."""

    how: str
    """What it does to the part, in words for the result."""

    async def kill(self) -> None:
        """Make it fail, without a warning to it. Raises Refused where that is not possible."""

    async def bring_back(self) -> None:
        """Return once it is up again. Raises Refused or StackError where it does not come up."""

    async def give_back(self) -> None:
        """The run ends while it is broken: leave it as it was found, without waiting for it."""


def ecs_service_of(victim: str) -> str:
    """The service of ECS behind what `--kill` names.

    Raises:
        Refused: it is none.
    """
    if victim not in ECS_SERVICES:
        raise Refused(f"{victim} is no service of ECS; those are: {', '.join(ECS_SERVICES)}")
    return ECS_SERVICES[victim]


def breaker_for(platform: Platform, victim: str, *, cluster: str = "") -> Breaker:
    """The one that fits the platform.

    Raises:
        Refused: nothing there can be made to fail from here.
    """
    process = VICTIMS[victim]
    if cluster:
        if platform.backend != "aws":
            raise Refused("--ecs-cluster breaks a service on AWS: --aws and --target name the platform there")
        return EcsBreaker(cluster, ecs_service_of(victim))
    if platform.backend == "compose":
        return ComposeBreaker(process)
    if process not in platform.roots():
        known = ", ".join(sorted(platform.roots())) or "no process of that platform is known here"
        raise Refused(f"there is no {process} to be killed: {known}")
    if platform.stack is not None:
        return ProcessBreaker(platform.stack, process)
    assert platform.data_dir is not None
    return SupervisedBreaker(platform, process)


class ProcessBreaker:
    """A process of a stack that this run has started: SIGKILL, and nothing restarts it before :meth:`bring_back`."""

    def __init__(self, stack: Stack, process: str) -> None:
        self._stack, self._process = stack, process
        self.how = f"SIGKILL to {process}, started again after the failure phase"

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self._stack.kill(self._process, signal.SIGKILL)
        await self._stack.wait_ended(self._process)

    async def bring_back(self) -> None:
        """Start it."""
        await self._stack.start_process(self._process)

    async def give_back(self) -> None:
        """Nothing to do: the stack ends with the run."""


class SupervisedBreaker:
    """A process of `bidding up`: SIGKILL, and its supervisor restarts it at once."""

    def __init__(self, platform: Platform, process: str) -> None:
        assert platform.data_dir is not None
        self._record = run_path(platform.data_dir)
        self._process = process
        self._killed_pid = 0
        self.how = f"SIGKILL to {process}, started again at once by its supervisor"

    async def kill(self) -> None:
        """SIGKILL."""
        entry = self._entry()
        found = entry.find() if entry else None
        if found is None:
            raise Refused(f"{self._process} does not run")
        self._killed_pid = found.pid
        found.kill()

    async def bring_back(self) -> None:
        """Wait until the supervisor says that another one is ready."""

        def is_back() -> bool:
            entry = self._entry()
            return entry is not None and entry.pid != self._killed_pid and entry.ready_at is not None

        await _until(is_back, f"{self._process} was not restarted; does its supervisor run?")

    async def give_back(self) -> None:
        """Nothing to do: its supervisor restarts it."""

    def _entry(self) -> ProcessRecord | None:
        record = RunRecord.read(self._record)
        return None if record is None else record.processes.get(self._process)


class ComposeBreaker:
    """A container: `docker compose kill`, then `start`."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._project = Project()
        self.how = f"docker compose kill {service}, then start"

    async def kill(self) -> None:
        """SIGKILL to its process."""
        await self._project.run("kill", self._service)

    async def bring_back(self) -> None:
        """Start it."""
        await self._project.run("start", self._service)

    async def give_back(self) -> None:
        """Start it."""
        await self.bring_back()


class EcsBreaker:
    """A service of ECS: no task of it, then as many as before."""

    def __init__(self, cluster: str, service: str, client: Any = None) -> None:
        self._cluster, self._service = cluster, service
        self._client = client
        self._count = 1
        self.how = f"desired count of {service} in {cluster} 0, then as before"

    async def kill(self) -> None:
        """Ask for no task, and wait until none runs."""
        count = (await self._state())["desiredCount"]
        if not count:
            raise Refused(f"{self._service} in {self._cluster} should run no task as it is")
        self._count = count
        await self._want(0)

    async def bring_back(self) -> None:
        """Ask for as many as before, and wait until they run."""
        await self._want(self._count)

    async def give_back(self) -> None:
        """Ask for as many as before."""
        await self._order(self._count)

    async def _order(self, count: int) -> None:
        client = self._ecs()
        await asyncio.to_thread(client.update_service, cluster=self._cluster, service=self._service, desiredCount=count)

    async def _want(self, count: int) -> None:
        await self._order(count)
        deadline_s = time.monotonic() + _BACK_S * 5
        while (await self._state())["runningCount"] != count:
            if time.monotonic() > deadline_s:
                raise Refused(f"{self._service} did not come to {count} tasks")
            await asyncio.sleep(_ECS_LOOK_EVERY_S)

    async def _state(self) -> Mapping[str, Any]:
        client = self._ecs()
        answer = await asyncio.to_thread(client.describe_services, cluster=self._cluster, services=[self._service])
        if not answer["services"]:
            raise Refused(f"there is no service {self._service} in the cluster {self._cluster}")
        state: Mapping[str, Any] = answer["services"][0]
        return state

    def _ecs(self) -> Any:
        if self._client is None:
            self._client = boto_client()("ecs")
        return self._client


async def _until(condition: Callable[[], bool], problem: str) -> None:
    deadline_s = time.monotonic() + _BACK_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise Refused(problem)
        await asyncio.sleep(_LOOK_EVERY_S)
