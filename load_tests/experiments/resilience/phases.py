"""Baseline, failure, recovery: the same people in all three, and the proof at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import asyncpg
from redis.exceptions import RedisError

from load_tests.experiments.common.guard import Refused
from load_tests.experiments.common.platform import Platform
from load_tests.experiments.common.progress import done, step_bar
from load_tests.experiments.common.results import Phase, ProofSummary
from load_tests.experiments.common.session import Session
from load_tests.experiments.resilience.breakers import Breaker, breaker_for
from load_tests.experiments.resilience.pressure import PhaseCounts, Pressure
from load_tests.generator.driver import gateway_client, open_items
from load_tests.generator.ledger import latency_of
from load_tests.proof.settle import Proof, prove
from load_tests.proof.verify import Sources, item_versions, missing_in_archive, open_sources
from load_tests.run.tag import run_tag
from shared.supervision import heed_cancellation

_WORKS_AGAIN_S: Final = 120.0
_LOOK_EVERY_S: Final = 0.1
_REST_S: Final = 20.0
_ON_THE_WAY_S: Final = 0.2
_FAILED_CHECK: Final = "no_failures"
"""The check of the proof that is ignored: the phases count failed requests, which are no fault of the stores."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which part fails, and for how long the phases last, in seconds."""

    kill: str
    phase_s: int
    bidders: int = 20
    viewers: int = 3
    items: int = 4
    pause_s: float = 0.05
    cluster: str = ""


async def endure(session: Session, platform: Platform, plan: Plan) -> bool:
    """Run the three phases. Returns whether all works again and the proof holds.

    Raises:
        Refused: the part cannot be made to fail here, or the place has no feed or no stores.
    """
    if platform.targets is None or platform.feed_url is None:
        raise Refused("a resilience run needs the stores and the live feed: name them beside --target")
    breaker = breaker_for(platform, plan.kill, cluster=plan.cluster)
    session.result.notes.append(breaker.how)
    tag = run_tag()
    item_ids = [f"resil-{tag}-{number}" for number in range(1, plan.items + 1)]
    targets = platform.targets
    async with (
        gateway_client(platform.gateway_url) as client,
        open_sources(
            redis_url=targets.redis_url, nats_url=targets.nats_url, postgres_url=targets.postgres_url
        ) as sources,
    ):
        await open_items(client, item_ids, tag)
        pressure = Pressure(client, platform.feed_url, item_ids, tag)
        async with pressure.applied(bidders=plan.bidders, viewers=plan.viewers, pause_s=plan.pause_s):
            await _bar("baseline", plan.phase_s)
            _keep(session, plan, "baseline", pressure.next_phase())
            killed_s = time.monotonic()
            async with _broken(breaker):
                # Frames that were on their way when it was killed would hide that viewers are shown nothing.
                await asyncio.sleep(_ON_THE_WAY_S)
                pressure.counts.frames = 0
                await _bar(f"failure of {plan.kill}", plan.phase_s)
                _keep(session, plan, "failure", pressure.next_phase())
            works = await _works_again(sources, pressure, item_ids)
            recovered_s = time.monotonic() - killed_s
            await _bar("recovery", plan.phase_s)
            recovery = pressure.next_phase()
            phase = _phase(plan, "recovery", recovery)
            await pressure.stop_bidding()
            viewers_caught_up = await _viewers_reach_the_end(sources, pressure, item_ids)
            await _archive_reaches_the_end(sources, item_ids)
        phase.recovered_s = round(recovered_s, 2) if works else None
        proof = await prove(client, sources, item_ids, pressure.tally.close(), redelivery_allowed=True)
        phase.proof = _summary(pressure, proof)
        phase.checks |= {
            "everything works again": works,
            "every viewer ends at the newest version": viewers_caught_up,
            "nothing acknowledged is lost or doubled": bool(phase.proof.ok),
        }
        session.result.phases.append(phase)
        session.save()
        done(line_of(phase))
    return works and viewers_caught_up and phase.proof.ok is True


@contextlib.asynccontextmanager
async def _broken(breaker: Breaker) -> AsyncIterator[None]:
    """While the block runs. A run that is cut off in it leaves nothing broken behind."""
    try:
        await breaker.kill()
        yield
        await breaker.bring_back()
    except BaseException:
        with contextlib.suppress(Refused):
            await breaker.give_back()
        raise


