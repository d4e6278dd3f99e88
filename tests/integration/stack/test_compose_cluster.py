"""Three nodes of Valkey in compose: what the second file adds, and the start of nodes by the script of the containers.

No Docker is needed: the files are merged here as compose merges them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from infrastructure.docker.form_cluster import formed
from infrastructure.docker.programs import PROGRAMS
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.binaries import find_redis
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.servers.redis_and_nats import plain_environment
from shared import names
from shared.clients.cluster.addresses import ClusterUrl
from shared.clients.redis import open_redis
from shared.server_urls import with_credentials
from tests.integration.stack.test_compose import FOLDER, ROOT, STACK
from tests.programs import accepts, running_server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

FILE = ROOT / "docker-compose.cluster.yml"
MORE: dict[str, Any] = yaml.safe_load(FILE.read_text())
NODES = ("redis", "redis-2", "redis-3")
PASSWORD = 'p@ss/w:rd, "50%" #1'


def merged(name: str) -> dict[str, Any]:
    """A service of both files: mappings are merged, volumes by their place in the container, anything else replaced."""
    first, second = STACK["services"].get(name, {}), MORE["services"].get(name, {})
    found = {**first, **second}
    for key in ("environment", "depends_on"):
        found[key] = {**first.get(key, {}), **second.get(key, {})}
    mounts = {mount.split(":")[1]: mount for mount in [*first.get("volumes", ()), *second.get("volumes", ())]}
    found["volumes"] = list(mounts.values())
    return found


def test_all_nodes_are_alike_but_for_their_names_and_their_data() -> None:
    first = merged("redis")
    for name in NODES:
        node = merged(name)
        assert node["environment"].pop("REDIS_CLUSTER_NAME") == name
        data = [mount for mount in node["volumes"] if mount.endswith(":/data")]
        assert data == [f"redis-{NODES.index(name) + 1}:/data"]
        assert data[0].split(":")[0] in MORE["volumes"]
        for key in ("image", "user", "command", "cap_drop", "read_only", "security_opt", "mem_limit", "pids_limit"):
            assert node[key] == first[key], (name, key)
        for key in ("restart", "healthcheck", "logging", "tmpfs"):
            assert node[key] == first[key], (name, key)
        others = {key: value for key, value in first["environment"].items() if key != "REDIS_CLUSTER_NAME"}
        assert node["environment"] == others
        assert set(node["volumes"]) - set(data) == set(first["volumes"]) - {"redis-1:/data"}
    # The data of a single Redis stays where it is.
    assert "redis" not in MORE["volumes"]


def test_whoever_talks_to_redis_talks_to_the_cluster_and_waits_for_it() -> None:
    talking = {name for name, service in STACK["services"].items() if "REDIS_URL" in service.get("environment", {})}
    # Services that wait for Redis in the first file. The others, such as the migration, never open it.
    talking = {name for name in talking if "redis" in STACK["services"][name].get("depends_on", {})} | {"load"}
    assert talking == {"api_gateway", "broadcast_service", "archival_worker", "operator", "load"}
    for name in talking:
        service = merged(name)
        seeds = ClusterUrl.parse(re.sub(r"\$\{[^}]*\}", "x", service["environment"]["REDIS_URL"])).seeds
        assert [seed.host for seed in seeds] == list(NODES)
        if name != "load":
            assert service["depends_on"]["redis_cluster"] == {"condition": "service_completed_successfully"}
    forming = MORE["services"]["redis_cluster"]
    assert PROGRAMS[forming["command"][0]].module == "infrastructure.docker.form_cluster"
    assert forming["depends_on"] == {name: {"condition": "service_healthy"} for name in NODES}
    assert forming["restart"] == "no"
    for key in (
        "mem_limit",
        "pids_limit",
        "read_only",
        "cap_drop",
        "security_opt",
        "logging",
        "tmpfs",
        "image",
        "build",
    ):
        assert forming[key] == STACK["services"]["migrate"][key], key


@contextlib.asynccontextmanager
async def _nodes(folder: Path, ports: list[int]) -> Any:
    """Nodes that the containers' script starts, with ports of this machine in its configuration."""
    binary = find_redis(os.environ)
    (folder / "bin").mkdir(exist_ok=True)
    for name in ("valkey-server", "redis-server"):
        if not (folder / "bin" / name).exists():
            (folder / "bin" / name).symlink_to(binary)
    async with contextlib.AsyncExitStack() as servers:
        for port in ports:
            data = folder / str(port)
            data.mkdir(exist_ok=True)
            config = folder / f"{port}.conf"
            text = (FOLDER / "redis.conf").read_text()
            text = text.replace("port 6379", f"port {port}").replace("bind * -::*", "bind 127.0.0.1")
            config.write_text(f"{text.replace('dir /data', f'dir {data}')}cluster-port {port + 1}\n")
            env = plain_environment(os.environ) | {
                "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
                "REDISCLI_AUTH": PASSWORD.replace('"', ""),
                "REDIS_MAXMEMORY": "0",
                "REDIS_DATA": str(data),
                "REDIS_CONFIG": str(config),
                "REDIS_CLUSTER_NAME": "localhost",
            }
            spec = ProcessSpec(
                name=f"node-{port}",
                argv=("sh", str(FOLDER / "redis-start.sh")),
                env=env,
                log=folder / f"{port}.log",
                ready=accepts(port),
                address=f"127.0.0.1:{port}",
            )
            await servers.enter_async_context(running_server(spec))
        yield


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
async def test_the_containers_nodes_become_one_cluster_and_are_one_again(tmp_path: Path) -> None:
    password = PASSWORD.replace('"', "")
    ports = [port for port in free_ports(3)]
    bus = 1
    url = "redis+cluster://" + ",".join(f"localhost:{port}" for port in ports)
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    for start in range(2):
        async with _nodes(tmp_path, ports):
            async with asyncio.timeout(100):
                await formed(url, password, bus=bus, within_s=90)
                # Nothing happens to one that is there.
                await formed(url, password, bus=bus, within_s=90)
            redis = open_redis(with_credentials(url, password=password), timeout_s=5)
            try:
                for shard in names.SHARDS:
                    if not start:
                        await redis.set(f"{{{shard}}}:x", shard)
                    assert await redis.get(f"{{{shard}}}:x") == shard.encode()
                found, _ = await redis.nodes(names.SHARDS)  # type: ignore[attr-defined]
                assert {str(node.address) for node in found} == {f"localhost:{port}" for port in ports}
            finally:
                await redis.aclose()


async def test_fewer_than_three_nodes_are_no_cluster() -> None:
    with pytest.raises(ValueError, match="three nodes or more"):
        await formed("redis+cluster://one:1,two:1", "")
    with pytest.raises(ValueError, match="begins with redis\\+cluster"):
        await formed("redis://one:1", "")
