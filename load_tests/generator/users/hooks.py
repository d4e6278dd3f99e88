"""How Locust learns of a run, and what it writes down. Importing this registers the hooks with Locust.

``python -m load_tests`` and ``bidding experiment`` run Locust headless in processes of its own. Then each second is
written to standard output as one JSON line, and each process writes its books to the folder ``--books``.
"""

from __future__ import annotations

import itertools
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
from locust.runners import MasterRunner
from locust.stats import RequestStats

from load_tests.generator.ledger import Latency, write_ledger
from load_tests.generator.tally import PROGRESS_INTERVAL_S, Progress, Tally
from load_tests.generator.users.base import BID_NAME
from load_tests.generator.users.settings import RUN
from shared.domain.money import exponent_of
from shared.names import is_item_id

_told: dict[str, dict[str, int]] = {}
"""In the master of a distributed run: the newest counts of each worker, by its id."""


def _add_options(parser: ArgumentParser) -> None:
    group: Any = parser.add_argument_group("bidding")

    def add(name: str, default: str | int | float, help_text: str) -> None:
        variable = "LOAD_" + name.strip("-").replace("-", "_").upper()
        group.add_argument(name, type=type(default), default=default, env_var=variable, help=help_text)

    add("--items", "load-1", "ids of the items, separated by commas; they must exist")
    add("--currency", "USD", "currency of the items")
    add("--run-tag", "load", "prefix of user and bid ids; new for every run")
    add("--bid-weight", 9, "how often a user bids, against looking")
    add("--look-weight", 1, "how often a user looks at the item")
    add("--spread", 100, "largest step above the least needed amount, in minor units")
    add("--think-ms", 0, "pause of a user between two actions, in milliseconds; the scenario's own where it is 0")
    add("--rate", 0.0, "open run: so many actions a second from all users, however slow the answers; 0: closed")
    add("--patience-s", 10.0, "how long a user waits for an answer, in seconds")
    add("--feed-url", "", "the live feed, such as ws://127.0.0.1:8081, for scenarios that watch")
    add("--books", "", "folder for the books of the run, for the proof")
    add("--progress-json", 0, "1: write one JSON line per second to standard output")


def _prepare(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    item_ids = [item_id.strip() for item_id in options.items.split(",") if item_id.strip()]
    wrong = [item_id for item_id in item_ids if not is_item_id(item_id)]
    if wrong or not item_ids:
        raise StopTest(f"--items: {wrong[0] if wrong else 'nothing'} is not an item id")
    if options.bid_weight < 1 or min(options.look_weight, options.spread, options.think_ms, options.rate) < 0:
        raise StopTest("--bid-weight must be at least 1, --look-weight, --spread, --think-ms and --rate at least 0")
    RUN.item_ids = item_ids
    RUN.tag = options.run_tag
    RUN.process = getattr(environment.runner, "worker_index", 0)
    RUN.bid_weight = options.bid_weight
    RUN.look_weight = options.look_weight
    RUN.spread_minor = options.spread
    RUN.exponent = exponent_of(options.currency)
    RUN.think_s = options.think_ms / 1_000
    RUN.pace_s = (options.num_users or 1) / options.rate if options.rate else 0.0
    RUN.timeout_s = options.patience_s
    RUN.feed_url = options.feed_url
    RUN.numbers = itertools.count(1)
    RUN.tally = Tally(item_ids)
    if options.progress_json and (isinstance(environment.runner, MasterRunner) or not options.worker):
        # Locust has patched the standard library: this is a greenlet beside the users, and ends with the
        # process.
        reporter = threading.Thread(target=_report_progress, args=(environment,), daemon=True, name="progress")
        reporter.start()


def _open_window(**_: Any) -> None:
    RUN.tally.open_window()


def _close_window(**_: Any) -> None:
    RUN.tally.close_window()


def _write_books(environment: Environment, **_: Any) -> None:
    options: Any = environment.parsed_options
    if options.books and not isinstance(environment.runner, MasterRunner):
        write_ledger(Path(options.books) / f"ledger-{RUN.process}.json", RUN.tally.close())


def _tell_master(data: dict[str, Any], **_: Any) -> None:
    data["bidding"] = _counts()


def _hear_worker(client_id: str, data: dict[str, Any]) -> None:
    _told[client_id] = data.get("bidding", {})


def _counts() -> dict[str, int]:
    tally = RUN.tally
    return {
        "accepted": tally.accepted,
        "refused": tally.refused,
        "unknown": tally.unknown,
        "failures": tally.failures,
    }


def _report_progress(environment: Environment) -> None:
    """One line per interval until the process ends."""
    start = before = time.monotonic()
    verdicts_before = 0
    while True:
        time.sleep(PROGRESS_INTERVAL_S)
        now = time.monotonic()
        all_counts = list(_told.values()) or [_counts()]
        total = {name: sum(counts.get(name, 0) for counts in all_counts) for name in _counts()}
        verdicts = total["accepted"] + total["refused"]
        line = Progress(
            seconds=now - start,
            users=environment.runner.user_count if environment.runner else 0,
            bids_per_s=(verdicts - verdicts_before) / (now - before),
            latency=_latency(environment.stats),
            **total,
        )
        click.echo(msgspec.json.encode(line))
        before, verdicts_before = now, verdicts


def _latency(stats: RequestStats) -> Latency:
    """The latencies as Locust has measured and rounded them; its master adds up those of its workers."""
    entry = stats.get(BID_NAME, "POST")
    p50, p95, p99 = (float(entry.get_response_time_percentile(share)) for share in (0.5, 0.95, 0.99))
    return Latency(p50, p95, p99, float(entry.max_response_time))


# Locust's hooks carry no types, so they are not used as decorators.
_hooks: Any = events
_hooks.init_command_line_parser.add_listener(_add_options)
_hooks.test_start.add_listener(_prepare)
_hooks.spawning_complete.add_listener(_open_window)
_hooks.test_stopping.add_listener(_close_window)
_hooks.report_to_master.add_listener(lambda client_id, data: _tell_master(data))
_hooks.worker_report.add_listener(_hear_worker)
_hooks.quitting.add_listener(_write_books)
