"""Alarms that take a deployment back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from infrastructure.deploy.ecs import Client
from infrastructure.deploy.errors import Unverified
from shared.aws.clients import translated

ROLLBACK_ALARMS: Final = (
    "gateway-5xx",
    "gateway-p99",
    "gateway-unhealthy",
    "shards-lost",
    "items-lost",
    "feed-unhealthy",
    "dead-letters",
)
"""The same as in infrastructure/terraform/envs/deployment.tf, where ECS looks at them too; a test compares them."""


class Alarms:
    """The alarms of one environment. One that rang before the deployment does not count."""

    def __init__(self, client: Client, prefix: str) -> None:
        with translated("CloudWatch"):
            self._cloudwatch = client("cloudwatch")
        self._prefix = prefix
        self.before: Collection[str] = ()

    def ringing(self) -> list[str]:
        """Those that ring now, without the environment's prefix.

        Raises:
            AwsError: CloudWatch cannot be asked.
        """
        names = [f"{self._prefix}-{name}" for name in ROLLBACK_ALARMS]
        with translated("CloudWatch, alarms"):
            answer = self._cloudwatch.describe_alarms(AlarmNames=names, AlarmTypes=["MetricAlarm"])
        return sorted(
            each["AlarmName"].removeprefix(f"{self._prefix}-")
            for each in answer["MetricAlarms"]
            if each["StateValue"] == "ALARM"
        )

    def require_silence(self) -> None:
        """Raises Unverified where one rings that did not before the deployment."""
        new = [name for name in self.ringing() if name not in self.before]
        if new:
            raise Unverified(f"the alarm {' and '.join(new)} began to ring: docs/operations.md, Alarms")
