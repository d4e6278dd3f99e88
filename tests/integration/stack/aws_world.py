"""An emulator of AWS for tests: moto's server, in a process of its own, which forgets everything at the end.

``BIDDING_TEST_AWS=http://127.0.0.1:4566`` names another one that runs already, such as LocalStack.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from typing import Any

from infrastructure.local.servers.ports import free_ports
from shared.aws.clients import open_cloud_map
from shared.aws.discovery import Instance, discover

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


class Registry:
    """A namespace of Cloud Map with one service, for one test; at the emulator that the environment names."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.client = open_cloud_map(endpoint_url=os.environ["AWS_ENDPOINT_URL"])
        self.namespace = f"{uuid.uuid4().hex}.local"
        self.client.create_private_dns_namespace(Name=self.namespace, Vpc=f"vpc-{uuid.uuid4().hex}")
        namespaces: Any = self.client.list_namespaces()["Namespaces"]
        namespace_id = next(each["Id"] for each in namespaces if each["Name"] == self.namespace)
        config = {"DnsRecords": [{"Type": "A", "TTL": 10}]}
        made = self.client.create_service(Name=service, NamespaceId=namespace_id, DnsConfig=config)
        self.service_id: str = made["Service"]["Id"]

    def instances(self) -> list[Instance]:
        return discover(self.client, self.namespace, self.service)
