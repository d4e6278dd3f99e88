"""Which nodes of a cluster are admitted, and for which shards, without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytest
from redis.exceptions import MovedError

from api_gateway.engine.loss.guard import Guard, NotAdmitted
from shared import names
from shared.redis_layout.keys import cursors_key, shard_of_key

A, B = names.SHARDS[:2]


class FakeNode:
    """A new connection to a node that has these shards, each with its mark; '' has none, None is closed."""

    def __init__(self, run: str, marks: Mapping[str, str | None], *, history: str = "h", mode: int = 1) -> None:
        self._info = f"run_id:{run}\r\nrole:master\r\nmaster_replid:{history}\r\ncluster_enabled:{mode}\r\n"
        self._marks = marks
        self._asked: list[str] = []
        self.is_closed = False

    async def disconnect(self, *, nowait: bool) -> None:
        self.is_closed = True

    async def on_connect(self) -> None:
        return

    async def send_command(self, *words: str) -> None:
        self._asked.append("INFO" if words[0] == "INFO" else str(shard_of_key(words[1])))

    async def read_response(self) -> Any:
        asked = self._asked.pop(0)
        if asked == "INFO":
            return self._info.encode()
        if asked not in self._marks:
            raise MovedError("1 10.0.0.1:6379")
        mark = self._marks[asked]
        return [None, b"old"] if mark is None else [b"1", mark.encode()]


class Comparison:
    def __init__(self) -> None:
        self.runs: list[str] = []

    async def __call__(self, run: str) -> None:
        self.runs.append(run)


async def connect(guard: Guard, run: str, marks: Mapping[str, str | None], **more: Any) -> None:
    connection = FakeNode(run, marks, **more)
    await guard.on_connect(cast(Any, connection))
    assert guard.run_of(cast(Any, connection)) == run
    assert not connection.is_closed


async def test_each_node_is_compared_once_for_the_shards_that_it_has() -> None:
    comparison = Comparison()
    guard = Guard(comparison, is_cluster=True)
    for _ in range(2):
        await connect(guard, "a", {A: "a"})
        await connect(guard, "b", {B: "b"})
    assert comparison.runs == ["a", "b"]


async def test_a_shard_that_has_arrived_is_compared_whether_others_have_marked_it_or_not() -> None:
    comparison = Comparison()
    guard = Guard(comparison, is_cluster=True)
    await connect(guard, "a", {A: "a"})
    await connect(guard, "b", {B: "b"})
    # Another gateway may have marked it already; what this one has seen was not compared.
    await connect(guard, "b", {A: "b", B: "b"})
    assert comparison.runs == ["a", "b", "b"]
    await connect(guard, "b", {A: "b", B: "b"})
    await connect(guard, "b", {B: "b"})
    assert comparison.runs == ["a", "b", "b"], "fewer shards are no news"


async def test_a_mark_of_another_node_is_compared_each_time() -> None:
    comparison = Comparison()
    guard = Guard(comparison, is_cluster=True)
    for _ in range(2):
        await connect(guard, "b", {A: "a", B: "b"})
    assert comparison.runs == ["b", "b"]


async def test_who_had_a_shard_before_is_trusted_no_longer() -> None:
    """1. A node fails over. 2. A client still reaches the old one, which has not heard of it."""
    comparison = Comparison()
    guard = Guard(comparison, is_cluster=True)
    await connect(guard, "old", {A: "old"})
    await connect(guard, "new", {A: "new"})
    await connect(guard, "old", {A: "old"})
    assert comparison.runs == ["old", "new", "old"]


async def test_closed_shards_and_shards_without_a_mark_are_no_reason() -> None:
    comparison = Comparison()
    guard = Guard(comparison, is_cluster=True)
    await connect(guard, "a", {A: None, B: ""})
    await connect(guard, "a", {A: None, B: ""})
    assert comparison.runs == ["a"]


async def test_only_the_runs_in_doubt_are_forgotten() -> None:
    comparison = Comparison()
    guard = Guard(comparison, is_cluster=True)
    await connect(guard, "a", {A: "a"})
    await connect(guard, "b", {B: "b"})
    guard.forget({"a", "unknown"})
    await connect(guard, "b", {B: "b"})
    await connect(guard, "a", {A: "a"})
    assert comparison.runs == ["a", "b", "a"]


async def test_a_node_of_a_cluster_is_no_single_redis() -> None:
    connection = FakeNode("a", {A: "a"})
    with pytest.raises(NotAdmitted, match=r"REDIS_URL must begin with redis\+cluster://"):
        await Guard(Comparison()).on_connect(cast(Any, connection))
    assert connection.is_closed
    await connect(Guard(Comparison()), "a", {A: "a"}, mode=0)


def test_the_key_of_a_shard_tells_it() -> None:
    assert [shard_of_key(cursors_key(shard)) for shard in names.SHARDS] == list(names.SHARDS)
