"""What ladders say: rates, times, errors, integrity, resources, strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from load_tests.experiments.common.results import LadderStep, ProofSummary, Result
from load_tests.experiments.compare.claims import rivals
from load_tests.experiments.compare.document import Chart, Section, Table

Named = Mapping[str, Result]
"""Results by the names under which the report speaks of them."""


def ladders_of(results: Named) -> dict[str, Result]:
    """The results that have a ladder."""
    return {name: result for name, result in results.items() if result.ladder}


def throughput(results: Named) -> Section:
    """Rates and response times."""
    ladders = ladders_of(results)
    section = Section("Throughput and response times")
    for name, result in ladders.items():
        section.findings += [f"{name}: {sentence}" for sentence in _rate_sentences(result.ladder)]
    section.charts = [
        _chart("Bids per second", "bids/s with a verdict", ladders, lambda step: step.bids_per_s),
        _chart("Accepted bids per second", "bids/s", ladders, lambda step: step.accepted_per_s),
        _chart("p50", "ms", ladders, lambda step: step.latency.p50_ms),
        _chart("p99", "ms", ladders, lambda step: step.latency.p99_ms),
    ]
    rows = [
        [
            name,
            f"{step.users:,}" + (" plain" if step.made_by == "plain" else ""),
            step.loop + (f" {step.offered_per_s:,.0f}/s" if step.offered_per_s else ""),
            f"{step.bids_per_s:,.0f}",
            f"{step.accepted_per_s:,.0f}",
            f"{step.requests_per_s:,.0f}",
            *(f"{value:,.1f}" for value in (step.latency.p50_ms, step.latency.p95_ms, step.latency.p99_ms)),
            _in_gateway(step),
        ]
        for name, result in ladders.items()
        for step in result.ladder
    ]
    head = (
        "run",
        "users",
        "loop",
        "bids/s",
        "accepted/s",
        "requests/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "gateway's p99, at most ms",
    )
    section.tables = [Table(head, rows, frozenset({0, 2}))]
    return section


def _in_gateway(step: LadderStep) -> str:
    if step.gateway_time is None:
        return ""
    return "over 10,000" if step.gateway_time.p99_ms is None else f"{step.gateway_time.p99_ms:,g}"


def _rate_sentences(steps: Sequence[LadderStep]) -> list[str]:
    best = max(steps, key=lambda step: step.bids_per_s)
    last = steps[-1]
    sentences = [
        f"the best rate was {best.bids_per_s:,.0f} bids/s with {best.users:,} users, p99 {best.latency.p99_ms:,.0f} ms."
    ]
    if last.users != best.users and best.bids_per_s:
        share = last.bids_per_s / best.bids_per_s
        sentences.append(f"with {last.users:,} users it was {last.bids_per_s:,.0f} bids/s, {share:.2f} of the best.")
    bounded = [step.users for step in steps if step.limit.what in ("generator", "machine")]
    if bounded:
        told = ", ".join(f"{users:,}" for users in bounded)
        sentences.append(
            f"with {told} users the load or the shared machine was at its limit: lower bounds for the platform."
        )
    gateway_ms = last.gateway_time.p99_ms if last.gateway_time else None
    if gateway_ms is not None and last.latency.p99_ms > 2 * gateway_ms:
        sentences.append(
            f"with {last.users:,} users 99 % of the bids took at most {gateway_ms:,g} ms in the gateway; the rest of"
            f" the load's p99 of {last.latency.p99_ms:,.0f} ms passed in the load itself and in the kernel's queues."
        )
    disturbed = [step for step in steps if step.others_cpu > 0.2]
    if disturbed:
        most = max(step.others_cpu for step in disturbed)
        sentences.append(
            f"in {len(disturbed)} of {len(steps)} steps other programs used up to {most:.1f} cores: hints, no figures."
        )
    return sentences


def losses(steps: Sequence[LadderStep]) -> str:
    """How many accepted bids were lost, where anybody looked, and how many requests failed."""
    looked_at = [step for step in steps if step.proof.ok is not None]
    lost, failures = sum(step.proof.lost_updates for step in looked_at), sum(step.failures for step in steps)
    if len(looked_at) == len(steps):
        return f"In {len(steps)} steps {lost:,} accepted bids were lost and {failures:,} requests failed."
    told = f"In {len(steps)} steps {failures:,} requests failed."
    if not looked_at:
        return f"{told} Whether accepted bids were lost is not known: none could be proved."
    return f"{told} {len(looked_at)} of them could be proved: there {lost:,} accepted bids were lost."


def integrity(results: Named) -> Section:
    """Failures and proofs."""
    ladders = ladders_of(results)
    section = Section("Errors and integrity")
    steps = [step for result in ladders.values() for step in result.ladder]
    proved = sum(step.proof.ok is True for step in steps)
    section.findings = [
        f"{proved} of {len(steps)} steps were proved, {sum(step.proof.ok is None for step in steps)} could not be.",
        f"{sum(step.accepted for step in steps):,} bids were accepted. {losses(steps)}",
    ]
    rows = [
        [
            name,
            f"{step.users:,}",
            f"{step.accepted:,}",
            f"{step.failures:,}",
            f"{step.unknown:,}",
            "" if step.proof.ok is None else f"{step.proof.lost_updates:,}",
            _verdict(step.proof),
            step.proof.highest or "; ".join(step.proof.statements),
        ]
        for name, result in ladders.items()
        for step in result.ladder
    ]
    head = ("run", "users", "accepted", "failures", "unknown", "lost", "proof", "highest accepted bid")
    section.tables = [Table(head, rows, frozenset({0, 6, 7}))]
    return section


def _verdict(proof: ProofSummary) -> str:
    return {True: f"all {proof.checks} checks", False: "NOT PROVED", None: "not possible"}[proof.ok]


def resources(results: Named) -> Section:
    """CPU, memory, and what limited each step."""
    ladders = ladders_of(results)
    section = Section("Resources and limits")
    names = sorted({name for result in ladders.values() for step in result.ladder for name in step.components})
    rows = []
    for run, result in ladders.items():
        for step in result.ladder:
            cpus = [f"{step.components[name].cpu:.2f}" if name in step.components else "" for name in names]
            generator = f"{step.generator.cpu:.2f}" if step.generator else ""
            rows.append([run, f"{step.users:,}", *cpus, generator, f"{step.generator_share:.0%}", step.limit.what])
    section.findings = [
        f"{run}, {step.users:,} users: limited by {step.limit.what}; {step.limit.why}."
        for run, result in ladders.items()
        for step in result.ladder[-1:]
    ]
    head = ("run", "users", *(f"{name}, cores" for name in names), "load, cores", "load's share", "limit")
    memory = [
        [run, name, f"{max(step.components[name].memory_mb for step in result.ladder if name in step.components):,.0f}"]
        for run, result in ladders.items()
        for name in names
        if any(name in step.components for step in result.ladder)
    ]
    section.tables = [
        Table(head, rows, frozenset({0, len(head) - 1})),
        Table(("run", "part", "most MB"), memory, frozenset({0, 1})),
    ]
    return section


def strategies(results: Named) -> Section | None:
    """Script against WATCH/MULTI, where both were measured with the same users."""
    of = rivals(list(results.values()))
    section = Section("A script against WATCH/MULTI/EXEC")
    for name in ("lua", "plain-lua"):
        steps = of[name]
        for users in sorted(steps.keys() & of["optimistic"].keys()):
            ours, theirs = steps[users], of["optimistic"][users]
            if theirs.accepted_per_s:
                ratio = ours.accepted_per_s / theirs.accepted_per_s
                section.findings.append(
                    f"{users:,} users: {name} accepted {ours.accepted_per_s:,.0f} bids/s, WATCH/MULTI "
                    f"{theirs.accepted_per_s:,.0f}: {ratio:.1f} times as many; WATCH/MULTI tried "
                    f"{theirs.retries:,} times again and gave {theirs.failures:,} bids up."
                )
    return section if section.findings else None


def _chart(title: str, unit: str, ladders: Named, value: object) -> Chart:
    assert callable(value)
    users = sorted({step.users for result in ladders.values() for step in result.ladder})
    series: dict[str, Sequence[float | None]] = {}
    for name, result in ladders.items():
        of = {step.users: float(value(step)) for step in result.ladder}
        series[name] = [of.get(each) for each in users]
    return Chart(title, f"{unit}, by users", [f"{each:,}" for each in users], series)
