"""Shards on the nodes of a cluster, and what is known of them elsewhere, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, cast

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import AskError, MovedError, NoScriptError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from api_gateway.engine.loss import servers as module
from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.servers import read_servers
from api_gateway.engine.loss.shards import Shards
from api_gateway.engine.loss.witnesses import Witnesses
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import ClusterClient, Node
from shared.domain.errors import Unavailable
from shared.redis_layout.outbox import EntryId
from tests.unit.api_gateway.engine.loss.shards_bench import Bench, FakePast, FakeRedis, FakeScripts

LEFT, RIGHT = names.SHARDS[:32], names.SHARDS[32:]


class FakeOfNode(FakeRedis):
    """A node with some of the shards."""

    def __init__(self, run: str, shards: Iterable[str]) -> None:
        super().__init__()
        self.run = run
        self.places = {shard: EntryId(1, 0) for shard in shards}
        self.marks = dict.fromkeys(names.SHARDS, run)
        self.error: Exception | None = None
        self.passing: list[Exception] = []
        self.hangs = False
        self.texts = 0

    def eval(self, text: str, key_count: int, *told: str) -> None:
        self.texts += 1
        self.evalsha(text, key_count, *told)

    async def execute(self) -> list[Any]:
        if self.error is not None:
            raise self.error
        if self.passing:
            raise self.passing.pop()
        if self.hangs:
            await asyncio.Future()
        return await super().execute()


class FakeCluster(ClusterClient):
    """Two nodes, as a test has them."""

    def __init__(self, *nodes: FakeOfNode) -> None:
        def unused(_: Address) -> Redis:
            return Redis(connection_pool=BlockingConnectionPool())

        super().__init__([Address("seed", 1)], unused, unused, timeout_s=1)
        self.fakes = list(nodes)
        self.suspected: list[tuple[Any, BaseException | None]] = []

    def suspect(self, node: Redis, error: BaseException | None) -> None:
        self.suspected.append((node, error))

    async def nodes(self, shards: Iterable[str], *, fresh: bool = False) -> tuple[list[Node], list[str]]:
        found = [
            Node(Address("node", number), cast(Any, fake), list(fake.places)) for number, fake in enumerate(self.fakes)
        ]
        there = {shard for node in found for shard in node.shards}
        return found, [shard for shard in shards if shard not in there]


class FakeScriptsOfNodes(FakeScripts):
    """They find the node that has a shard."""

    def __init__(self, cluster: FakeCluster) -> None:
        super().__init__(cluster.fakes[0])
        self._cluster = cluster

    async def admit_shards(self, places: Any, *, run: str) -> None:
        for fake in self._cluster.fakes:
            for shard in fake.places.keys() & places.keys():
                fake.marks[shard] = run

    async def init_shard(self, shard: str, *, run: str) -> bool:
        for fake in self._cluster.fakes:
            if shard in fake.places:
                self.made.append(shard)
                fake.places[shard] = EntryId(1, 0)
                fake.marks[shard] = run
        return True


class ClusterBench(Bench):
    def __init__(self) -> None:
        self.left, self.right = FakeOfNode("a", LEFT), FakeOfNode("b", RIGHT)
        self.cluster = FakeCluster(self.left, self.right)
        self.past = FakePast()
        self.scripts = FakeScriptsOfNodes(self.cluster)
        self.initialised = 0
        self.shards = Shards(
            self.cluster,
            cast(ShardScripts, self.scripts),
            cast(Witnesses, self.past),
            LostItems(cast(Any, self.left)),
            on_initialised=self._note,
            outbox_alarm_entries=10,
        )


async def test_only_the_shards_of_the_node_that_went_back_are_closed() -> None:
    bench = ClusterBench()
    bench.knows({LEFT[0]: EntryId(1, 5), RIGHT[0]: EntryId(1, 5)}, archive=True, stream=True)
    bench.left.places[LEFT[0]] = EntryId(1, 5)
    bench.right.places[RIGHT[0]] = EntryId(1, 4)
    await bench.shards.compare()
    assert bench.scripts.closed == {RIGHT[0]: EntryId(1, 5)}
    assert bench.shards.health.not_admitted is None


@pytest.mark.parametrize("error", [AskError("7000 127.0.0.1:7001"), TryAgainError("some keys are there")])
async def test_while_a_shard_moves_all_are_read_again(error: Exception) -> None:
    bench = ClusterBench()
    bench.right.passing = [error]
    assert (await read_servers(bench.cluster)).unread == set()
    assert bench.cluster.suspected == []


async def test_a_node_that_does_not_know_the_script_is_handed_it() -> None:
    bench = ClusterBench()
    bench.right.passing = [NoScriptError("NOSCRIPT")]
    assert (await read_servers(bench.cluster)).unread == set()
    assert (bench.left.texts, bench.right.texts) == (0, len(RIGHT)), "each command is about one shard"


async def test_a_node_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NODE_S", 0.05)
    bench = ClusterBench()
    bench.right.hangs = True
    async with asyncio.timeout(10):
        assert (await read_servers(bench.cluster)).unread == set(RIGHT)
    assert [node for node, _ in bench.cluster.suspected] == [bench.right]


async def test_without_the_stream_only_the_node_that_was_replaced_is_in_doubt() -> None:
    bench = ClusterBench()
    bench.knows(archive=True, stream=False)
    bench.right.run = "c"
    await bench.shards.compare("a")
    with pytest.raises(Unavailable, match="may be an older copy"):
        await bench.shards.compare("c")
    with pytest.raises(Unavailable, match="may be an older copy"):
        await bench.shards.compare()
    health = bench.shards.health
    assert health.not_admitted is not None
    assert health.others_are_admitted
    assert set(health.in_doubt) == {Address("node", 1)}
    assert set(health.runs_in_doubt) == {"c"}
    bench.knows(archive=True, stream=True)
    await bench.shards.compare("c")
    assert not bench.shards.health.not_admitted
    assert not health.in_doubt
    assert set(bench.right.marks[shard] for shard in RIGHT) == {"c"}


async def test_a_shard_that_has_moved_is_marked_with_the_run_of_its_node() -> None:
    bench = ClusterBench()
    bench.knows(archive=True, stream=True)
    await bench.shards.compare()
    moved = LEFT[3]
    bench.right.places[moved] = bench.left.places.pop(moved)
    bench.right.marks[moved] = "a"
    await bench.shards.look()
    await bench.shards.compare()
    assert bench.right.marks[moved] == "b"
    assert bench.scripts.closed == {}
    assert bench.past.looks_back[-1], "what is newest in the stream counts"


async def test_a_node_that_does_not_answer_stops_no_other_one() -> None:
    bench = ClusterBench()
    bench.knows(archive=True, stream=True)
    await bench.shards.look()
    bench.right.error = RedisConnectionError("gone")
    bench.left.marks[LEFT[0]] = "before"
    await bench.shards.compare("a")
    assert bench.left.marks[LEFT[0]] == "a"
    with pytest.raises(Unavailable, match="is being replaced"):
        await bench.shards.compare("b")
    bench.left.error = RedisConnectionError("gone too")
    with pytest.raises(RedisConnectionError):
        await bench.shards.look()


async def test_a_node_that_hangs_is_suspected_so_that_the_next_look_does_not_wait_for_it() -> None:
    bench = ClusterBench()
    bench.knows(archive=True, stream=True)
    bench.right.error = TimeoutError()
    await bench.shards.compare("a")
    assert [node for node, _ in bench.cluster.suspected] == [bench.right]
    assert isinstance(bench.cluster.suspected[0][1], TimeoutError)


async def test_a_node_that_cannot_be_written_to_keeps_no_other_one_from_being_admitted() -> None:
    """Say its disk is full: it tells its cursors, and takes no mark."""
    bench = ClusterBench()
    bench.knows({RIGHT[0]: EntryId(1, 5)}, archive=True, stream=True)
    bench.left.run, bench.right.run = "restarted", "promoted"
    admit = bench.scripts.admit_shards

    async def admit_but_of_left(places: Any, *, run: str) -> None:
        if run == "restarted":
            raise ResponseError("MISCONF Errors writing to the AOF file: No space left on device")
        await admit(places, run=run)

    bench.scripts.admit_shards = admit_but_of_left  # type: ignore[method-assign]
    await bench.shards.compare("promoted")
    assert bench.scripts.closed == {RIGHT[0]: EntryId(1, 5)}, "an older copy beside it is still closed"
    assert bench.right.marks[RIGHT[1]] == "promoted"
    with pytest.raises(ResponseError, match="MISCONF"):
        await bench.shards.compare("restarted")
    with pytest.raises(ResponseError, match="MISCONF"):
        await bench.shards.compare()


async def test_no_shard_begins_anew_while_another_node_may_have_lost_some() -> None:
    bench = ClusterBench()
    bench.knows(archive=True, stream=True)
    bench.left.places[LEFT[0]] = None
    bench.right.error = RedisConnectionError("gone")
    with pytest.raises(Unavailable, match="unless the nodes that do not answer have lost some"):
        await bench.shards.look()
    assert bench.scripts.made == []
    assert bench.shards.health.unread == len(RIGHT)
    bench.right.error = None
    await bench.shards.look()
    assert bench.shards.health.unread == 0
    assert bench.scripts.made == [LEFT[0]]
    assert bench.left.marks[LEFT[0]] == "a"
    assert bench.shards.health.ready


async def test_a_shard_that_moves_during_a_look_is_looked_for_again() -> None:
    bench = ClusterBench()
    bench.knows(archive=True, stream=True)
    moving = LEFT[1]

    class Moves(FakeOfNode):
        async def execute(self) -> list[Any]:
            if moving in self.places:
                bench.right.places[moving] = cast(EntryId, self.places.pop(moving))
                raise MovedError("1 node:1")
            return await super().execute()

    bench.cluster.fakes[0] = Moves("a", LEFT)
    await bench.shards.look()
    assert bench.shards.health.ready
