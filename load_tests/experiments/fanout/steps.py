"""A step: so many viewers of one item, bids at a pace, and what of it arrived when."""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from load_tests.experiments.common import facts
from load_tests.experiments.common.bottleneck import limit_of
from load_tests.experiments.common.guard import Refused, is_local
from load_tests.experiments.common.platform import Platform
from load_tests.experiments.common.progress import done, step_bar
from load_tests.experiments.common.results import FanoutStep
from load_tests.experiments.common.sampling import GENERATOR, measured, sampling
from load_tests.experiments.common.session import Session
from load_tests.generator.crowd import Viewers
from load_tests.generator.driver import gateway_client, open_items
from load_tests.generator.histogram import merged
from load_tests.generator.ledger import latency_of
from load_tests.generator.paced_bidder import PacedBidder
from load_tests.run.tag import run_tag

VIEWERS_PER_PROCESS_MAX: Final = 5_000
_PER_ADDRESS: Final = 500
_ARRIVE_S: Final = 15.0
_CLOSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Fanout:
    """The steps to take: each ``duration_s`` seconds of ``rate`` bids a second before so many viewers, and ``slow``
    more who stop reading after their first frame."""

    connections: tuple[int, ...]
    duration_s: int
    rate: float = 5.0
    slow: int = 0
    processes: int = 1

    def processes_for(self, viewers: int) -> int:
        """How many processes hold so many viewers."""
        return min(viewers, max(self.processes, math.ceil((viewers + self.slow) / VIEWERS_PER_PROCESS_MAX)))


async def fan_out(session: Session, platform: Platform, plan: Fanout) -> bool:
    """Take all steps. Returns whether every viewer got every bid and ended at the newest price.

    Raises:
        Refused: the place has no live feed that these viewers can speak to.
        LoadError: a bid was not accepted.
        click.ClickException: a process of viewers ended.
    """
    if platform.feed_url is None or urlsplit(platform.feed_url).scheme not in ("http", "ws"):
        raise Refused("--feed-url names the live feed, such as http://127.0.0.1:8081; these viewers speak no TLS")
    for viewers in plan.connections:
        step = await _step(platform, platform.feed_url, plan, viewers)
        session.result.fanout.append(step)
        session.save()
        done(line_of(step))
    return all(_complete(step) for step in session.result.fanout)


def _complete(step: FanoutStep) -> bool:
    return step.delivered == step.expected and step.at_newest == step.viewers and step.went_back == 0


def line_of(step: FanoutStep) -> str:
    """A step as a line for people."""
    sent = step.sent_to_frame
    slow = f" + {step.slow} slow" if step.slow else ""
    return (
        f"{step.viewers:6,} viewers{slow}  {step.delivered / max(1, step.expected):.2%} of {step.expected:,} told  "
        f"bid to frame p50 {sent.p50_ms:,.1f}  p95 {sent.p95_ms:,.1f}  p99 {sent.p99_ms:,.1f} ms  "
        f"at the newest {step.at_newest:,}  limit {step.limit.what}"
    )


