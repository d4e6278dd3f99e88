"""The ladder: step by step more users, each step measured, explained and proved."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import click

from infrastructure.local.processes import ManagedProcess, ProcessSpec
from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.servers.probes import http_ready
from load_tests.experiments.common import facts
from load_tests.experiments.common.bottleneck import limit_of
from load_tests.experiments.common.gateway_clock import read_buckets, time_between
from load_tests.experiments.common.guard import Refused
from load_tests.experiments.common.insights import Insights
from load_tests.experiments.common.platform import Platform
from load_tests.experiments.common.progress import done, step_bar
from load_tests.experiments.common.results import LadderStep, ProofSummary, Use
from load_tests.experiments.common.sampling import GENERATOR, measured, sampling
from load_tests.experiments.common.session import Session
from load_tests.experiments.contention.proving import proof_of_step, proof_of_yardstick
from load_tests.generator.driver import USERS_PER_PROCESS_MAX, Load, gateway_client, open_items, run_locust
from load_tests.generator.ledger import Ledger, Window
from load_tests.generator.plain.driver import run_plain
from load_tests.generator.tally import Progress
from load_tests.proof.verify import open_sources
from load_tests.run.tag import run_tag
from shared.aws.clients import AwsError
from shared.clients.redis import open_redis

Strategy = Literal["lua", "optimistic", "plain-lua"]
Generator = Literal["locust", "plain"]
PATIENCE_S = 60
"""How long a user waits for an answer. A crowd in a closed loop waits long, and the percentiles must show it."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """The steps to take: each of ``duration_s`` seconds with all its users. ``rate`` above 0 makes them open runs.
    ``generator``: Locust's users, or plain connections, which leave more of a small machine to the platform.
    ``ecs_cluster``: of a target on AWS, whose services are looked at; empty for none."""

    users: tuple[int, ...]
    duration_s: int
    items: int = 1
    rate: float = 0.0
    processes: int = 2
    strategy: Strategy = "lua"
    quota: float = 0.0
    generator: Generator = "locust"
    ecs_cluster: str = ""

    def load_of(self, users: int) -> Load:
        """One step on items of its own, with as many processes as so many users need."""
        tag = run_tag()
        return Load(
            users=users,
            run_s=self.duration_s,
            item_ids=[f"ladder-{tag}-{number}" for number in range(1, self.items + 1)],
            tag=tag,
            rate=self.rate,
            processes=min(users, max(self.processes, math.ceil(users / USERS_PER_PROCESS_MAX))),
            patience_s=PATIENCE_S,
        )


async def climb(session: Session, platform: Platform, ladder: Ladder) -> bool:
    """Take all steps; each is in the session's file when it is done. Returns whether every step that can be was proved.

    Raises:
        LoadError: the load could not be made.
        Refused: the strategy needs a Redis that was not named.
    """
    async with _strategy(platform, ladder.strategy) as (gateway_url, more_roots):
        for users in ladder.users:
            step = await _step(platform, ladder, ladder.load_of(users), gateway_url, more_roots)
            session.result.ladder.append(step)
            session.save()
            done(line_of(step))
    return all(step.proof.ok is not False for step in session.result.ladder)


def line_of(step: LadderStep) -> str:
    """A step as a line for people."""
    proved = {True: "proved", False: f"NOT PROVED: {'; '.join(step.proof.statements[:2])}", None: "no proof possible"}
    times = step.latency
    return (
        f"{step.users:6,} users  {step.bids_per_s:8,.0f} bids/s ({step.accepted_per_s:,.0f} accepted)  "
        f"p50 {times.p50_ms:,.0f}  p95 {times.p95_ms:,.0f}  p99 {times.p99_ms:,.0f} ms  "
        f"failures {step.failures:,}  limit {step.limit.what}  {proved[step.proof.ok]}"
    )


async def _step(
    platform: Platform, ladder: Ladder, load: Load, gateway_url: str, more_roots: Mapping[str, list[int]]
) -> LadderStep:
    makers: list[int] = []

    def roots() -> Mapping[str, list[int]]:
        return {**platform.roots(), **more_roots, GENERATOR: makers}

    with tempfile.TemporaryDirectory(prefix="bidding-ladder-") as scratch:
        label = f"{load.users:,} users"
        async with (
            gateway_client(gateway_url) as client,
            sampling(roots) as samples,
            step_bar(label, load.ramp_s + load.run_s) as bar,
        ):

            def heard(line: Progress) -> None:
                bar.note = f"{line.bids_per_s:,.0f} bids/s, {line.users:,} users, {line.failures:,} failures"

            await open_items(client, load.item_ids, load.tag)
            counted_before = await read_buckets(client)
            run_load = run_plain if ladder.generator == "plain" else run_locust
            ledger = await run_load(gateway_url, load, Path(scratch), heard, started=makers.append)
            counted = await read_buckets(client)
        proof, retries = await _proved(platform, ladder.strategy, gateway_url, load, ledger)
    window = ledger.window
    found = measured(samples, window.began_s, window.began_s + window.seconds, facts.usable_cores())
    if ladder.ecs_cluster:
        found = replace(found, components=await _on_ecs(ladder.ecs_cluster, window))
    return LadderStep(
        users=load.users,
        items=len(load.item_ids),
        strategy=ladder.strategy,
        loop="open" if load.rate else "closed",
        offered_per_s=load.rate,
        processes=load.processes,
        made_by=ladder.generator,
        seconds=round(window.seconds, 2),
        bids_per_s=round(window.bids_per_s, 1),
        accepted_per_s=round(window.accepted / window.seconds, 1) if window.seconds else 0.0,
        requests_per_s=round((window.bids + window.failures + window.looks) / window.seconds, 1)
        if window.seconds
        else 0.0,
        latency=window.latency,
        bids=ledger.bids,
        accepted=ledger.accepted,
        unknown=ledger.unknown,
        failures=ledger.failures,
        proof=proof,
        limit=limit_of(
            found,
            offered_per_s=load.rate,
            reached_per_s=(window.bids + window.looks) / window.seconds if window.seconds else 0.0,
            quota=ladder.quota,
        ),
        generator=found.generator,
        generator_share=found.share,
        machine_busy=found.busy,
        others_cpu=found.others,
        components=found.components,
        retries=retries,
        gateway_time=time_between(counted_before, counted, bids=ledger.bids),
    )


async def _on_ecs(cluster: str, window: Window) -> dict[str, Use]:
    try:
        used = await Insights(cluster).between(window.began_s, window.began_s + window.seconds)
    except AwsError as error:
        click.echo(f"  What the services used is not known: {error}", err=True)
        return {}
    if not used:
        click.echo("  What the services used is not known: no whole minute of the clock lay in the step.", err=True)
    return used


async def _proved(
    platform: Platform, strategy: Strategy, gateway_url: str, load: Load, ledger: Ledger
) -> tuple[ProofSummary, int]:
    targets = platform.targets
    if targets is None:
        return ProofSummary(ok=None, accepted=ledger.accepted, statements=["the stores were not named"]), 0
    async with gateway_client(gateway_url) as client:
        if strategy != "lua":
            async with contextlib.aclosing(open_redis(targets.redis_url, timeout_s=10.0)) as redis:
                stats = (await client.get("/stats")).json()
                return await proof_of_yardstick(redis, load, ledger), int(stats["retries"])
        async with open_sources(
            redis_url=targets.redis_url, nats_url=targets.nats_url, postgres_url=targets.postgres_url
        ) as sources:
            return await proof_of_step(client, sources, load, ledger), 0


@contextlib.asynccontextmanager
async def _strategy(platform: Platform, strategy: Strategy) -> AsyncIterator[tuple[str, Mapping[str, list[int]]]]:
    """The gateway that decides by this strategy, and its process if this run starts it."""
    if strategy == "lua":
        yield platform.gateway_url, {}
        return
    if platform.targets is None or platform.data_dir is None:
        raise Refused(f"--strategy {strategy} runs a gateway of its own beside a platform on this machine")
    (port,) = free_ports(1)
    name = f"{strategy} gateway"
    process = ManagedProcess(
        ProcessSpec(
            name=name,
            argv=(sys.executable, "-m", "load_tests.optimistic.gateway"),
            env=os.environ | {"GATEWAY_PORT": str(port), "REDIS_URL": platform.targets.redis_url, "DECIDER": strategy},
            log=platform.data_dir / "logs" / "yardstick.log",
            ready=http_ready(HOST, port, "/ready"),
            address=f"http://{HOST}:{port}",
        )
    )
    process.spawn()
    try:
        await process.wait_ready()
        click.echo(f"  {strategy}: a small gateway beside the platform, on the same Redis")
        assert process.pid is not None
        yield f"http://{HOST}:{port}", {name: [process.pid]}
    finally:
        await process.stop()
