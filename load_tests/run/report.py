"""What a load run says in the end: a table for the terminal, and the same as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from infrastructure.local.terminal import lines_of, table
from load_tests.generator.driver import Load
from load_tests.generator.ledger import Ledger
from load_tests.generator.tally import Progress
from load_tests.proof.checks import Check, Verification
from load_tests.proof.resolve import Resolution
from load_tests.run import cloudwatch

_FORMAT = 1
_REASONS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class RunReport:
    """A finished run. ``resolutions`` are in the order of the load's items, as are ``verifications``.

    ``figures`` are what CloudWatch was told, where it was asked.
    """

    load: Load
    gateway_url: str
    started_at: str
    ledger: Ledger
    resolutions: Sequence[Resolution]
    verifications: Sequence[Verification]
    checks: tuple[Check, ...]
    figures: cloudwatch.Figures | None = None

    @property
    def ok(self) -> bool:
        """Whether every statement about the run and about each item holds. Without items nothing is proved."""
        sound = bool(self.verifications) and all(item.ok for item in self.verifications)
        return sound and all(check.ok for check in self.checks)


def run_checks(ledger: Ledger, *, unknown_allowed: bool) -> tuple[Check, ...]:
    """The statements about the run as a whole.

    Args:
        unknown_allowed: whether requests without an answer are no failure by themselves, as in a run with
            faults; what became of those bids is proved per item in any case.
    """
    unanswered = ledger.failures - sum(sum(item.failed.values()) for item in ledger.items.values())
    failures = ledger.failures - unanswered if unknown_allowed else ledger.failures
    return (
        Check(
            "no_failed_requests",
            failures == 0,
            f"{failures} requests failed for Locust, {max(unanswered, 0)} of all got no answer",
        ),
        Check("bids_were_accepted", ledger.accepted > 0, f"{ledger.accepted} bids were accepted"),
    )


def progress_line(line: Progress) -> str:
    """One line of progress of the load."""
    latency = line.latency
    unknown = f"   unknown {line.unknown:,}" if line.unknown else ""
    return (
        f"  {line.seconds:4.0f} s  {line.users:4d} users  {line.bids_per_s:7,.0f} bids/s   "
        f"accepted {line.accepted:,}   refused {line.refused:,}{unknown}   "
        f"p50 {latency.p50_ms:.0f}  p95 {latency.p95_ms:.0f}  p99 {latency.p99_ms:.0f} ms   "
        f"failures {line.failures:,}"
    )


def render(report: RunReport) -> str:
    """The final table."""
    told = cloudwatch.lines(report.figures)
    return "\n".join([*_load_lines(report), *told, "", *_proof_lines(report), "", _verdict_line(report)])


def _load_lines(report: RunReport) -> Iterable[str]:
    ledger, load = report.ledger, report.load
    per_second = ledger.bids / ledger.seconds if ledger.seconds else 0.0
    latency = ledger.latency
    yield "Load"
    yield f"  users, items    {load.users:,} on {len(load.item_ids):,}, for {ledger.seconds:.1f} s"
    yield f"  bids            {ledger.bids:,} with a verdict, {per_second:,.0f}/s"
    yield f"  accepted        {ledger.accepted:,}"
    yield f"  refused         {ledger.refused:,}{_reasons(item.refused for item in ledger.items.values())}"
    yield f"  unknown         {ledger.unknown:,}{_resolved(report.resolutions) if ledger.unknown else ''}"
    yield f"  failures        {ledger.failures:,}{_reasons(item.failed for item in ledger.items.values())}"
    yield f"  looks           {sum(item.looks for item in ledger.items.values()):,}"
    yield (
        f"  time of a bid   p50 {latency.p50_ms:.0f} ms, p95 {latency.p95_ms:.0f} ms, "
        f"p99 {latency.p99_ms:.0f} ms, longest {latency.max_ms:.0f} ms"
    )
    window = ledger.window
    yield (
        f"  under full load {window.bids_per_s:,.0f} bids/s in {window.seconds:.1f} s, "
        f"p50 {window.latency.p50_ms:.0f} ms, p95 {window.latency.p95_ms:.0f} ms, p99 {window.latency.p99_ms:.0f} ms"
    )
    if load.rate:
        yield f"  open loop       {load.rate:,.0f} actions/s were due; times count from when a bid was due"
        return
    # Shown with the figures: the times of a closed loop do not tell how long bids wait under overload.
    pause = f" and {load.think_ms:,} ms" if load.think_ms else ""
    yield f"  closed loop     each user waits for its answer{pause} before the next bid: a slow platform is asked less"


def _reasons(counters: Iterable[dict[str, int]]) -> str:
    total: Counter[str] = Counter()
    for counter in counters:
        total.update(counter)
    if not total:
        return ""
    shown = ", ".join(f"{reason} {count:,}" for reason, count in total.most_common(_REASONS_SHOWN))
    more = ", …" if len(total) > _REASONS_SHOWN else ""
    return f"  ({shown}{more})"


def _resolved(resolutions: Sequence[Resolution]) -> str:
    accepted = sum(len(resolution.accepted) for resolution in resolutions)
    refused = sum(resolution.refused for resolution in resolutions)
    never = sum(resolution.never_arrived for resolution in resolutions)
    open_ends = sum(len(resolution.unresolved) for resolution in resolutions)
    known = f"{accepted} accepted, {refused} refused, {never} never arrived"
    return f"  (asked by key: {known}, {open_ends} not known)"


def _proof_lines(report: RunReport) -> Iterable[str]:
    """Every check of a single item; of many items only those that do not hold."""
    yield "Proof"
    yield from _check_lines(report.checks)
    single = len(report.verifications) == 1
    for item in report.verifications:
        shown = item.checks if single else item.failed
        if shown:
            yield f"  {item.item_id}"
            yield from _check_lines(shown)
    sound = sum(item.ok for item in report.verifications)
    if not single:
        checks = max((len(item.checks) for item in report.verifications), default=0)
        yield f"  {sound} of {len(report.verifications)} items: all {checks} checks hold"


def _check_lines(checks: Sequence[Check]) -> Iterable[str]:
    rows = [("ok" if check.ok else "FAILED", check.name, check.statement) for check in checks]
    return lines_of(table(rows, indent=2))


def _verdict_line(report: RunReport) -> str:
    if report.ok:
        return "PROVED: clients, Redis, JetStream and PostgreSQL tell the same story."
    failed = [check.name for check in report.checks if not check.ok]
    failed += sorted({check.name for item in report.verifications for check in item.failed})
    return f"NOT PROVED: {', '.join(failed)} — see the lines marked FAILED."


def as_json(report: RunReport) -> dict[str, Any]:
    """The report as plain data; addresses of stores are left out, since they may carry passwords."""
    ledger = report.ledger
    return {
        "format": _FORMAT,
        "ok": report.ok,
        "started_at": report.started_at,
        "gateway_url": report.gateway_url,
        "load": {**asdict(report.load), "loop": "open" if report.load.rate else "closed"},
        "seconds": ledger.seconds,
        "bids": ledger.bids,
        "bids_per_s": ledger.bids / ledger.seconds if ledger.seconds else 0.0,
        "accepted": ledger.accepted,
        "refused": ledger.refused,
        "unknown": ledger.unknown,
        "failures": ledger.failures,
        "latency_ms": msgspec.to_builtins(ledger.latency),
        "full_load": {
            "seconds": ledger.window.seconds,
            "bids_per_s": ledger.window.bids_per_s,
            "latency_ms": msgspec.to_builtins(ledger.window.latency),
        },
        "cloudwatch": cloudwatch.plain(report.figures),
        "checks": [asdict(check) for check in report.checks],
        "items": [
            {
                "item_id": item.item_id,
                "ok": item.ok,
                "counts": dict(item.counts),
                "refused_by_code": ledger.items[item.item_id].refused,
                "failed_by_reason": ledger.items[item.item_id].failed,
                "unknown": asdict(resolution),
                "checks": [asdict(check) for check in item.checks],
            }
            for item, resolution in zip(report.verifications, report.resolutions, strict=True)
        ],
    }


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a report, making its folder where needed.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n")
