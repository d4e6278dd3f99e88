"""What a client of a cluster takes for true of where shards are, without a network."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError

from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import ClusterClient
from shared.clients.cluster.slots import SLOTS
from shared.redis_layout.keys import shard_of_key

A, B = Address("a", 1), Address("b", 1)
ONE, TWO = "s01", "s02"


class FakeNodes:
    """Two nodes: ``told`` is what any of them says of who has what, ``there`` is who has it."""

    def __init__(self) -> None:
        self.told = {ONE: A, TWO: B}
        self.there = dict(self.told)
        self.connected: list[Address] = []
        self.asked = 0
        self.silent_s: float | None = None
        # By node: what it says in place of `told`, and the epochs that it knows.
        self.told_by: dict[Address, dict[str, Address]] = {}
        self.epochs: dict[Address, dict[Address, int]] = {}
        self.away: set[Address] = set()

    def client(self) -> ClusterClient:
        return ClusterClient([A, B], self.open, self.open, timeout_s=0.1)

    def open(self, address: Address) -> Redis:
        return cast(Redis, FakeNode(self, address))


class FakeNode:
    """A client of one node; also its pool, its pipeline and a connection to it."""

    def __init__(self, nodes: FakeNodes, address: Address) -> None:
        self._nodes = nodes
        self._address = address
        self._keys: list[str] = []

    @property
    def connection_pool(self) -> Any:
        return self

    def get_encoder(self) -> None:
        return

    def get_protocol(self) -> None:
        return

    @property
    def connection_kwargs(self) -> dict[str, Any]:
        return {}

    def make_connection(self) -> FakeNode:
        return self

    async def connect(self) -> None:
        self._nodes.connected.append(self._address)

    async def disconnect(self, **_: bool) -> None:
        return

    async def aclose(self) -> None:
        return

    def execute_command(self, *words: str) -> None:
        assert words[0] == "CLUSTER"

    def pipeline(self, *, transaction: bool) -> FakeNode:
        self._keys = []
        return self

    def exists(self, key: str) -> None:
        self._keys.append(key)

    async def execute(self, *, raise_on_error: bool = True) -> list[Any]:
        if not self._keys:
            return await self._slots_and_nodes()
        return [
            1 if self._nodes.there[str(shard_of_key(key))] == self._address else MovedError("1 10.0.0.1:6379")
            for key in self._keys
        ]

    async def _slots_and_nodes(self) -> list[Any]:
        nodes, me = self._nodes, self._address
        nodes.asked += 1
        if me in nodes.away:
            raise RedisConnectionError("away")
        if nodes.silent_s is not None:
            await asyncio.sleep(nodes.silent_s)
            raise RedisConnectionError("away")
        told = nodes.told_by.get(me, nodes.told)
        slots = [
            [SLOTS[shard], SLOTS[shard], [address.host.encode(), address.port, address.host.encode()]]
            for shard, address in told.items()
        ]
        lines = [
            f"{address.host} {address}@2 {'myself,' if address == me else ''}master - 0 0 {epoch} connected"
            for address, epoch in nodes.epochs.get(me, {}).items()
        ]
        return [slots, "\n".join(lines or [f"{me.host} {me}@2 myself,master - 0 0 1 connected"])]


async def test_a_shard_is_placed_at_a_node_in_use_only_once_that_node_has_it() -> None:
    """1. A map says too early that a node has a shard, or too late. 2. The new connection to that node is let in for
    the shards that are there. 3. The shard comes, perhaps as an older copy: only now may it be asked about."""
    nodes = FakeNodes()
    client = nodes.client()
    await client.refresh()
    for shard in (ONE, TWO):
        assert client.placed(shard) is not None
    nodes.told[ONE] = B
    await client.refresh()
    await client._arrived(ONE)
    assert client.placed(ONE) is None, "the node itself says that it does not have it"
    nodes.there[ONE] = B
    nodes.connected.clear()
    await client.refresh()
    await client._arrived(ONE)
    placed = client.placed(ONE)
    assert placed is not None
    assert placed[0] == B
    assert nodes.connected == [B], "the shard was looked at when it was there"
    await client.aclose()


async def test_all_who_wait_for_nodes_that_do_not_answer_wait_together() -> None:
    nodes = FakeNodes()
    nodes.silent_s = 60
    client = nodes.client()
    began_s = asyncio.get_running_loop().time()
    ends = await asyncio.gather(*(client.node_of(ONE) for _ in range(50)), return_exceptions=True)
    assert {type(end) for end in ends} == {RedisConnectionError}
    # Each node may take 0.1 s to answer.
    assert nodes.asked <= 4
    assert asyncio.get_running_loop().time() - began_s < 2
    with pytest.raises(RedisConnectionError, match="no node of the cluster answers"):
        await client.refresh()
    nodes.silent_s = None
    await client.refresh()
    assert client.placed(ONE) is not None
    await client.aclose()


async def test_a_node_that_knows_only_what_is_over_is_not_believed() -> None:
    """C has got a shard of A's. B was cut off before that, and is the only one that answers for a while."""
    nodes = FakeNodes()
    three = Address("c", 1)
    nodes.told = {ONE: three, TWO: B}
    nodes.told_by[B] = {ONE: A, TWO: B}
    nodes.epochs = {B: {A: 1, B: 2, three: 3}, A: {A: 1, B: 2, three: 4}, three: {A: 1, B: 2, three: 4}}
    # A has one more slot, so that it remains a primary.
    for told in (nodes.told, nodes.told_by[B]):
        told["s03"] = A
    client = ClusterClient([A, B, three], nodes.open, nodes.open, timeout_s=0.5)
    await client.refresh()
    found = client.placed(ONE)
    assert found is not None
    assert found[0] == three
    for address in (A, three):
        nodes.away.add(address)
    await client.refresh()
    found = client.placed(ONE)
    assert found is not None
    assert found[0] == three, "what one of three says does not count where it is older"
    await client.aclose()
