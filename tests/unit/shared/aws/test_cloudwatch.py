"""What is reported, and what becomes of it while CloudWatch does not answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from shared.aws.clients import AwsError
from shared.aws.cloudwatch import Distribution, Gauge, Metric, Reporter, Total
from tests.waiting import eventually


class CloudWatch:
    """Takes metrics, or refuses them."""

    def __init__(self) -> None:
        self.taken: list[dict[str, float]] = []
        self.values: list[dict[float, float]] = []
        self.namespaces: set[str] = set()
        self.dimensions: list[Any] = []
        self.refuses = False

    def put_metric_data(self, *, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        if self.refuses:
            raise OSError("no route")
        self.namespaces.add(Namespace)
        self.dimensions += [datum["Dimensions"] for datum in MetricData]
        self.taken.append({datum["MetricName"]: datum["Value"] for datum in MetricData if "Value" in datum})
        self.values += [
            dict(zip(datum["Values"], datum["Counts"], strict=True)) for datum in MetricData if "Values" in datum
        ]


class Source:
    """The metrics of a service, to be set."""

    def __init__(self, *metrics: Metric) -> None:
        self.metrics: Sequence[Metric] = metrics

    async def __call__(self) -> Sequence[Metric]:
        return self.metrics


def reporter(cloudwatch: CloudWatch, source: Source, interval_s: float = 3600) -> Reporter:
    return Reporter(cloudwatch, namespace="Bidding/test", service="api-gateway", read=source, interval_s=interval_s)


async def test_gauges_are_told_as_they_are_and_totals_by_what_they_grew() -> None:
    cloudwatch, source = CloudWatch(), Source(Gauge("Waiting", 7), Total("Bids", 100))
    reports = reporter(cloudwatch, source)
    await reports.once()
    source.metrics = [Gauge("Waiting", 5), Total("Bids", 130)]
    await reports.once()
    assert cloudwatch.taken == [{"Waiting": 7, "Bids": 100}, {"Waiting": 5, "Bids": 30}]
    assert cloudwatch.namespaces == {"Bidding/test"}
    assert {str(each) for each in cloudwatch.dimensions} == {"[{'Name': 'Service', 'Value': 'api-gateway'}]"}


async def test_growth_that_could_not_be_told_goes_into_the_next_report() -> None:
    cloudwatch, source = CloudWatch(), Source(Total("Bids", 10))
    reports = reporter(cloudwatch, source)
    cloudwatch.refuses = True
    with pytest.raises(AwsError, match=r"put metrics: OSError: no route"):
        await reports.once()
    cloudwatch.refuses = False
    source.metrics = [Total("Bids", 25)]
    await reports.once()
    assert cloudwatch.taken == [{"Bids": 25}]


async def test_of_a_distribution_its_growth_is_told_and_nothing_where_it_did_not_grow() -> None:
    cloudwatch, source = CloudWatch(), Source(Distribution("Seconds", {0.01: 5, 0.2: 1, 3.0: 0}))
    reports = reporter(cloudwatch, source)
    cloudwatch.refuses = True
    with pytest.raises(AwsError):
        await reports.once()
    cloudwatch.refuses = False
    await reports.once()
    source.metrics = [Distribution("Seconds", {0.01: 5, 0.2: 4, 3.0: 0})]
    await reports.once()
    await reports.once()
    assert cloudwatch.values == [{0.01: 5, 0.2: 1}, {0.2: 3}]
    assert cloudwatch.taken == [{}, {}], "of what did not grow nothing is said, and no call is made"


async def test_nothing_to_tell_is_no_call() -> None:
    cloudwatch = CloudWatch()
    await reporter(cloudwatch, Source()).once()
    assert cloudwatch.taken == []


async def test_the_last_report_comes_when_the_service_ends() -> None:
    cloudwatch, source = CloudWatch(), Source(Total("Bids", 3))
    task = asyncio.create_task(reporter(cloudwatch, source).run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cloudwatch.taken == [{"Bids": 3}]


async def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    cloudwatch, source = CloudWatch(), Source(Total("Bids", 3))
    cloudwatch.refuses = True
    with caplog.at_level(logging.WARNING, "shared.aws.cloudwatch"):
        task = asyncio.create_task(reporter(cloudwatch, source, interval_s=0.001).run())

        async def warned() -> bool:
            return bool(caplog.messages)

        async def reported() -> bool:
            return len(cloudwatch.taken) >= 2

        await eventually(warned)
        cloudwatch.refuses = False
        await eventually(reported)
        task.cancel()
        await asyncio.wait([task])
    assert [message.split(":")[0] for message in caplog.messages] == ["no metrics", "metrics reach CloudWatch again"]
