"""What the reference reports claim, and what measured files say of it. The claims are in ``claims.json``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec

from load_tests.experiments.common.results import LadderStep, Result

CLAIMS_FILE: Final = Path(__file__).with_name("claims.json")
Status = Literal["reproduced", "refuted", "untestable"]


class Claim(msgspec.Struct, frozen=True):
    """One of them. ``corrected`` is the reported figure after what ``why`` says is taken into account.

    ``rule``: what the measured figure has to be: ``within`` the share ``bound`` of the claim's figure, ``at most`` or
    ``more than`` the bound; ``none`` where nothing can be measured.
    """

    id: str
    source: str
    claim: str
    unit: str
    metric: str
    rule: Literal["within", "at most", "more than", "none"]
    bound: float
    reported: float | None = None
    corrected: float | None = None
    why: str = ""
    users: int = 0

    @property
    def figure(self) -> float | None:
        """The figure with which ours is compared."""
        return self.reported if self.corrected is None else self.corrected


@dataclass(frozen=True, slots=True)
class Judged:
    """A claim with the measured figure, None where no file has it."""

    claim: Claim
    status: Status
    measured: float | None
    note: str = ""


def read_claims(path: Path = CLAIMS_FILE) -> list[Claim]:
    """All of them."""
    return msgspec.json.decode(path.read_bytes(), type=list[Claim])


def judge(claims: Sequence[Claim], results: Sequence[Result]) -> list[Judged]:
    """Hold each against the files. One that no file measures is untestable, and says what would be needed."""
    # Where several files tell of the same, the newest counts, in whatever order they are named.
    newest_first = sorted(results, key=lambda result: result.started_at, reverse=True)
    return [_judge(claim, newest_first) for claim in claims]


def _judge(claim: Claim, results: Sequence[Result]) -> Judged:
    if claim.rule == "none":
        return Judged(claim, "untestable", None, claim.why)
    metric, needed = _METRICS[claim.metric]
    measured = metric(results, claim.users)
    if measured is None:
        return Judged(claim, "untestable", None, needed.format(users=f"{claim.users:,}"))
    return Judged(claim, "reproduced" if _holds(claim, measured) else "refuted", measured, claim.why)


def _holds(claim: Claim, measured: float) -> bool:
    if claim.rule == "at most":
        return measured <= claim.bound
    if claim.rule == "more than":
        return measured > claim.bound
    figure = claim.figure
    assert figure
    return abs(measured - figure) <= claim.bound * figure


def ladder_steps(results: Sequence[Result], *kinds: str) -> list[LadderStep]:
    """The closed steps of the platform itself, of ladders of these kinds."""
    found = [step for result in results if result.kind in kinds for step in result.ladder]
    return [step for step in found if step.strategy == "lua" and step.loop == "closed" and step.items == 1]


def rivals(results: Sequence[Result]) -> dict[str, dict[int, LadderStep]]:
    """Steps by strategy and users, of the machine, the platform and the kind of load where WATCH/MULTI was measured
    last: those of another one would compare the machines, or what the load left of them."""
    ladders = [result for result in results if result.kind == "contention"]
    theirs = [result for result in ladders if any(step.strategy == "optimistic" for step in result.ladder)]
    of: dict[str, dict[int, LadderStep]] = {"lua": {}, "plain-lua": {}, "optimistic": {}}
    if not theirs:
        return of
    newest = max(theirs, key=lambda result: result.started_at)
    made_by = next(step.made_by for step in newest.ladder if step.strategy == "optimistic")
    for result in sorted(ladders, key=lambda result: result.started_at):
        if (result.backend, result.machine) == (newest.backend, newest.machine):
            for step in result.ladder:
                if step.loop == "closed" and step.items == 1 and step.made_by == made_by:
                    of[step.strategy][step.users] = step
    return of


def _cloud(results: Sequence[Result]) -> list[LadderStep]:
    """Steps of ladders on AWS. If there are none, those of the twin, if that has delays and quotas as a cloud has."""
    aws = ladder_steps([result for result in results if result.backend == "aws"], "contention")
    return aws or ladder_steps([result for result in results if _is_like_a_cloud(result)], "network")


def _is_like_a_cloud(result: Result) -> bool:
    delays = result.settings.get("delays_s")
    return result.settings.get("cpu") != 0 and not (isinstance(delays, dict) and not any(delays.values()))


def _cloud_best(results: Sequence[Result], users: int) -> float | None:
    return max((step.bids_per_s for step in _cloud(results)), default=None)


def _cloud_at(results: Sequence[Result], users: int) -> float | None:
    return next((step.bids_per_s for step in _cloud(results) if step.users == users), None)


def _up_to(results: Sequence[Result], users: int) -> list[LadderStep]:
    steps = ladder_steps(results, "contention")
    return steps if any(step.users >= users for step in steps) else []


def _failures(results: Sequence[Result], users: int) -> float | None:
    steps = _up_to(results, users)
    return float(sum(step.failures for step in steps)) if steps else None


def _lost(results: Sequence[Result], users: int) -> float | None:
    """A step that was not proved counts as lost; one that could not be proved makes the claim untestable."""
    steps = _up_to(results, users)
    if not steps or any(step.proof.ok is None for step in steps):
        return None
    return float(sum(max(step.proof.lost_updates, step.proof.ok is False) for step in steps))


def _script_over_optimistic(results: Sequence[Result], users: int) -> float | None:
    """The least ratio over all numbers of users that both have; the small gateway with a script is the fairer rival."""
    of = rivals(results)
    script, theirs = of["plain-lua"] or of["lua"], of["optimistic"]
    ratios = [
        script[each].accepted_per_s / theirs[each].accepted_per_s
        for each in script.keys() & theirs.keys()
        if theirs[each].accepted_per_s
    ]
    return min(ratios, default=None)


def _limited_by_load(results: Sequence[Result], users: int) -> float | None:
    steps = ladder_steps(results, "contention")
    return float(sum(step.limit.what in ("generator", "machine") for step in steps)) if steps else None


Metric = Callable[[Sequence[Result], int], float | None]
_METRICS: Final[dict[str, tuple[Metric, str]]] = {
    "cloud_best_bids_per_s": (_cloud_best, "needs a ladder on AWS, or the twin of `experiment network`"),
    "cloud_bids_per_s_at": (_cloud_at, "needs a step with {users} users on AWS, or of the twin"),
    "failures_up_to": (_failures, "needs a ladder up to {users} users"),
    "lost_updates_up_to": (_lost, "needs a ladder up to {users} users, with a proof after each step"),
    "script_over_optimistic": (_script_over_optimistic, "needs ladders with both strategies and the same users"),
    "steps_limited_by_the_load": (_limited_by_load, "needs a ladder"),
}
