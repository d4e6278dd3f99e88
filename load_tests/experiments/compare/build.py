"""The report from its files: which sections there are, what comes first, and when to use which environment."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from load_tests.experiments.common.results import Result
from load_tests.experiments.compare.claims import Judged, judge, read_claims
from load_tests.experiments.compare.document import Document, Section, Table
from load_tests.experiments.compare.ladders import (
    Named,
    integrity,
    ladders_of,
    losses,
    resources,
    strategies,
    throughput,
)
from load_tests.experiments.compare.others import claims_section, environments, fanout, measured, resilience

_METRICS: Final = (
    ("bids/s", "bids with a verdict, accepted or refused, per second while all users were at work; looks do not count"),
    ("accepted/s", "those that changed the price; on one item all others were beaten in the meantime"),
    ("requests/s", "bids and looks together: what a page would call throughput, and no measure of bidding"),
    ("p50, p95, p99", "within this time so many of a hundred bids were answered; in open runs from when a bid was due"),
    ("closed, open", "users wait for their answers (a slow platform is asked less), or bids come at their rate anyway"),
    ("unknown", "bids whose answer had not come when the run ended; the proof asks what became of them"),
    ("lost", "accepted bids that Redis, JetStream or PostgreSQL does not have"),
    (
        "load's share",
        "the generator's part of the CPU that it and the platform used: that much the platform did not have",
    ),
    (
        "limit",
        "by a fixed rule: a process at 85 % of a core, or all cores at 90 %; generator and machine are lower bounds",
    ),
)


def named(paths: Sequence[Path], results: Sequence[Result]) -> dict[str, Result]:
    """Results by their file names, told apart by their folders where two have the same."""
    unique = [path.stem for path in paths]
    for longer in (lambda path: str(path.with_suffix("")), str):
        unique = [name if unique.count(name) == 1 else longer(path) for name, path in zip(unique, paths, strict=True)]
    return dict(zip(unique, results, strict=True))


def build(results: Named) -> Document:
    """All of it."""
    judged = judge(read_claims(), list(results.values()))
    has_ladder = bool(ladders_of(results))
    found = [
        throughput(results) if has_ladder else None,
        integrity(results) if has_ladder else None,
        resources(results) if has_ladder else None,
        strategies(results),
        fanout(results),
        resilience(results),
        environments(results),
        _when_to_use_which(results),
        claims_section(judged),
        measured(results),
        Section("Which figure means what", tables=[Table(("figure", "meaning"), _METRICS, frozenset({0, 1}))]),
    ]
    sections = [section for section in found if section is not None]
    return Document("Experiments with the bidding platform", _summary(results, judged), sections)


def _summary(results: Named, judged: Sequence[Judged]) -> list[str]:
    sentences = []
    for name, result in ladders_of(results).items():
        best = max(result.ladder, key=lambda step: step.bids_per_s)
        sentences.append(
            f"{name}: at most {best.bids_per_s:,.0f} bids/s, with {best.users:,} users; limit: {best.limit.what}."
        )
    steps = [step for result in results.values() for step in result.ladder]
    if steps:
        sentences.append(losses(steps))
    runs = [result for result in results.values() if result.phases]
    if runs:
        proved = sum(any(phase.proof is not None and phase.proof.ok for phase in result.phases) for result in runs)
        sentences.append(f"{proved} of {len(runs)} runs in which a part was killed ended with nothing lost or doubled.")
    counts = {
        status: sum(each.status == status for each in judged) for status in ("reproduced", "refuted", "untestable")
    }
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    return [*sentences, f"Of {len(judged)} claims of the reference reports: {told}."]


def _when_to_use_which(results: Named) -> Section | None:
    """Computed: which environment was the quickest in what, and which claims nothing about it."""
    runs = {name: result for name, result in results.items() if result.tests}
    if len(runs) < 2:
        return None
    section = Section("When to use which environment")
    for prop, purpose in (
        ("deployment time", "to try a change"),
        ("network latency", "to see the platform's own times"),
    ):
        medians = {
            run: statistics.median(test.values)
            for run, result in runs.items()
            for test in result.tests
            if test.name == prop and test.values
        }
        if len(medians) >= 2:
            best = min(medians, key=medians.__getitem__)
            others = ", ".join(f"{run} {value:,.2f}" for run, value in medians.items() if run != best)
            section.findings.append(f"{purpose.capitalize()}: {best} ({prop} {medians[best]:,.2f}, against {others}).")
    for run, result in runs.items():
        cannot = [test.name for test in result.tests if not test.values and test.note]
        if cannot:
            section.findings.append(f"Not {run} for {', '.join(cannot)}: it cannot do that.")
    return section if section.findings else None
