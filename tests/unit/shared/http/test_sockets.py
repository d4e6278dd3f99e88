"""A server that cannot listen says so and ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from infrastructure.local.servers.ports import HOST, free_ports
from shared.http.sockets import NOT_STARTED, open_sockets, sockets_or_exit

ROOT = Path(__file__).parents[4]

# Another process begins to listen on the port while this one starts up.
_SERVER = """
import logging, socket, sys
import uvicorn
from shared.http.sockets import ListeningServer, sockets_or_exit
logging.basicConfig(level="ERROR")
port, own, is_taken = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "taken"
other = socket.socket()
other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        if is_taken:
            other.bind(("127.0.0.1", port))
            other.listen()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print("shut down", flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})
server = ListeningServer(uvicorn.Config(app, loop="uvloop", log_config=None))
server.run(sockets_or_exit("127.0.0.1", port, is_shared=False, own_port=own))
"""


def run(port: int, own: int, how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(port), str(own), how],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_port_that_is_taken_while_it_starts_ends_it() -> None:
    port, own = free_ports(2)
    process = run(port, own, "taken")
    said, error = process.communicate(timeout=60)
    assert process.returncode == NOT_STARTED
    assert f"port {port} was taken by another process" in error
    assert "shut down" in said, "what it had opened is closed"


def test_it_listens_on_both_ports() -> None:
    port, own = free_ports(2)
    process = run(port, own, "free")
    try:
        for each in (port, own):
            until_s = time.monotonic() + 30
            while True:
                try:
                    with urllib.request.urlopen(f"http://{HOST}:{each}/", timeout=5) as answer:
                        assert answer.status == 204
                    break
                except OSError:
                    assert time.monotonic() < until_s
                    time.sleep(0.05)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_a_port_that_is_taken_before_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        (own,) = free_ports(1)
        for first, second in ((port, own), (own, port)):
            with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as ended:
                sockets_or_exit(HOST, first, is_shared=True, own_port=second)
            assert ended.value.code == NOT_STARTED
    assert len(caplog.messages) == 2
    assert all("cannot listen" in line and "in use" in line for line in caplog.messages)


def test_without_a_share_uvicorn_opens_its_own_socket() -> None:
    assert open_sockets(HOST, 0, is_shared=False) is None


# It counts how often it looks whether it is to end.
_QUIET = """
import email.utils, signal, threading, time
import uvicorn
from shared.http.sockets import QuietServer
ticks = 0
class Counting(QuietServer):
    async def on_tick(self, counter):
        global ticks
        ticks += 1
        if ticks == 3:
            # Right after a look: the next one is a second away.
            threading.Timer(0.1, HOW).start()
            self.asked_at_s = time.monotonic() + 0.1
        return await super().on_tick(counter)
    async def shutdown(self, sockets=None):
        (date,) = [value.decode() for name, value in self.server_state.default_headers if name == b"date"]
        old_s = time.time() - email.utils.parsedate_to_datetime(date).timestamp()
        print(ticks, time.monotonic() - self.asked_at_s, old_s, flush=True)
async def app(scope, receive, send):
    pass
server = Counting(uvicorn.Config(app, port=0, loop="uvloop", lifespan="off", log_config=None))
"""


@pytest.mark.parametrize(
    ("how", "code"), [("lambda: signal.raise_signal(signal.SIGTERM)", -signal.SIGTERM), ("server.end", 0)]
)
def test_it_wakes_once_a_second_and_at_once_when_it_is_to_end(how: str, code: int) -> None:
    """The signal is sent by another thread, and handled in the one of the server."""
    program = _QUIET.replace("HOW", how) + "server.run()\n"
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == code, "the signal is raised again when all is done"
    ticks, late_s, date_old_s = done.stdout.split()
    assert int(ticks) == 4, "the fourth is the one that ends it"
    assert time.monotonic() - began_s > 2, "three looks, a second between them"
    assert float(late_s) < 0.8
    assert float(date_old_s) < 1.8, "the header is in whole seconds"
