"""What services on AWS used, as CloudWatch tells it; moto stands for CloudWatch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws

from load_tests.experiments.command import experiment
from load_tests.experiments.common.insights import NAMESPACE, Insights
from load_tests.experiments.common.results import Use
from shared.aws.clients import AwsError

MINUTE = timedelta(minutes=1)


@pytest.fixture
def cloudwatch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        yield boto3.client("cloudwatch", region_name="eu-central-1")


def tells(cloudwatch: Any, service: str, minute: datetime, cpu: list[float], memory: float, cluster: str = "c") -> None:
    """Each of the tasks of a service, in one minute; CPU in units, memory in megabytes."""
    dimensions = [{"Name": "ClusterName", "Value": cluster}, {"Name": "ServiceName", "Value": service}]
    data = [
        {"MetricName": name, "Dimensions": which, "Timestamp": minute, "Value": value}
        for units in cpu
        for name, value in (("CpuUtilized", units), ("MemoryUtilized", memory))
        for which in (dimensions, dimensions[:1])
    ]
    cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data)


def minutes_ago(count: int) -> datetime:
    return datetime.now(UTC).replace(second=0, microsecond=0) - count * MINUTE


def at(moment: datetime) -> float:
    """This moment by the monotonic clock, as steps have it."""
    return time.monotonic() - (datetime.now(UTC) - moment).total_seconds()


async def test_services_have_the_whole_minutes_of_the_step(cloudwatch: Any) -> None:
    now = minutes_ago(0)
    for ago, cpu in ((9, [9_000.0]), (8, [512.0, 256.0]), (7, [1_024.0, 256.0]), (6, [9_000.0])):
        tells(cloudwatch, "gateway", now - ago * MINUTE, cpu, 300)
    for ago in (8, 7):
        tells(cloudwatch, "archiver", now - ago * MINUTE, [102.4], 200)
        tells(cloudwatch, "gateway", now - ago * MINUTE, [9_000.0], 9_000, cluster="another")
    began, ended = now - timedelta(minutes=8, seconds=10), now - timedelta(minutes=5, seconds=40)
    used = await Insights("c", lambda: cloudwatch, wait_s=0).between(at(began), at(ended))
    assert used == {"gateway": Use(1.0, 1.0, 600, 2), "archiver": Use(0.1, 0.1, 200)}


async def test_minutes_that_are_not_there_yet_are_waited_for(cloudwatch: Any) -> None:
    now = minutes_ago(0)
    tells(cloudwatch, "gateway", now - 8 * MINUTE, [512.0], 300)
    began, ended = at(now - timedelta(minutes=8, seconds=1)), at(now - timedelta(minutes=5, seconds=59))
    with pytest.raises(AwsError, match="nothing of the services of c"):
        await Insights("c", lambda: cloudwatch, wait_s=0).between(began, ended)
    tells(cloudwatch, "gateway", now - 7 * MINUTE, [512.0], 300)
    used = await Insights("c", lambda: cloudwatch, wait_s=0).between(began, ended)
    assert used["gateway"].cpu == 0.5


async def test_a_step_without_a_whole_minute_has_none() -> None:
    def never() -> Any:
        raise AssertionError("nothing is asked")

    began = minutes_ago(5) + timedelta(seconds=2)
    assert await Insights("c", never).between(at(began), at(began + timedelta(seconds=56))) == {}


def test_a_cluster_of_nowhere_is_refused() -> None:
    outcome = CliRunner().invoke(experiment, ["contention", "--ecs-cluster", "c", "--users", "1", "--private"])
    assert (outcome.exit_code, "--aws and --target name" in outcome.output) == (2, True), outcome.output
