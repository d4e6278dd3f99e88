"""Metrics to CloudWatch and back: what autoscaling and alarms in an account of AWS look at.

Prometheus' text at ``/metrics`` tells far more and stays the place to look. Here are the few figures on which
something is decided. They carry one dimension, ``Service``: CloudWatch adds up, averages and takes the maximum over the
tasks of a service by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from shared.aws.clients import AwsError, translated

logger = logging.getLogger(__name__)

PERIOD_S: Final = 60
"""The finest resolution of standard metrics."""

_LAST_REPORT_S: Final = 4.0

Statistic = Literal["Sum", "Maximum", "Average"]


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value as it is now."""

    name: str
    value: float
    unit: str = "Count"


@dataclass(frozen=True, slots=True)
class Total:
    """A count since the process started. Its growth is reported, so that sums over tasks and time are right."""

    name: str
    value: float
    unit: str = "Count"


@dataclass(frozen=True, slots=True)
class Distribution:
    """How often each value was seen since the process started, so that CloudWatch can tell percentiles over tasks and
    time. The growth is reported.

    Attributes:
        counts: by value; at most 150 values, which is what one call takes. No value may be negative.
    """

    name: str
    counts: Mapping[float, int]
    unit: str = "Seconds"


Metric = Gauge | Total | Distribution
Read = Callable[[], Awaitable[Sequence[Metric]]]


class Reporter:
    """Reports one service's metrics. At least once: after a time-out a total's growth may be counted twice."""

    def __init__(self, client: Any, *, namespace: str, service: str, read: Read, interval_s: float) -> None:
        """``client`` is boto3's for CloudWatch; ``read`` gives the metrics of this moment."""
        self._client = client
        self._namespace = namespace
        self._service = service
        self._read = read
        self._interval_s = interval_s
        self._reported: dict[str, float] = {}
        self._seen: dict[str, Mapping[float, int]] = {}
        self._failing = False

    async def run(self) -> None:
        """Report until cancelled, and once more then: the last growth of the totals is not lost with the process."""
        try:
            while True:
                await asyncio.sleep(self._interval_s)
                await self._try()
        finally:
            try:
                async with asyncio.timeout(_LAST_REPORT_S):
                    await self._try()
            except TimeoutError:
                logger.warning("the last metrics did not reach CloudWatch in time")

    async def once(self) -> None:
        """Report now.

        Raises:
            AwsError: CloudWatch cannot be asked, or refuses. The growth of totals goes into the next report.
        """
        metrics = await self._read()
        at = datetime.now(UTC)
        data = [
            {
                "MetricName": metric.name,
                "Dimensions": [{"Name": "Service", "Value": self._service}],
                "Timestamp": at,
                **told,
                "Unit": metric.unit,
            }
            for metric in metrics
            if (told := self._told(metric))
        ]
        if not data:
            return
        with translated("CloudWatch, put metrics"):
            await asyncio.to_thread(self._client.put_metric_data, Namespace=self._namespace, MetricData=data)
        self._reported |= {metric.name: metric.value for metric in metrics if isinstance(metric, Total)}
        self._seen |= {metric.name: dict(metric.counts) for metric in metrics if isinstance(metric, Distribution)}

    def _told(self, metric: Metric) -> dict[str, Any]:
        """The metric as CloudWatch takes it; empty if nothing happened."""
        if isinstance(metric, Gauge):
            return {"Value": float(metric.value)}
        if isinstance(metric, Total):
            return {"Value": float(max(metric.value - self._reported.get(metric.name, 0.0), 0.0))}
        before = self._seen.get(metric.name, {})
        grown = {value: count - before.get(value, 0) for value, count in metric.counts.items()}
        grown = {value: count for value, count in grown.items() if count > 0}
        if not grown:
            return {}
        return {"Values": [float(value) for value in grown], "Counts": [float(count) for count in grown.values()]}

    async def _try(self) -> None:
        try:
            await self.once()
        except AwsError as error:
            # Logged once, not at every try: an outage of CloudWatch may last for hours.
            if not self._failing:
                logger.warning("no metrics: %s", error)
            self._failing = True
            return
        if self._failing:
            logger.warning("metrics reach CloudWatch again")
        self._failing = False


@dataclass(frozen=True, slots=True)
class Question:
    """One metric of one service, and how its values over tasks and time are combined."""

    service: str
    metric: str
    statistic: Statistic


def read_back(
    client: Any, namespace: str, questions: Sequence[Question], start: datetime, end: datetime
) -> Mapping[Question, float | None]:
    """The answer to each question over the whole minutes from ``start`` to ``end``; None where nothing was reported.

    Blocking. An average is that of the minutes' averages.

    Raises:
        AwsError: CloudWatch cannot be asked.
    """
    queries = [
        {
            "Id": f"q{number}",
            "MetricStat": {
                "Metric": {
                    "Namespace": namespace,
                    "MetricName": question.metric,
                    "Dimensions": [{"Name": "Service", "Value": question.service}],
                },
                "Period": PERIOD_S,
                "Stat": question.statistic,
            },
        }
        for number, question in enumerate(questions)
    ]
    first = start.replace(second=0, microsecond=0)
    last = end.replace(second=0, microsecond=0) + timedelta(seconds=PERIOD_S)
    values: dict[str, list[float]] = {}
    with translated(f"CloudWatch, metrics of {namespace}"):
        token: dict[str, str] = {}
        while True:
            answer = client.get_metric_data(MetricDataQueries=queries, StartTime=first, EndTime=last, **token)
            for result in answer["MetricDataResults"]:
                values.setdefault(result["Id"], []).extend(result["Values"])
            if not answer.get("NextToken"):
                break
            token = {"NextToken": answer["NextToken"]}
    return {
        question: _together(question.statistic, values.get(f"q{number}", []))
        for number, question in enumerate(questions)
    }


def _together(statistic: Statistic, values: Sequence[float]) -> float | None:
    if not values:
        return None
    if statistic == "Maximum":
        return max(values)
    return sum(values) if statistic == "Sum" else sum(values) / len(values)
