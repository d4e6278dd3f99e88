"""What the other experiments say: fan-out, resilience, environments; and what was measured at all."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from load_tests.experiments.common.results import EnvironmentTest, Phase, Result
from load_tests.experiments.compare.claims import Judged
from load_tests.experiments.compare.document import Chart, Section, Table
from load_tests.experiments.compare.ladders import Named


def measured(results: Named) -> Section:
    """The files of results, and what each measured on which machine."""
    section = Section("What was measured, and on what")
    cut = [name for name, result in results.items() if not result.complete]
    if cut:
        section.findings.append(f"Cut off, so only a part of the run: {', '.join(cut)}.")
    commits = sorted({_version(result) for result in results.values()})
    machines = {result.machine for result in results.values()}
    if len(machines) > 1:
        section.findings.append(f"Of {len(machines)} machines: their figures do not compare.")
    if len(commits) > 1:
        section.findings.append(f"Of {len(commits)} versions: {', '.join(commits)}.")
    rows = [
        [
            name,
            result.kind,
            result.place,
            f"{result.machine.processor}, {result.machine.cores} cores, {result.machine.memory_gb:g} GB",
            result.versions.get("python", ""),
            _version(result),
            result.started_at[:16].replace("T", " "),
            "complete" if result.complete else f"cut off: {result.cut_off}",
        ]
        for name, result in results.items()
    ]
    head = ("run", "experiment", "platform", "machine", "Python", "commit", "began (UTC)", "state")
    section.tables = [Table(head, rows, frozenset(range(len(head))))]
    return section


def _version(result: Result) -> str:
    return result.commit[:10] + ("+" if result.commit.endswith("+") else "")


def fanout(results: Named) -> Section | None:
    """The live feed: how much of it viewers got, and how soon."""
    runs = {name: result for name, result in results.items() if result.fanout}
    if not runs:
        return None
    section = Section("Fan-out to viewers")
    rows = []
    for name, result in runs.items():
        most = result.fanout[-1]
        delivered, expected = (
            sum(getattr(step, which) for step in result.fanout) for which in ("delivered", "expected")
        )
        section.findings.append(
            f"{name}: {delivered:,} of {expected:,} bids were told to viewers ({delivered / max(1, expected):.2%}); "
            f"with {most.viewers:,} viewers a bid took {most.sent_to_frame.p50_ms:,.1f} ms (p50) and "
            f"{most.sent_to_frame.p99_ms:,.1f} ms (p99) from its sender to them; limited by {most.limit.what}."
        )
        rows += [
            [
                name,
                f"{step.viewers:,}",
                f"{step.slow:,}",
                f"{step.rate:g}",
                f"{step.delivered:,} of {step.expected:,}",
                *(f"{value:,.1f}" for value in (step.sent_to_frame.p50_ms, step.sent_to_frame.p95_ms)),
                f"{step.sent_to_frame.p99_ms:,.1f}",
                f"{step.decided_to_frame.p99_ms:,.1f}",
                step.limit.what,
            ]
            for step in result.fanout
        ]
    head = ("run", "viewers", "slow", "bids/s", "told", "p50 ms", "p95 ms", "p99 ms", "p99 from decision", "limit")
    section.tables = [Table(head, rows, frozenset({0, 9}))]
    viewers = sorted({step.viewers for result in runs.values() for step in result.fanout})
    labels = [f"{each:,}" for each in viewers]
    series: dict[str, Sequence[float | None]] = {}
    for name, result in runs.items():
        of = {step.viewers: step.sent_to_frame.p99_ms for step in result.fanout}
        series[name] = [of.get(each) for each in viewers]
    section.charts = [Chart("From bid to frame, p99", "ms, by viewers", labels, series)]
    return section


def resilience(results: Named) -> Section | None:
    """Failures of parts."""
    runs = {name: result for name, result in results.items() if result.phases}
    if not runs:
        return None
    section = Section("When a part fails")
    rows = []
    for name, result in runs.items():
        section.findings.append(f"{name}: {_failure_sentence(result.phases)}")
        rows += [
            [
                name,
                phase.name,
                f"{phase.bids_per_s:,.0f}",
                f"{phase.latency.p50_ms:,.1f}",
                f"{phase.latency.p99_ms:,.1f}",
                f"{phase.failures:,}",
                ", ".join(f"{code} {count:,}" for code, count in sorted(phase.codes.items())),
                f"{phase.frames:,}",
                f"{phase.reads_failed:,} of {phase.reads:,}",
                ", ".join(check for check, held in phase.checks.items() if not held) or "all hold",
            ]
            for phase in result.phases
        ]
    head = (
        "run",
        "phase",
        "bids/s",
        "p50 ms",
        "p99 ms",
        "failures",
        "of them",
        "frames",
        "reads failed",
        "did not hold",
    )
    section.tables = [Table(head, rows, frozenset({0, 1, 6, 9}))]
    return section


def _failure_sentence(phases: Sequence[Phase]) -> str:
    failure = next((phase for phase in phases if phase.name == "failure"), None)
    recovery = next((phase for phase in phases if phase.name == "recovery"), None)
    if failure is None or recovery is None:
        return "the run was cut off before all phases were over."
    bids = "bids went on" if failure.checks.get("bids get verdicts") and not failure.failures else "bids were disturbed"
    shown = "viewers were shown bids" if failure.checks.get("viewers are shown bids") else "viewers were shown nothing"
    back = (
        f"all worked again {recovery.recovered_s:.1f} s after the kill"
        if recovery.recovered_s
        else "not all worked again"
    )
    proved = recovery.proof is not None and recovery.proof.ok
    lost = recovery.proof.lost_updates if recovery.proof else 0
    kept = (
        "nothing acknowledged was lost or doubled" if proved else f"NOT PROVED, {lost:,} acknowledged bids are missing"
    )
    return f"without {failure.victim}, {bids}, {shown}; {back}; {kept}."


def environments(results: Named) -> Section | None:
    """The eight properties, side by side."""
    runs = {name: result for name, result in results.items() if result.tests}
    if not runs:
        return None
    section = Section("Environments")
    names = list(dict.fromkeys(test.name for result in runs.values() for test in result.tests))
    of = {run: {test.name: test for test in result.tests} for run, result in runs.items()}
    rows = [[name, *(_cell(of[run].get(name)) for run in runs)] for name in names]
    for name in names:
        medians = {
            run: statistics.median(of[run][name].values) for run in runs if name in of[run] and of[run][name].values
        }
        if len(medians) >= 2:
            least, most = min(medians, key=medians.__getitem__), max(medians, key=medians.__getitem__)
            unit = of[least][name].unit
            section.findings.append(
                f"{name}: {least} {medians[least]:,.2f} {unit}, {most} {medians[most]:,.2f} {unit} (medians)."
            )
    section.findings += [f"{run}: {note}" for run, result in runs.items() for note in result.notes]
    section.tables = [Table(("property", *runs), rows, frozenset(range(len(runs) + 1)))]
    return section


def _cell(test: EnvironmentTest | None) -> str:
    if test is None or not (test.values or test.note):
        return "not measured"
    if not test.values:
        return f"cannot: {test.note}"
    median = statistics.median(test.values)
    return f"{median:,.2f} {test.unit} ({min(test.values):,.2f} to {max(test.values):,.2f}, n = {len(test.values)})"


def claims_section(judged: Sequence[Judged]) -> Section:
    """Each claim of the reference reports."""
    section = Section("The claims of the reference reports")
    for status in ("reproduced", "refuted", "untestable"):
        count = sum(each.status == status for each in judged)
        section.findings.append(f"{count} of {len(judged)} {status}.")
    rows = [
        [
            each.claim.source,
            each.claim.claim,
            _number(each.claim.reported),
            _number(each.claim.corrected),
            f"{_number(each.measured)} {each.claim.unit}" if each.measured is not None else "",
            each.status,
            each.note,
        ]
        for each in judged
    ]
    head = ("source", "claim", "reported", "corrected", "measured here", "verdict", "note")
    section.tables = [Table(head, rows, frozenset({0, 1, 5, 6}))]
    return section


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"
