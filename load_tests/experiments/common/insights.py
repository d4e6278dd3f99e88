"""What the services of an ECS cluster used, as Container Insights has counted it, for a target on AWS.

Each task tells CloudWatch once a minute what it has used; so a step has the whole minutes that lie in it, and one of
less than two minutes may have none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import fmean
from typing import Any, Final

from load_tests.experiments.common.results import Use
from shared.aws.clients import AwsError, open_cloudwatch, translated

NAMESPACE: Final = "ECS/ContainerInsights"
CPU_UNITS_PER_CORE: Final = 1_024
WAIT_S: Final = 240.0
"""How long the minutes of a step are waited for: CloudWatch has them two or three minutes late."""
_MINUTE: Final = timedelta(minutes=1)
_LOOK_EVERY_S: Final = 10.0
_STATISTICS: Final = (
    ("CpuUtilized", "Sum"),
    ("CpuUtilized", "Maximum"),
    ("CpuUtilized", "SampleCount"),
    ("MemoryUtilized", "Sum"),
)
"""Over the tasks of a service: each tells once a minute."""
_SERVICES_PER_QUESTION: Final = 500 // len(_STATISTICS)
"""One call takes 500 queries."""


class Insights:
    """The services of one cluster."""

    def __init__(self, cluster: str, opened: Callable[[], Any] = open_cloudwatch, *, wait_s: float = WAIT_S) -> None:
        self._cluster = cluster
        self._opened = opened
        self._wait_s = wait_s

    async def between(self, began_s: float, ended_s: float) -> dict[str, Use]:
        """What each service used from one time to another (``time.monotonic``); empty where no whole minute lies in
        between. Waits until CloudWatch has them.

        Raises:
            AwsError: CloudWatch cannot be asked, or had nothing of this cluster in time.
        """
        first, last = _whole_minutes(began_s, ended_s)
        if first >= last:
            return {}
        client = await asyncio.to_thread(self._opened)
        give_up_s = time.monotonic() + self._wait_s
        while True:
            used = await asyncio.to_thread(self._ask, client, first, last)
            if used:
                return used
            if time.monotonic() >= give_up_s:
                raise AwsError(
                    f"CloudWatch has nothing of the services of {self._cluster} in {NAMESPACE}: "
                    "is Container Insights on, and is this the cluster of the target?"
                )
            await asyncio.sleep(min(_LOOK_EVERY_S, self._wait_s))

    def _ask(self, client: Any, first: datetime, last: datetime) -> dict[str, Use]:
        """Empty while a service lacks a minute: the figures would be of a part of the step."""
        found: dict[str, Use] = {}
        with translated(f"CloudWatch, metrics of {NAMESPACE}"):
            services = self._services(client)
            for at in range(0, len(services), _SERVICES_PER_QUESTION):
                some = services[at : at + _SERVICES_PER_QUESTION]
                told = self._told(client, some, first, last)
                for number, name in enumerate(some):
                    cpu, hottest, tasks, memory = (told.get((number, which), []) for which in range(len(_STATISTICS)))
                    if not any((cpu, hottest, tasks, memory)):
                        # CloudWatch names services for two weeks after they are gone.
                        continue
                    if min(map(len, (cpu, hottest, tasks, memory))) < (last - first) // _MINUTE:
                        return {}
                    found[name] = Use(
                        round(fmean(cpu) / CPU_UNITS_PER_CORE, 3),
                        round(max(hottest) / CPU_UNITS_PER_CORE, 3),
                        round(max(memory), 1),
                        round(max(tasks)),
                    )
        return found

    def _told(
        self, client: Any, services: Sequence[str], first: datetime, last: datetime
    ) -> dict[tuple[int, int], list[float]]:
        """The minutes of each service and statistic, by their numbers."""
        queries = [
            {
                "Id": f"q{number}_{which}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": NAMESPACE,
                        "MetricName": metric,
                        "Dimensions": [
                            {"Name": "ClusterName", "Value": self._cluster},
                            {"Name": "ServiceName", "Value": name},
                        ],
                    },
                    "Period": _MINUTE.seconds,
                    "Stat": statistic,
                },
            }
            for number, name in enumerate(services)
            for which, (metric, statistic) in enumerate(_STATISTICS)
        ]
        told: dict[tuple[int, int], list[float]] = {}
        pages = client.get_paginator("get_metric_data").paginate(
            MetricDataQueries=queries, StartTime=first, EndTime=last
        )
        for page in pages:
            for result in page["MetricDataResults"]:
                number, which = map(int, result["Id"][1:].split("_"))
                told.setdefault((number, which), []).extend(result["Values"])
        return told

    def _services(self, client: Any) -> list[str]:
        pages = client.get_paginator("list_metrics").paginate(
            Namespace=NAMESPACE, MetricName="CpuUtilized", Dimensions=[{"Name": "ClusterName", "Value": self._cluster}]
        )
        names: set[str] = set()
        for page in pages:
            for metric in page["Metrics"]:
                dimensions = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
                # The same metrics exist by task definition, and for the whole cluster.
                if dimensions.keys() == {"ClusterName", "ServiceName"}:
                    names.add(dimensions["ServiceName"])
        return sorted(names)


def _whole_minutes(began_s: float, ended_s: float) -> tuple[datetime, datetime]:
    """The first and the last full minute of the clock between two times of ``time.monotonic``."""
    now, now_s = datetime.now(UTC), time.monotonic()
    began, ended = (now - timedelta(seconds=now_s - at_s) for at_s in (began_s, ended_s))
    first = began.replace(second=0, microsecond=0)
    return first if first == began else first + _MINUTE, ended.replace(second=0, microsecond=0)
