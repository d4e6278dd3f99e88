"""The ratios and curves of a run as one page that needs nothing else, made of what its JSON file has."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bench.overload.gateway import PACES
from load_tests.experiments.compare.document import Chart, Document, Section
from load_tests.experiments.compare.page import html

_YARDSTICKS: Final = {
    "gateway": ("bare ASGI echo", "rate", "of the bare echo"),
    "ack": ("BID_ACK=redis", "accepted", "of BID_ACK=redis"),
    "cache": ("PostgreSQL", "rate", "of PostgreSQL"),
}
"""Parts whose contenders run in rounds: the yardstick, what is compared, and the name of the ratio."""


def page(run: Mapping[str, Any]) -> str:
    """The page, as HTML. ``run``: what :class:`bench.results.BenchRun` tells; parts without ratios or curves are left
    out."""
    machine = run["machine"]
    summary = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}",
        f"Commit {run['commit']}, Python {run['versions']['python']}"
        + ("" if run["complete"] else "; the run did not come to its end"),
        "Bars are medians of the ratios within each round. Machines and days do not compare, ratios do.",
    ]
    sections = [
        Section(f"{part}, {told['began_at']}", [], charts)
        for part, told in run["parts"].items()
        if (charts := _charts(part, told["results"]))
    ]
    return html(Document("Benches", summary, sections))


def _charts(part: str, results: Any) -> list[Chart]:
    if part in _YARDSTICKS:
        return _ratios(*_YARDSTICKS[part], results)
    draw = _DRAWN.get(part)
    return draw(results) if draw is not None and results else []


def _bars(title: str, unit: str, values: Mapping[str, float]) -> list[Chart]:
    return [Chart(title, unit, list(values), {title: list(values.values())}, "bars")] if values else []


def _ratios(yardstick: str, rate: str, unit: str, results: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Chart]:
    if yardstick not in results:
        return []
    base = [run[rate] for run in results[yardstick]]
    return _bars(
        "per second",
        unit,
        {
            name: statistics.median(run[rate] / one for run, one in zip(runs, base, strict=True))
            for name, runs in results.items()
            if runs
        },
    )


def _archive(results: Sequence[Mapping[str, float]]) -> list[Chart]:
    names = {
        "JetStream to PostgreSQL": "archived",
        "the same without the chain": "archived_unchained",
        "what one gateway accepts": "accepted",
    }
    ratios = {
        name: statistics.median(each[field] / each["copied"] for each in results) for name, field in names.items()
    }
    return _bars("events per second", "of a plain COPY", ratios)


def _overload(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Chart]:
    decided, slowest = {}, {}
    for setting, runs in results.items():
        items, wait_ms, standing_ms = setting.split(", ")
        for index, pace in enumerate(PACES):
            name = f"{items} items, {wait_ms} ms, {standing_ms} ms if it stands, {pace}"
            decided[name] = statistics.median(run["paces"][index]["decided"] / run["peak"] for run in runs)
            slowest[name] = statistics.median(run["paces"][index]["p99_ms"] for run in runs)
    return _bars("decided per second", "of the peak", decided) + _bars("p99", "ms", slowest)


def _curve(what: str, unit: str, steps: Sequence[Mapping[str, float]], size: str, field: str) -> Chart:
    return Chart(what, unit, [f"{step[size]:,}" for step in steps], {what: [step[field] for step in steps]})


def _growth(results: Sequence[Sequence[Mapping[str, float]]]) -> list[Chart]:
    items, bids = results
    charts = []
    for name, steps in (("items in Redis", items), ("bids on the item", bids)):
        if steps:
            charts.append(_curve(f"by {name}", "bids/s", steps, "size", "rate"))
            charts.append(_curve(f"by {name}: p99", "ms", steps, "size", "p99_ms"))
    return charts


def _viewers(results: Sequence[Mapping[str, float]]) -> list[Chart]:
    wanted = (("bids", "rate", "bids/s"), ("p99", "p99_ms", "ms"), ("gateway", "cpu_us", "µs of CPU per bid"))
    return [_curve(f"{name} by viewers of the item", unit, results, "viewers", field) for name, field, unit in wanted]


def _broadcasters(results: Sequence[Mapping[str, Any]]) -> list[Chart]:
    labels = [f"{each['count']}" for each in results]
    series: dict[str, Sequence[float | None]] = {
        "each, at a slow pace": [max(each["cpu_us"]) for each in results],
        "all together": [sum(each["cpu_us"]) for each in results],
        "each, as fast as bids are taken": [max(each["busy_us"]) for each in results],
        "all together, so": [sum(each["busy_us"]) for each in results],
    }
    return [Chart("by broadcasters", "µs of CPU per event", labels, series)]


_DRAWN: Final[Mapping[str, Callable[[Any], list[Chart]]]] = {
    "archive": _archive,
    "overload": _overload,
    "growth": _growth,
    "viewers": _viewers,
    "broadcasters": _broadcasters,
}
