"""The eight properties, and what a backend has to be able to do. What it cannot do it says; nothing is simulated."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol


class CannotDo(Exception):
    """The backend has nothing of the kind; the message says what there is instead."""


@dataclass(frozen=True, slots=True)
class Property:
    """One of the eight. ``method`` is the name of the deployment's method that measures it."""

    name: str
    unit: str
    method: str


PROPERTIES: Final = (
    Property("deployment time", "s", "deployment_s"),
    Property("scaling from 3 to 5", "s", "scaling_s"),
    Property("tasks that run", "tasks", "tasks"),
    Property("service discovery", "ms", "discovery_ms"),
    Property("cost", "USD/h", "cost_per_hour"),
    Property("network latency", "ms", "network_ms"),
    Property("log streams", "streams", "log_streams"),
    Property("metrics", "series", "metrics"),
)


class Deployment(Protocol):
    """A platform that was just deployed. Each method measures once, and raises CannotDo where that is not possible."""

    async def deployment_s(self) -> float:
        """From the order to all parts being ready, in seconds."""

    async def scaling_s(self) -> float:
        """From 3 to 5 instances of a service, in seconds; until the last answers, where there is something to ask."""

    async def tasks(self) -> float:
        """Parts that run."""

    async def discovery_ms(self) -> float:
        """From the name of a service to its addresses, in milliseconds."""

    async def cost_per_hour(self) -> float:
        """What is billed, in US dollars."""

    async def network_ms(self) -> float:
        """One request to the gateway and back on a connection that is open, the median of many, in milliseconds."""

    async def log_streams(self) -> float:
        """Logs that hold at least one line."""

    async def metrics(self) -> float:
        """Time series that can be read."""


class EnvironmentBackend(Protocol):
    """Where platforms can be deployed."""

    label: str
    notes: tuple[str, ...]

    def deployed(self) -> AbstractAsyncContextManager[Deployment]:
        """A deployment of its own, gone afterwards."""
