"""Locust can load the scenario. In a process of its own: Locust patches the standard library of the process
that it is in.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from infrastructure.local.servers.ports import HOST
from load_tests.generator.driver import LOCUSTFILE, SCENARIOS
from tests.tcp import served_by_thread


def test_locust_finds_the_user_class_and_its_options() -> None:
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE)]
    folder = LOCUSTFILE.parent.parent
    ratio = subprocess.run(
        [*command, "--show-task-ratio-json", "--items", "a,b", "--spread", "5", "--books", "", "--users", "2"],
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(ratio.stdout)["total"] == {"ContendedBidder": {"ratio": 1.0, "tasks": {"act": {"ratio": 1.0}}}}


def test_each_scenario_is_a_locustfile_with_one_user_class() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "locust", "--locustfile", str(SCENARIOS), "--list"],
        cwd=SCENARIOS.parent.parent,
        capture_output=True,
        check=True,
        timeout=60,
        text=True,
    )
    names = {"ContendedBidder", "MixedBidder", "ReadingBidder", "Viewer", "WatchingBidder"}
    assert {line.strip() for line in listed.stdout.splitlines()} >= names
    assert len(list(SCENARIOS.glob("[!_]*.py"))) == len(names)


def test_a_bidder_begins_at_once_however_many_items_there_are() -> None:
    program = (
        "from load_tests.generator.users.settings import RUN\n"
        "from load_tests.scenarios.contended import ContendedBidder as Bidder\n"
        "looks = []\n"
        "RUN.item_ids = [f'load-{number}' for number in range(1_000)]\n"
        "Bidder.look = lambda self, item_id: looks.append(item_id)\n"
        "bidder = object.__new__(Bidder)\n"
        "bidder.on_start()\n"
        "bidder.act()\n"
        "raise SystemExit(len(looks))\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 1


def test_load_that_is_sent_elsewhere_does_not_go_there() -> None:
    """A target that redirects: what it names was not named by whoever started the load."""
    with _server(None) as (elsewhere, came_elsewhere), _server(elsewhere) as (target, came):
        command = [sys.executable, "-m", "locust", "--locustfile", str(SCENARIOS / "contended.py"), "--headless"]
        options = ["--host", target, "--users", "1", "--items", "a", "--exit-code-on-error", "0"]
        for seconds in (1, 5, 30):
            # On a busy machine the time may be over before the user has begun.
            run = [*command, *options, "--run-time", str(seconds)]
            subprocess.run(run, cwd=SCENARIOS.parent.parent, check=True, timeout=120, capture_output=True)
            if came:
                break
        assert came
        assert came_elsewhere == []


@contextlib.contextmanager
def _server(location: str | None) -> Iterator[tuple[str, list[str]]]:
    """A server that redirects to ``location``; its address, and the requests that came."""
    came: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            came.append(self.path)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(307 if location else 404)
            self.send_header("Location", f"{location}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer((HOST, 0), Handler)
    with served_by_thread(server):
        yield f"http://{HOST}:{server.server_port}", came
