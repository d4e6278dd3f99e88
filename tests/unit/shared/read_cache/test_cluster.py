"""What a process does whose ring is not that of the nodes any more."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, cast

import pytest

from shared.read_cache.cluster import Cluster
from shared.read_cache.errors import Overloaded, PeerFailed
from shared.read_cache.membership.view import Membership, View
from shared.read_cache.peers.link import Kind
from shared.read_cache.remote import Fetched, OnFetched
from shared.read_cache.ring import Node, Ring
from shared.read_cache.stats import Stats
from tests.waiting import eventually

A, B, C = (Node(name, f"127.0.0.1:{port}") for port, name in enumerate("abc", start=1))
BEHIND = View(1, Ring([A, B]), None)
NEWEST = View(2, Ring([B, C]), None)
KEYS = [f"k{number}" for number in range(100)]
Answers = dict[str, Fetched | PeerFailed | Overloaded]


class Members(Membership):
    """Behind, until the newest ring is asked for."""

    def __init__(self, newest: View) -> None:
        self.view = BEHIND
        self.to_come = newest
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    def current(self) -> View | None:
        return self.view

    lapses = 0

    def suspect(self, epoch: int) -> None:
        pass

    async def newest(self) -> View | None:
        self.asked += 1
        await self.answers.wait()
        self.view = self.to_come
        return self.view

    async def run(self) -> None:
        raise AssertionError


class Nodes(Cluster):
    """Nodes that all mean the newest ring."""

    def __init__(self, newest: View = NEWEST, *, means: View = NEWEST) -> None:
        self.members = Members(newest)
        self.means = means
        self.asked: list[tuple[str, int]] = []
        super().__init__(self.members, Stats(), on_lapse=lambda: None)
        self.view()

    def link(self, name: str) -> Any:
        nodes = self

        class Link:
            def ask(self, kind: Kind, key: str, on_fetched: OnFetched) -> None:
                nodes.asked.append((name, kind.epoch))
                means = kind.epoch == nodes.means.epoch
                answer = Fetched(b"a row", 60) if means else PeerFailed(name, "another ring", other_ring=True)
                asyncio.get_running_loop().call_soon(on_fetched, answer)

        return Link()

    async def answers_to(self, keys: list[str], **arguments: Any) -> Answers:
        answers: Answers = {}
        for key in keys:
            owner = self.owner(key)
            assert owner is not None
            self.ask(owner, "items", key, partial(answers.__setitem__, key), **arguments)
        await eventually(lambda: len(answers) == len(keys))
        return answers


async def test_who_is_behind_asks_the_owner_of_the_newest_ring() -> None:
    nodes = Nodes()
    answers = await nodes.answers_to(KEYS)
    assert set(answers.values()) == {Fetched(b"a row", 60)}
    assert nodes.members.asked == 1, "once for all of them"
    assert len(nodes.asked) == 200
    owners = {NEWEST.ring.owner(key).name for key in KEYS}
    assert {asked for asked in nodes.asked if asked[1] == 2} == {(name, 2) for name in owners}
    assert nodes._stats.other_ring == 100


async def test_a_node_that_is_behind_itself_costs_a_load_and_the_ring_is_asked_for_now_and_then() -> None:
    nodes = Nodes(BEHIND)
    for _ in range(20):
        answers = await nodes.answers_to(KEYS[:5])
        assert all(isinstance(answer, PeerFailed) and answer.other_ring for answer in answers.values())
    assert nodes.members.asked < 20
    assert len(nodes.asked) == 100, "nobody was asked twice"


async def test_who_owns_a_key_by_the_newest_ring_loads_it() -> None:
    nodes = Nodes(View(2, NEWEST.ring, "c"))
    mine = [key for key in KEYS if NEWEST.ring.owner(key) == C]
    answers = await nodes.answers_to(mine)
    assert all(isinstance(answer, PeerFailed) for answer in answers.values())


async def test_who_asks_what_is_kept_asks_once() -> None:
    nodes = Nodes()
    answers = await nodes.answers_to(KEYS[:5], kept_only=True)
    assert all(isinstance(answer, PeerFailed) for answer in answers.values())
    assert nodes.members.asked == 0


async def test_a_second_answer_of_another_ring_is_the_last() -> None:
    nodes = Nodes(means=View(3, NEWEST.ring, None))
    answers = await nodes.answers_to(KEYS[:5])
    assert all(isinstance(answer, PeerFailed) for answer in answers.values())
    assert len(nodes.asked) == 10


async def test_whoever_waits_for_the_ring_when_it_ends_is_told() -> None:
    nodes = Nodes()
    nodes.members.answers.clear()
    told: list[Any] = []
    nodes.ask(cast(str, nodes.owner("k1")), "items", "k1", told.append)
    await eventually(lambda: nodes.members.asked == 1)
    await nodes.close()
    assert [type(answer) for answer in told] == [PeerFailed]


async def test_a_ring_that_is_not_told_in_time_costs_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.read_cache.cluster._RENEW_MAX_S", 0.01)
    nodes = Nodes()
    nodes.members.answers.clear()
    answers = await nodes.answers_to(KEYS[:5])
    assert all(isinstance(answer, PeerFailed) for answer in answers.values())
