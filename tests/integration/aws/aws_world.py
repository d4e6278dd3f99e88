"""An emulator of AWS for tests: moto's server, in a process of its own, which forgets everything at the end.

``BIDDING_TEST_AWS=http://127.0.0.1:4566`` names another one that runs already, such as LocalStack.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infrastructure.local.processes import ManagedProcess, ProcessSpec
from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.servers.probes import http_ready
from shared.aws.clients import open_cloud_map
from shared.aws.discovery import Instance, discover

REGION = "eu-central-1"


@contextmanager
def emulator() -> Iterator[str]:
    """Its address."""
    if other := os.environ.get("BIDDING_TEST_AWS"):
        yield other
        return
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        spec = ProcessSpec(
            name="aws",
            argv=(sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)),
            env=os.environ,
            log=Path(folder) / "aws.log",
            ready=http_ready(HOST, port, "/moto-api/data.json"),
            address=f"{HOST}:{port}",
            ready_timeout_s=60.0,
        )
        process = ManagedProcess(spec)
        # Not `running_server` of tests.programs, which is async: this one outlives the event loops of the tests.
        try:
            process.spawn()
            asyncio.run(process.wait_ready())
            yield f"http://{HOST}:{port}"
        finally:
            asyncio.run(process.stop())


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
