"""Locust's entry point: ``locust -f load_tests/locustfile.py --host http://127.0.0.1:8080 --items load-1``.

Works with Locust's own page as well as headless. ``python -m load_tests`` drives it headless and adds the
proof; then each interval is written to standard output as one JSON line and the books of the run to
``--ledger``.
"""

from __future__ import annotations

import os
import threading
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import click
import msgspec
from locust import events
from locust.env import Environment
from locust.exception import StopTest
from locust.stats import RequestStats

from load_tests.scenarios.contended import BID_NAME, ContendedBidder
from load_tests.tally import Latency, Progress, Tally, write_ledger
from shared.domain.money import exponent_of
from shared.names import is_item_id

__all__ = ["ContendedBidder"]

PROGRESS_INTERVAL_S = 1.0

ContendedBidder.host = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8080")


def _add_options(parser: ArgumentParser) -> None:
    group: Any = parser.add_argument_group("bidding")

    def add(name: str, default: str | int, help_text: str) -> None:
        variable = "LOAD_" + name.strip("-").replace("-", "_").upper()
        group.add_argument(name, type=type(default), default=default, env_var=variable, help=help_text)

    add("--items", "load-1", "ids of the items, separated by commas; they must exist")
    add("--currency", "USD", "currency of the items")
    add("--run-tag", "load", "prefix of user and bid ids; new for every run")
    add("--bid-weight", 9, "how often a user bids, against looking")
    add("--look-weight", 1, "how often a user looks at the item")
    add("--spread", 100, "largest step above the least needed amount, in minor units")
    add("--think-ms", 0, "pause of a user between two actions, in milliseconds")
    add("--ledger", "", "file for the books of the run, for the proof")
    add("--progress-json", 0, "1: write one JSON line per second to standard output")


def _prepare(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    item_ids = [item_id.strip() for item_id in options.items.split(",") if item_id.strip()]
    wrong = [item_id for item_id in item_ids if not is_item_id(item_id)]
    if wrong or not item_ids:
        raise StopTest(f"--items: {wrong[0] if wrong else 'nothing'} is not an item id")
    if options.bid_weight < 1 or options.look_weight < 0 or options.spread < 0 or options.think_ms < 0:
        raise StopTest("--bid-weight must be at least 1, --look-weight, --spread and --think-ms at least 0")
    think_s = options.think_ms / 1000
    ContendedBidder.item_ids = item_ids
    ContendedBidder.run_tag = options.run_tag
    ContendedBidder.bid_weight = options.bid_weight
    ContendedBidder.look_weight = options.look_weight
    ContendedBidder.spread_minor = options.spread
    ContendedBidder.exponent = exponent_of(options.currency)
    ContendedBidder.tally = Tally(item_ids)
    ContendedBidder.wait_time = lambda _user: think_s
    if options.progress_json:
        # Locust has patched the standard library: this is a greenlet beside the users, and ends with the
        # process.
        reporter = threading.Thread(
            target=_report_progress, args=(environment, ContendedBidder.tally), daemon=True, name="progress"
        )
        reporter.start()


def _write_books(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    if not options.ledger:
        return
    total = environment.stats.total
    seconds = (total.last_request_timestamp or total.start_time) - total.start_time
    ledger = ContendedBidder.tally.close(
        seconds=seconds, failures=total.num_failures, latency=_latency(environment.stats)
    )
    write_ledger(Path(options.ledger), ledger)


def _report_progress(environment: Environment, tally: Tally) -> None:
    """One line per interval until the process ends."""
    start = before = time.monotonic()
    verdicts_before = 0
    while True:
        time.sleep(PROGRESS_INTERVAL_S)
        now = time.monotonic()
        verdicts = tally.accepted + tally.refused
        line = Progress(
            seconds=now - start,
            users=environment.runner.user_count if environment.runner else 0,
            bids_per_s=(verdicts - verdicts_before) / (now - before),
            accepted=tally.accepted,
            refused=tally.refused,
            unknown=tally.unknown,
            failures=environment.stats.total.num_failures,
            latency=_latency(environment.stats),
        )
        click.echo(msgspec.json.encode(line))
        before, verdicts_before = now, verdicts


def _latency(stats: RequestStats) -> Latency:
    entry = stats.get(BID_NAME, "POST")
    p50, p95, p99 = (float(entry.get_response_time_percentile(share)) for share in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, float(entry.max_response_time))


# Locust's hooks carry no types, so they are not used as decorators.
_hooks: Any = events
_hooks.init_command_line_parser.add_listener(_add_options)
_hooks.test_start.add_listener(_prepare)
_hooks.quitting.add_listener(_write_books)
