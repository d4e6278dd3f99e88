"""An emulator of AWS for tests: moto's server, in a process of its own, which forgets everything at the end.

``BIDDING_TEST_AWS=http://127.0.0.1:4566`` names another one that runs already, such as LocalStack.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

from infrastructure.local.servers.ports import free_ports

REGION = "eu-central-1"
_START_S = 60.0


@contextmanager
def emulator() -> Iterator[str]:
    """Its address."""
    if other := os.environ.get("BIDDING_TEST_AWS"):
        yield other
        return
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_it_answers(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        assert process.poll() is None, "moto's server ended at once"
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/moto-api/data.json")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    raise TimeoutError("moto's server did not answer")


def environment_of(address: str) -> dict[str, str]:
    """What lets boto3 talk to it, and to nothing else."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
