"""What a flush of bids does where a node of a cluster does not do its part, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from redis.asyncio import Redis

from api_gateway.engine.bids import cluster_scripts
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.cluster_scripts import ClusterBidScripts
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import Decided
from api_gateway.engine.item_scripts import ScriptLimits
from shared import names
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import ClusterClient
from shared.domain.errors import OutcomeUnknown, Unavailable
from shared.redis_layout.cursors import Lineage

DECIDED = Decided([b"+"], 1, 1, Lineage("run", 1))


class FakeCluster:
    """Shards with an even number are at one node, the others at another one."""

    def __init__(self) -> None:
        self.clients = [object(), object()]
        self.suspected: list[object] = []

    def placed(self, shard: str) -> tuple[Address, Redis]:
        number = int(shard[1:]) % 2
        return Address("node", number), cast(Redis, self.clients[number])

    def has_node(self, address: Address) -> bool:
        return True

    def suspect(self, node: object, error: BaseException | None) -> None:
        self.suspected.append(node)


class FakeScripts:
    """The way to a node: what it does is laid ready."""

    def __init__(self, node: object, answers: dict[int, Any]) -> None:
        self._node = node
        self._answers = answers
        self.is_connected = True
        self.busy = False
        self.may_answer = asyncio.Event()
        self.connecting = asyncio.Event()

    async def connect(self) -> None:
        await self.connecting.wait()

    async def place(self, calls: Sequence[Any]) -> list[Any]:
        answer = self._answers[id(self._node)]
        if isinstance(answer, ValueError):
            raise answer
        self.busy = True
        await self.may_answer.wait()
        self.busy = False
        return [answer] * len(calls)

    async def close(self) -> None:
        return


def bench(
    cluster: FakeCluster, first: Any, second: Any, monkeypatch: Any
) -> tuple[ClusterBidScripts, list[FakeScripts]]:
    answers = {id(cluster.clients[0]): first, id(cluster.clients[1]): second}
    made: list[FakeScripts] = []

    def make(node: object, *_: Any, **__: Any) -> FakeScripts:
        made.append(FakeScripts(node, answers))
        return made[-1]

    monkeypatch.setattr(cluster_scripts, "BidScripts", make)
    limits = cast(ScriptLimits, None)
    return ClusterBidScripts(cast(ClusterClient, cluster), limits, timeout_s=1, run_of=lambda _: ""), made


def calls() -> list[list[PendingBid]]:
    """A bid on an item of each node, in the order of the nodes."""
    found: dict[int, list[PendingBid]] = {}
    for number in range(100):
        item_id = f"item-{number}"
        at = int(names.shard_of(item_id)[1:]) % 2
        future = PendingVerdict()
        found.setdefault(at, [PendingBid(item_id, "ada", "b", 1, None, None, False, future)])
    return [found[0], found[1]]


async def test_a_flush_ends_only_when_all_of_its_nodes_have_answered(monkeypatch: Any) -> None:
    """The next one uses the same connections, and would read the answers of this one."""
    scripts, made = bench(FakeCluster(), ValueError("a defect"), DECIDED, monkeypatch)
    flush = asyncio.create_task(scripts.place(calls()))
    await asyncio.sleep(0.05)
    assert not flush.done()
    assert [each.busy for each in made] == [False, True]
    made[1].may_answer.set()
    first, second = await flush
    assert isinstance(first, OutcomeUnknown)
    assert second is DECIDED


async def test_a_connection_that_is_given_up_while_it_is_made_ends_no_flush(monkeypatch: Any) -> None:
    cluster = FakeCluster()
    scripts, made = bench(cluster, DECIDED, DECIDED, monkeypatch)
    await scripts._way(*cluster.placed("s00"))
    made[0].is_connected = False
    flush = asyncio.create_task(scripts.place(calls()))
    await asyncio.sleep(0.05)
    made[1].may_answer.set()
    await scripts._ways[Address("node", 0)][1].close()
    first, second = await flush
    assert isinstance(first, Unavailable)
    assert second is DECIDED


async def test_a_node_that_takes_no_bids_is_suspected(monkeypatch: Any) -> None:
    """Say it is cut off from the others, and they have promoted its replica."""
    cluster = FakeCluster()
    scripts, made = bench(cluster, Unavailable("CLUSTERDOWN"), DECIDED, monkeypatch)
    flush = asyncio.create_task(scripts.place(calls()))
    await asyncio.sleep(0.01)
    for each in made:
        each.may_answer.set()
    await flush
    assert cluster.suspected == [cluster.clients[0]]
