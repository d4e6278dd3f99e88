"""Nodes as processes of their own, one of which is killed, or stopped and let go on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from shared.clients.nats import NatsLink
from shared.read_cache.cache import GroupSpec, ReadCache
from shared.read_cache.membership.view import View
from shared.read_cache.opening import open_read_cache
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.wire import SERVICE
from shared.read_cache.settings import ReadCacheSettings
from tests.stack import StackFactory
from tests.tcp import serving
from tests.waiting import eventually

pytestmark = pytest.mark.integration

SLOWNESS = 5


class Cluster:
    """Processes, the origin that they ask, and a reader in this process."""

    def __init__(self, stack: Stack) -> None:
        self.nats_url = stack.urls.nats_url
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.addresses: dict[str, str] = {}
        self.rows: dict[str, str] = {}
        self.asked: list[str] = []
        self.origin_port = 0
        self.reader: ReadCache

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        key = (await reader.readline()).strip().decode()
        self.asked.append(key)
        writer.write(self.rows.get(key, f"row-of-{key}").encode() + b"\n")
        await writer.drain()
        await reader.read()

    async def load(self, key: str) -> bytes | None:
        self.asked.append(key)
        return self.rows.get(key, f"row-of-{key}").encode()

    async def start(self, name: str) -> None:
        (port,) = free_ports(1)
        self.addresses[name] = f"127.0.0.1:{port}"
        self.processes[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.integration.read_cache.node_process",
            name,
            self.addresses[name],
            self.nats_url,
            str(self.origin_port),
        )

    async def agreed(self, *names: str, seconds: float = 20) -> View:
        async def views() -> list[View]:
            assert self.reader.cluster is not None
            view = self.reader.cluster.view()
            return [view] if view is not None and {node.name for node in view.ring.nodes} == set(names) else []

        # A busy machine is slow: the times that are promised are measured alone.
        return (await eventually(views, seconds=seconds * SLOWNESS))[0]

    async def ask(self, name: str, ask: pb.Ask) -> pb.Answer:
        """Ask one node, as a peer does."""
        async with grpc.aio.insecure_channel(self.addresses[name]) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/Get",
                request_serializer=pb.Ask.SerializeToString,
                response_deserializer=pb.Answer.FromString,
            )
            answer: pb.Answer = await call(ask, timeout=120)
            return answer

    async def end(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                os.kill(process.pid, signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            await asyncio.wait_for(process.wait(), 30)


@pytest_asyncio.fixture
async def nodes(start_stack: StackFactory) -> AsyncIterator[Cluster]:
    """Five, with a NATS of their own, since the names of the buckets are those of a deployment."""
    cluster = Cluster(await start_stack(services=()))
    link = NatsLink(cluster.nats_url, name="test reader")
    settings = ReadCacheSettings(
        read_cache="cluster", read_cache_membership="jetstream", read_cache_lease_s=4.0, read_cache_loads_max=200
    )
    async with (
        serving(cluster.answer) as cluster.origin_port,
        open_read_cache(settings, [GroupSpec("items", cluster.load)], nats=link) as cluster.reader,
    ):
        try:
            names = [f"n{number}" for number in range(5)]
            for name in names:
                await cluster.start(name)
            await cluster.agreed(*names)
            yield cluster
        finally:
            await cluster.end()
    await link.close()


async def test_a_node_is_killed_under_load(nodes: Cluster) -> None:
    """No reader sees an error, one key of five moves, and the ring is agreed again."""
    keys = [f"k{number}" for number in range(1_000)]
    group = nodes.reader["items"]
    before = await nodes.agreed(*nodes.addresses)

    async def warm() -> bool:
        """All nodes have heard of the ring, and each key is kept."""
        nodes.asked.clear()
        await group.get_many(keys)
        return not nodes.asked

    await eventually(warm, seconds=60)
    wrong: list[object] = []
    gets = 0
    go_on = True

    async def read(number: int) -> None:
        nonlocal gets
        while go_on:
            key = keys[(number * 37 + gets) % 1_000]
            gets += 1
            try:
                if (value := await group.get(key)) != f"row-of-{key}".encode():
                    wrong.append(value)
            except Exception as error:
                wrong.append(error)
            await asyncio.sleep(0.01)

    readers = [asyncio.create_task(read(number)) for number in range(20)]
    await asyncio.sleep(0.3)
    loop = asyncio.get_running_loop()
    nodes.processes["n2"].kill()
    killed_s = loop.time()
    survivors = ["n0", "n1", "n3", "n4"]
    after = await nodes.agreed(*survivors, seconds=5)
    took_s = loop.time() - killed_s
    await asyncio.sleep(0.5)
    go_on = False
    await asyncio.gather(*readers)
    assert wrong == []
    assert gets > 500
    assert took_s < 5 * SLOWNESS
    assert after.epoch > before.epoch
    moved = [key for key in keys if before.ring.owner(key) != after.ring.owner(key)]
    assert moved == [key for key in keys if before.ring.owner(key).name == "n2"]
    assert 0.17 * 1_000 < len(moved) < 0.23 * 1_000


async def test_a_node_that_was_stopped_never_answers_under_the_old_epoch(nodes: Cluster) -> None:
    """The questions lie before it when it wakes up: it has had no time to notice anything before it reads them."""
    before = await nodes.agreed(*nodes.addresses)
    key = next(key for key in (f"k{number}" for number in range(1_000)) if before.ring.owner(key).name == "n2")
    nodes.rows[key] = "old"
    assert await nodes.reader["items"].get(key) == b"old"
    ring = pb.RingId(epoch=before.epoch, fingerprint=before.ring.fingerprint)
    ask = pb.Ask(ring=ring, forwarded=True, group="items", first=1, keys=[key])
    assert list((await nodes.ask("n2", ask)).values) == [b"old"]

    process = nodes.processes["n2"]
    os.kill(process.pid, signal.SIGSTOP)
    early = [asyncio.create_task(nodes.ask("n2", ask)) for _ in range(3)]
    ringless = pb.Ask(group="items", first=1, keys=[key])
    late = asyncio.create_task(nodes.ask("n2", ringless))
    await nodes.agreed("n0", "n1", "n3", "n4", seconds=5)
    nodes.rows[key] = "new"
    assert await nodes.reader["items"].remove(key) == []
    assert await nodes.reader["items"].get(key) == b"new"
    os.kill(process.pid, signal.SIGCONT)

    for answer in await asyncio.gather(*early):
        assert (list(answer.states), list(answer.values)) == ([pb.OTHER_RING], [b""])
    # Without a ring the node answers what it can find out itself, and it has dropped what it kept.
    assert list((await late).values) == [b"new"]
    after = await nodes.agreed(*nodes.addresses, seconds=10)
    assert after.epoch > before.epoch
    assert await nodes.reader["items"].get(key) == b"new"
