"""What experiments change on AWS: under the names of our own Terraform, and back again however the run ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from load_tests.experiments.common.guard import Refused
from load_tests.experiments.environment.aws import AwsBackend
from load_tests.experiments.environment.command import environment
from load_tests.experiments.resilience.breakers import ECS_SERVICES, EcsBreaker
from load_tests.experiments.resilience.phases import _broken

TERRAFORM = Path(__file__).parents[4] / "infrastructure" / "terraform"


class Ecs:
    """A service of ECS whose tasks come and go between two looks; its answers are one look late."""

    def __init__(self, desired: int = 2) -> None:
        self.orders: list[int] = []
        self.deployments = 0
        self.looks_until_told = 0
        self._told = self._desired = desired

    def update_service(self, *, desiredCount: int | None = None, forceNewDeployment: bool = False, **_: Any) -> Any:
        if desiredCount is not None:
            self.orders.append(desiredCount)
            self._desired = desiredCount
        self.deployments += forceNewDeployment
        self.looks_until_told = 2
        return {"service": {"deployments": [{"id": self._id(self.deployments), "status": "PRIMARY"}]}}

    def describe_services(self, **_: Any) -> Any:
        is_late = self.looks_until_told > 0
        self.looks_until_told -= is_late
        self._told = self._told if is_late else self._desired
        deployment = {"id": self._id(self.deployments - is_late), "rolloutState": "COMPLETED"}
        return {"services": [{"desiredCount": self._told, "runningCount": self._told, "deployments": [deployment]}]}

    @staticmethod
    def _id(number: int) -> str:
        return f"deployment-{number}"


class Pages:
    """Logs, metrics and Cloud Map: two pages of three for those who turn them."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def get_paginator(self, name: str) -> Pages:
        return self

    def paginate(self, **asked: Any) -> list[dict[str, list[int]]]:
        self.asked |= asked
        return [{"logStreams": [1, 2, 3], "Metrics": [1, 2, 3]}] * 2

    def discover_instances(self, **asked: Any) -> dict[str, list[int]]:
        self.asked |= asked
        return {"Instances": [1]}


def backend(ecs: Ecs, pages: Pages) -> AwsBackend:
    client: Callable[[str], Any] = lambda name: ecs if name == "ecs" else pages  # noqa: E731
    return AwsBackend(cluster="bidding-dev", service="gateway", gateway_url="", client=client)


def test_services_have_the_names_that_terraform_gives_them() -> None:
    text = "".join(path.read_text() for path in TERRAFORM.rglob("*.tf"))
    names = set(re.findall(r'^ +name += "([a-z0-9-]+)"$', text, re.MULTILINE))
    assert set(ECS_SERVICES.values()) <= names
    (service,) = (option for option in environment.params if option.name == "service")
    assert service.default in names


async def test_what_is_asked_for_is_what_terraform_makes() -> None:
    pages = Pages()
    async with backend(Ecs(), pages).deployed() as there:
        assert (await there.log_streams(), await there.metrics()) == (6.0, 6.0)
        await there.discovery_ms()
    assert pages.asked == {
        "logGroupName": "/bidding-dev/gateway",
        "Namespace": "Bidding/dev",
        "NamespaceName": "bidding-dev.internal",
        "ServiceName": "nats-0",
    }


async def test_answers_from_before_the_order_do_not_count() -> None:
    ecs = Ecs()
    async with backend(ecs, Pages()).deployed() as there:
        there._looks_every_s = 0.001
        await there.deployment_s()
        assert ecs.looks_until_told == 0
        await there.scaling_s()
    assert ecs.orders == [3, 5, 2]


async def test_a_run_that_is_cut_off_while_it_scales_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("load_tests.experiments.environment.aws._STABLE_S", -1.0)
    ecs = Ecs(4)
    async with backend(ecs, Pages()).deployed() as there:
        with pytest.raises(Refused):
            await there.scaling_s()
    assert ecs.orders == [3, 4]


async def test_a_run_that_is_cut_off_leaves_no_service_without_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("load_tests.experiments.resilience.breakers._ECS_LOOK_EVERY_S", 0.001)
    ecs = Ecs(3)

    async def cut_off() -> None:
        async with _broken(EcsBreaker("bidding-dev", "gateway", ecs)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await cut_off()
    assert ecs.orders == [0, 3]