async def _step(platform: Platform, feed_url: str, plan: Fanout, viewers: int) -> FanoutStep:
    processes = plan.processes_for(viewers)
    pids: list[int] = []

    def roots() -> Mapping[str, list[int]]:
        return {**platform.roots(), GENERATOR: pids}

    item_id = f"fan-{run_tag()}"
    label = f"{viewers:,} viewers"
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(gateway_client(platform.gateway_url))
        await open_items(client, [item_id], "fan-out")
        bidder = PacedBidder(client, item_id, item_id)
        await bidder.bid()
        samples = await stack.enter_async_context(sampling(roots))
        bar = await stack.enter_async_context(step_bar(label, plan.duration_s))
        bar.note = "connecting"
        began_s = time.monotonic()
        crowds = [
            await stack.enter_async_context(_crowd(feed_url, item_id, share, slow))
            for share, slow in zip(_shares(viewers, processes), _shares(plan.slow, processes), strict=True)
        ]
        connect_s = time.monotonic() - began_s
        pids += [crowd.pid for crowd in crowds]
        # The samples that count begin once the connecting is over.
        await asyncio.gather(*(crowd.ask("mark") for crowd in crowds))
        bar.note = f"{plan.rate:g} bids/s"
        start_s = time.monotonic()
        seconds = await bidder.bid_at(plan.rate, plan.duration_s)
        end_s = time.monotonic()
        bids = len(bidder.books.accepted) - 1
        report = await _arrived(crowds, bids * viewers, viewers)
        if plan.slow:
            report = await _with_closed(crowds, report, plan.slow)
    found = measured(samples, start_s, end_s, facts.usable_cores())
    frames_due = plan.rate * viewers
    return FanoutStep(
        viewers=viewers,
        slow=plan.slow,
        rate=plan.rate,
        seconds=round(seconds, 2),
        connect_s=round(connect_s, 2),
        bids=bids,
        expected=bids * viewers,
        delivered=report["bids"],
        at_newest=report["at_newest"],
        went_back=report["fell_back"],
        sent_to_frame=latency_of(report["since_sent"]),
        decided_to_frame=latency_of(report["since_decided"]),
        limit=limit_of(found, offered_per_s=frames_due, reached_per_s=report["bids"] / max(seconds, plan.duration_s)),
        closed=report["closed"],
        generator=found.generator,
        generator_share=found.share,
        machine_busy=found.busy,
        others_cpu=found.others,
        components=found.components,
    )


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (number < total % parts) for number in range(parts)]


def _crowd(feed_url: str, item_id: str, viewers: int, slow: int) -> Any:
    """Viewers here come from many loopback addresses, as people do: the feed bounds connections per address."""
    parts = urlsplit(feed_url)
    from_many = sys.platform == "linux" and is_local(feed_url)
    return Viewers.watching(
        parts.port or 80,
        f"/ws/items/{item_id}",
        viewers,
        stalled=slow,
        host=parts.hostname or "127.0.0.1",
        addresses=f"127.{random.randint(1, 254)}.{random.randint(1, 254)}" if from_many else "",
        per_address=_PER_ADDRESS,
    )


async def _arrived(crowds: list[Viewers], expected: int, viewers: int) -> dict[str, Any]:
    """What all viewers have counted, once everything has arrived, or long after it should have."""
    deadline_s = time.monotonic() + _ARRIVE_S
    while True:
        total = _total(await asyncio.gather(*(crowd.ask("report") for crowd in crowds)))
        if (total["bids"] >= expected and total["at_newest"] >= viewers) or time.monotonic() > deadline_s:
            return total
        await asyncio.sleep(0.2)


async def _with_closed(crowds: list[Viewers], report: dict[str, Any], slow: int) -> dict[str, Any]:
    """The same with the codes by which the slow viewers were closed, once they read again; some may still be open."""
    await asyncio.gather(*(crowd.ask("read") for crowd in crowds))
    await asyncio.sleep(_CLOSE_S)
    total = _total(await asyncio.gather(*(crowd.ask("report") for crowd in crowds)))
    closed = dict(total["stalled_closed"])
    still_open = slow - sum(closed.values())
    return {**report, "closed": closed | ({"open": still_open} if still_open else {})}


def _total(reports: list[dict[str, Any]]) -> dict[str, Any]:
    newest = max((tuple(each["newest"]) for each in reports if each["newest"]), default=None)
    sums = {name: sum(each[name] for each in reports) for name in ("frames", "bids", "fell_back")}
    histograms = {
        name: merged([{int(bucket): count for bucket, count in each[name].items()} for each in reports])
        for name in ("since_sent", "since_decided")
    }
    codes = {name: Counter[str]() for name in ("closed", "stalled_closed")}
    for name, counter in codes.items():
        for each in reports:
            counter.update(each[name])
    at_newest = sum(each["at_newest"] for each in reports if each["newest"] and tuple(each["newest"]) == newest)
    return {**sums, **histograms, **{name: dict(counter) for name, counter in codes.items()}, "at_newest": at_newest}
