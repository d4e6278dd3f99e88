"""What an experiment is run on: the platform that is named, the one that is up here, or a private one for this run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from typing_extensions import override

from infrastructure.docker.addresses import compose_urls, compose_variables
from infrastructure.local.reporting import Reporter
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from infrastructure.local.state import RunRecord, living, run_path
from load_tests.experiments.common.containers import Project
from load_tests.experiments.common.guard import (
    Refused,
    ask_before_leaving,
    is_local,
    require_allowance,
    require_answer,
    require_room,
)
from load_tests.experiments.common.results import Backend
from load_tests.targets import CROWD_ENV, SETTINGS, Targets, choose_targets, running_targets


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line names. ``private`` asks for a stack of its own, whatever is up."""

    target: str | None = None
    feed_url: str | None = None
    redis_url: str | None = None
    nats_url: str | None = None
    postgres_url: str | None = None
    compose: bool = False
    aws: bool = False
    data_dir: Path = Path(".bidding")
    private: bool = False
    yes: bool = False


@dataclass(frozen=True, slots=True)
class Platform:
    """A platform that answers. ``targets`` is None where its stores were not named: then nothing can be proved.

    ``roots`` gives the process ids of each component, where it runs here and is known; ``stack`` is there where the
    experiment started it.
    """

    backend: Backend
    label: str
    gateway_url: str
    feed_url: str | None
    targets: Targets | None
    roots: Callable[[], Mapping[str, list[int]]]
    stack: Stack | None = None
    data_dir: Path | None = None


@asynccontextmanager
async def open_platform(
    asked: Asked,
    scratch: Path,
    *,
    connections: Mapping[str, int] | None = None,
    cache_nodes: int = 0,
) -> AsyncIterator[Platform]:
    """Find or start it, and make sure that it may be loaded.

    Args:
        scratch: for the data of a private stack.
        connections: how many connections each service will have, by its name, such as ``api_gateway``.
        cache_nodes: of a private stack.

    Raises:
        Refused: it does not answer, may not be loaded, or has too few descriptors.
        TargetError: its addresses are incomplete.
        StackError: a private one did not start.
    """
    platform = None if asked.private else await _found(asked)
    if platform is not None:
        ask_before_leaving([url for url in _urls(platform) if url], yes=asked.yes)
        await require_answer(platform.gateway_url)
        _require_room(platform, connections or {})
        yield platform
        return
    click.echo("Starting a private platform for this run.")
    async with Stack(
        scratch / "stack", ports=Ports.free(), reporter=StackProgress(), cache_nodes=cache_nodes, env=CROWD_ENV
    ) as stack:
        platform = platform_of(stack)
        _require_room(platform, connections or {})
        yield platform


def platform_of(stack: Stack, label: str = "private embedded stack") -> Platform:
    """A stack of this process as a platform."""
    urls = stack.urls
    return Platform(
        backend="embedded",
        label=label,
        gateway_url=urls.gateway_url,
        feed_url=urls.broadcast_url,
        targets=Targets(urls.gateway_url, urls.redis_url, urls.nats_url, urls.postgres_url),
        roots=lambda: {name: [each.pid] for name, each in stack.processes.items() if each.pid is not None},
        stack=stack,
        data_dir=stack.data_dir,
    )


async def _found(asked: Asked) -> Platform | None:
    running = running_targets(asked.data_dir)
    backend: Backend = "aws" if asked.aws else "named"
    if asked.aws and not asked.target:
        raise Refused("--aws says where the target is: --target names it")
    if asked.compose:
        urls = compose_urls(compose_variables(os.environ))
        feed_url = f"http://127.0.0.1:{os.environ.get('BROADCAST_PORT') or 8081}"
        containers = await Project().pids()
        return Platform("compose", "compose stack", urls["gateway_url"], feed_url, Targets(**urls), lambda: containers)
    given = {
        "gateway_url": asked.target,
        "redis_url": asked.redis_url,
        "nats_url": asked.nats_url,
        "postgres_url": asked.postgres_url,
    }
    stores = [given[name] for name in SETTINGS if name != "gateway_url" and given[name]]
    if asked.target and not stores and (running is None or running.gateway_url != asked.target):
        # Its stores may be out of reach, as in a VPC: then the result says that the load was not proved.
        return Platform(backend, asked.target, asked.target, asked.feed_url, None, lambda: {})
    targets = choose_targets(given, running)
    if targets is None:
        return None
    if running == targets:
        return _running(asked.data_dir, targets)
    return Platform(backend, targets.gateway_url, targets.gateway_url, asked.feed_url, targets, lambda: {})


def _running(data_dir: Path, targets: Targets) -> Platform:
    record = RunRecord.read(run_path(data_dir))
    if record is None:
        raise Refused(f"the platform in {data_dir} went away")
    return Platform(
        backend="embedded",
        label="running embedded stack",
        gateway_url=targets.gateway_url,
        feed_url=record.urls.get("broadcast_url"),
        targets=targets,
        roots=lambda: _alive(data_dir),
        data_dir=data_dir,
    )


def _alive(data_dir: Path) -> dict[str, list[int]]:
    record = RunRecord.read(run_path(data_dir))
    return {} if record is None else {name: [process.pid] for name, process in living(record).items()}


def _urls(platform: Platform) -> list[str | None]:
    stores = [getattr(platform.targets, name) for name in SETTINGS] if platform.targets else []
    return [platform.gateway_url, platform.feed_url, *stores]


def _require_room(platform: Platform, connections: Mapping[str, int]) -> None:
    roots = platform.roots()
    for service, count in connections.items():
        pids = [pid for name, found in roots.items() if name.startswith(service) for pid in found]
        require_room(pids, count, service)
        if service == "api_gateway" and is_local(platform.gateway_url):
            require_allowance(pids, count)


class StackProgress(Reporter):
    """One line per part of a private platform that is ready."""

    @override
    def step_done(self, label: str, seconds: float, note: str) -> None:
        if not label.startswith("stop"):
            click.echo(f"  {label} {seconds:.1f} s")
