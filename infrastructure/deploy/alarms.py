"""Alarms that take a deployment back."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from infrastructure.deploy.ecs import Client, Patience
from infrastructure.deploy.errors import DeployError, Unverified
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
        self._patience = Patience()
        self.before: Collection[str] = ()

    def ringing(self) -> list[str]:
        """The alarms that ring now, without the environment's prefix.

        Raises:
            AwsError: CloudWatch cannot be asked.
        """
        return sorted(name for name, state in self._states().items() if state == "ALARM")

    def without_data(self) -> list[str]:
        """The alarms that have no data to judge by, and so prove nothing.

        Raises:
            AwsError: CloudWatch cannot be asked.
        """
        return sorted(name for name, state in self._states().items() if state == "INSUFFICIENT_DATA")

    def require_all(self) -> None:
        """Raises DeployError if an alarm does not exist: it would look like one that is silent."""
        found = self._states()
        missing = [name for name in ROLLBACK_ALARMS if name not in found]
        if missing:
            raise DeployError(
                f"{self._prefix} has no alarm {', '.join(missing)}, so nothing would take a bad version back: "
                "apply Terraform first"
            )

    def require_silence(self) -> None:
        """Raises Unverified if an alarm rings that did not ring before the deployment; AwsError if CloudWatch has not
        answered for two minutes."""
        ringing: list[str] = []
        with self._patience:
            ringing = self.ringing()
        new = [name for name in ringing if name not in self.before]
        if new:
            raise Unverified(f"the alarm {' and '.join(new)} began to ring: docs/operations.md, Alarms")

    def _states(self) -> dict[str, str]:
        names = [f"{self._prefix}-{name}" for name in ROLLBACK_ALARMS]
        with translated("CloudWatch, alarms"):
            answer = self._cloudwatch.describe_alarms(AlarmNames=names, AlarmTypes=["MetricAlarm"])
        return {
            str(each["AlarmName"]).removeprefix(f"{self._prefix}-"): str(each["StateValue"])
            for each in answer["MetricAlarms"]
        }
