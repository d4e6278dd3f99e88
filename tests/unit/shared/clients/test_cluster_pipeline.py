"""Which commands of a pipeline are sent again, and in which order, without a network."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.clients.cluster.pipeline import ClusterPipeline, NodeAway

A, B = "{s01}:a", "{s02}:b"


class FakeNode(Redis):
    """Answers what a test has laid ready, one list for each time that it is sent something."""

    def __init__(self, *answers: list[Any] | Exception) -> None:
        super().__init__(connection_pool=BlockingConnectionPool())
        self.answers = list(answers)
        self.sent: list[list[tuple[Any, ...]]] = []

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        return FakeNodePipeline(self)


class FakeNodePipeline:
    def __init__(self, node: FakeNode) -> None:
        self._node = node
        self._words: list[tuple[Any, ...]] = []

    def execute_command(self, *words: Any, **options: Any) -> None:
        self._words.append(words)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        self._node.sent.append(self._words)
        answers = self._node.answers.pop(0)
        if isinstance(answers, Exception):
            raise answers
        assert len(answers) == len(self._words)
        return answers


class FakeCluster(Redis):
    """Where each shard is; a MOVED leads to ``after``."""

    def __init__(self, nodes: dict[str, FakeNode], after: dict[str, FakeNode] | None = None) -> None:
        super().__init__(connection_pool=BlockingConnectionPool())
        self._places = nodes
        self._after = after or {}
        self.asked: list[tuple[Any, ...]] = []
        self.suspected = 0

    async def node_of(self, shard: str) -> Redis:
        return self._places[shard]

    async def moved(self, shard: str, error: MovedError, sent_at_s: float) -> None:
        self._places[shard] = self._after[shard]

    async def ask(self, error: AskError, args: Any, options: Any) -> Any:
        self.asked.append(args)
        return b"asked"

    def suspect(self, node: Redis, error: BaseException | None) -> None:
        self.suspected += 1


def pipeline_of(cluster: FakeCluster, *keys: str) -> ClusterPipeline:
    pool, callbacks = cluster.connection_pool, cluster.response_callbacks
    found = ClusterPipeline(cluster, pool, callbacks, transaction=False)  # type: ignore[arg-type]
    for key in keys:
        found.get(key)
    return found


def keys_sent(node: FakeNode) -> list[list[str]]:
    return [[words[1] for words in each] for each in node.sent]


async def test_the_commands_of_a_shard_that_has_moved_follow_it_in_their_order() -> None:
    moved = MovedError("1 h:2")
    old, new, other = FakeNode([moved, moved]), FakeNode([b"1", b"2"]), FakeNode([b"3"])
    cluster = FakeCluster({"s01": old, "s02": other}, {"s01": new})
    answers = await pipeline_of(cluster, A + "1", B, A + "2").execute()
    assert answers == [b"1", b"3", b"2"]
    assert keys_sent(new) == [[A + "1", A + "2"]]


async def test_a_command_is_not_sent_again_after_a_later_one_was_carried_out() -> None:
    between = TryAgainError("between")
    node = FakeNode([between, b"2"])
    answers = await pipeline_of(FakeCluster({"s01": node}), A + "1", A + "2").execute(raise_on_error=False)
    assert isinstance(answers[0], NodeAway)
    assert answers[1] == b"2"
    assert len(node.sent) == 1


async def test_all_from_the_first_refused_one_on_are_sent_again_together() -> None:
    between = TryAgainError("between")
    node = FakeNode([b"1", between, AskError("1 h:2")], [b"2", b"3"])
    cluster = FakeCluster({"s01": node})
    assert await pipeline_of(cluster, A + "1", A + "2", A + "3").execute() == [b"1", b"2", b"3"]
    assert keys_sent(node)[1] == [A + "2", A + "3"]
    assert not cluster.asked, "it would have been carried out before the one before it"


async def test_a_single_command_is_asked_of_the_node_that_gets_its_slot() -> None:
    node = FakeNode([AskError("1 h:2")])
    cluster = FakeCluster({"s01": node})
    assert await pipeline_of(cluster, A).execute() == [b"asked"]
    assert cluster.asked == [("GET", A)]


async def test_a_shard_that_stays_between_two_nodes_is_given_up() -> None:
    node = FakeNode(*([TryAgainError("between")] for _ in range(99)))
    with pytest.raises(TryAgainError):
        await pipeline_of(FakeCluster({"s01": node}), A).execute()
    assert 1 < len(node.sent) < 60


async def test_a_node_that_is_away_takes_no_answers_from_the_others_and_is_sent_nothing_twice() -> None:
    away, there = FakeNode(RedisConnectionError("gone")), FakeNode([b"1"])
    cluster = FakeCluster({"s01": away, "s02": there})
    answers = await pipeline_of(cluster, A, B).execute(raise_on_error=False)
    assert isinstance(answers[0], NodeAway)
    assert (answers[1], len(away.sent), cluster.suspected) == (b"1", 1, 1)


async def test_a_node_that_is_cut_off_from_the_others_is_suspected() -> None:
    """It answers, but takes nothing; meanwhile the others have promoted its replica, which no answer of it tells."""
    down, there = FakeNode([ClusterDownError("The cluster is down")]), FakeNode([b"1"])
    cluster = FakeCluster({"s01": down, "s02": there})
    answers = await pipeline_of(cluster, A, B).execute(raise_on_error=False)
    assert isinstance(answers[0], NodeAway)
    assert (answers[1], cluster.suspected) == (b"1", 1)


async def test_where_no_node_answers_the_whole_pipeline_fails() -> None:
    nodes = {"s01": FakeNode(RedisConnectionError("gone")), "s02": FakeNode(RedisConnectionError("gone"))}
    with pytest.raises(RedisConnectionError, match="gone"):
        await pipeline_of(FakeCluster(nodes), A, B).execute(raise_on_error=False)