def line_of(phase: Phase) -> str:
    """A phase as a line for people."""
    codes = ", ".join(f"{code} {count}" for code, count in sorted(phase.codes.items()))
    back = f"  all works again {phase.recovered_s:.1f} s after the kill" if phase.recovered_s is not None else ""
    return (
        f"{phase.name:9} {phase.bids_per_s:6,.0f} bids/s  p99 {phase.latency.p99_ms:,.0f} ms  "
        f"failures {phase.failures}{f' ({codes})' if codes else ''}  frames {phase.frames:,}  "
        f"reads {phase.reads:,}, {phase.reads_failed} failed{back}"
    )


def _keep(session: Session, plan: Plan, name: str, counts: PhaseCounts) -> None:
    phase = _phase(plan, name, counts)
    session.result.phases.append(phase)
    session.save()
    done(line_of(phase))


def _phase(plan: Plan, name: str, counts: PhaseCounts) -> Phase:
    seconds = counts.seconds
    return Phase(
        name=name,  # type: ignore[arg-type]
        victim=plan.kill,
        seconds=round(seconds, 2),
        bids=counts.bids,
        bids_per_s=round(counts.bids / seconds, 1),
        latency=latency_of(dict(counts.times)),
        failures=counts.failures,
        frames=counts.frames,
        codes=dict(counts.codes),
        reads=counts.reads,
        reads_failed=counts.reads_failed,
        read_latency=latency_of(dict(counts.read_times)),
        checks={
            "bids get verdicts": counts.bids > 0,
            "viewers are shown bids": counts.frames > 0,
            "histories and lists are read": counts.reads > counts.reads_failed,
        },
    )


async def _bar(label: str, seconds: float) -> None:
    async with step_bar(label, seconds):
        await asyncio.sleep(seconds)


async def _works_again(sources: Sources, pressure: Pressure, item_ids: list[str]) -> bool:
    """Wait until a bid got a verdict, and the archive and every viewer are beyond where Redis was when that wait
    began."""
    deadline_s = time.monotonic() + _WORKS_AGAIN_S
    wanted: dict[str, tuple[int, int]] = {}
    bids = pressure.counts.bids
    while time.monotonic() < deadline_s:
        try:
            live, archived = await item_versions(sources, item_ids)
            if not wanted and len(live) == len(item_ids) and pressure.counts.bids > bids:
                wanted = live
            shown = all(_reached(seen, wanted) for seen in pressure.shown.values())
            if wanted and shown and _reached(archived, wanted) and not await missing_in_archive(sources, wanted):
                return True
        except (RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            # What was killed starts: it reads its data, or takes no connections yet.
            heed_cancellation()
        await asyncio.sleep(_LOOK_EVERY_S)
    return False


def _reached(seen: dict[str, tuple[int, int]], wanted: dict[str, tuple[int, int]]) -> bool:
    return all(seen.get(item_id, (0, -1)) >= version for item_id, version in wanted.items())


async def _viewers_reach_the_end(sources: Sources, pressure: Pressure, item_ids: list[str]) -> bool:
    """Whether every viewer is shown the last version of each item, and no other, once nobody bids any more."""
    deadline_s = time.monotonic() + _REST_S
    while time.monotonic() < deadline_s:
        live, _ = await item_versions(sources, item_ids)
        if all(seen == live for seen in pressure.shown.values()):
            return True
        await asyncio.sleep(_LOOK_EVERY_S)
    return False


async def _archive_reaches_the_end(sources: Sources, item_ids: list[str]) -> None:
    """Wait until PostgreSQL has every event, at most as long as all may take to work again; the proof judges."""
    deadline_s = time.monotonic() + _WORKS_AGAIN_S
    live, _ = await item_versions(sources, item_ids)
    while time.monotonic() < deadline_s:
        if not await missing_in_archive(sources, live):
            return
        await asyncio.sleep(_LOOK_EVERY_S)


def _summary(pressure: Pressure, proof: Proof) -> ProofSummary:
    checks = [check for item in proof.verifications for check in item.checks if check.name != _FAILED_CHECK]
    failed = [f"{check.name}: {check.statement}" for check in checks if not check.ok]
    lost = sum(max(0, item.counts["accepted"] - item.counts["rows"]) for item in proof.verifications)
    return ProofSummary(
        ok=bool(proof.verifications) and not failed,
        accepted=sum(item.counts["accepted"] for item in proof.verifications),
        lost_updates=lost,
        checks=len(checks),
        statements=failed[:10],
    )
