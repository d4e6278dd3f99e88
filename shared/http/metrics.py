"""``/metrics``: Prometheus' text out of plain counters.

Counts are plain integers, so that counting costs next to nothing. Metric families are made of them only when somebody
asks. ``process_*`` (memory, CPU time, open files) come with every answer, where the system tells them.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, chain
from typing import Final

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response
from typing_extensions import override

_process: Final = ProcessCollector(registry=None)
_MAY_BE_WHOLE: Final = re.compile(r"-?\d+(\.0|(\.\d+)?e\+\d+)\n")
_EXACT_MAX: Final = 2**53


class Histogram:
    """Durations in seconds, counted by upper bounds. One bisection in a short tuple for each."""

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(self, *bounds_s: float) -> None:
        """``bounds_s`` ascend; what is longer than the last one is counted too."""
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one; a duration equal to a bound is within it."""
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds

    def middles(self) -> dict[float, int]:
        """The counts by the middle of their buckets; what is longer than the last bound is counted at that bound.

        For metrics that are values and not buckets. It is the middle, since a value at a bound may be reported as above
        it.
        """
        lower = (0.0, *self.bounds_s)
        middles = [(low + high) / 2 for low, high in zip(lower, self.bounds_s, strict=False)]
        return dict(zip((*middles, self.bounds_s[-1]), self.counts, strict=True))

    def family(self, name: str, text: str) -> Metric:
        """The metric in Prometheus' form, where each bucket counts all durations up to its bound."""
        bounds = [*(f"{bound_s:g}" for bound_s in self.bounds_s), "+Inf"]
        totals = map(float, accumulate(self.counts))
        return HistogramMetricFamily(name, text, buckets=list(zip(bounds, totals, strict=True)), sum_value=self.sum_s)


def gauge(name: str, text: str, value: float) -> Metric:
    """A metric that may go up and down."""
    return GaugeMetricFamily(name, text, value=value)


def counter(name: str, text: str, value: float) -> Metric:
    """A metric that only grows; ``name`` ends with ``_total``."""
    return CounterMetricFamily(name, text, value=value)


def counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    """Counters that differ in the value of one label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, total in values.items():
        family.add_metric([value], total)
    return family


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    @override
    def collect(self) -> Iterator[Metric]:
        yield from chain(self._families, _process.collect())


def exposition(families: Iterable[Metric]) -> str:
    """The text format, version 0.0.4."""
    return "".join(map(_plain, generate_latest(_Collected(families)).decode().splitlines(keepends=True)))


def _plain(line: str) -> str:
    """Whole numbers are written as such, ``1234567`` and not ``1.234567e+06``: scripts compare them as text."""
    before, _, value = line.rpartition(" ")
    if line.startswith("#") or not _MAY_BE_WHOLE.fullmatch(value):
        return line
    number = float(value)
    return f"{before} {int(number)}\n" if number.is_integer() and abs(number) <= _EXACT_MAX else line


def metrics_answer(text: str) -> Response:
    """The answer to ``GET /metrics``."""
    return Response(text, media_type="text/plain; version=0.0.4")
