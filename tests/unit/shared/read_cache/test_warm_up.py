"""Which nodes a node that has joined asks again, and which not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from shared.read_cache import warm_up
from shared.read_cache.errors import PeerFailed
from shared.read_cache.membership.view import View
from shared.read_cache.ring import Node, Ring

HERE, OTHER = Node("a", "127.0.0.1:1"), Node("b", "127.0.0.1:2")
VIEW = View(7, Ring([HERE, OTHER]), "a")
OTHER_RING = PeerFailed("b", "means another ring", other_ring=True)


class Peer:
    """A link whose answers to Keys are these, one after the other; the last one stays."""

    def __init__(self, *answers: list[str] | PeerFailed) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def keys_for(self, *_: Any) -> list[str]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, PeerFailed):
            raise answer
        return answer


class Group:
    def __init__(self) -> None:
        self.taken: list[tuple[str, str]] = []

    async def take_over(self, key: str, owner: str) -> bool:
        self.taken.append((key, owner))
        return True


class Cache(dict[str, Group]):
    bytes_live, bytes_max = 0, 100


async def take_over(peer: Peer, *, view: View | None = VIEW) -> list[tuple[str, str]]:
    cache = Cache(items=Group())
    cluster = SimpleNamespace(link=lambda name: peer, view=lambda: view)
    taken = await warm_up._take_over(cast(Any, cache), cast(Any, cluster), VIEW, "items", "b")
    assert taken == len(cache["items"].taken)
    return cache["items"].taken


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_up, "_LOOK_S", 0.001)


async def test_one_that_has_not_heard_of_the_ring_yet_is_asked_until_it_has() -> None:
    peer = Peer(*[OTHER_RING] * 12, ["k"])
    assert await take_over(peer) == [("k", "b")]
    assert peer.asked == 13


async def test_one_that_never_hears_of_it_is_given_up() -> None:
    peer = Peer(OTHER_RING)
    assert await take_over(peer) == []
    assert peer.asked == 30


async def test_one_that_keeps_nothing_is_asked_once() -> None:
    peer = Peer([])
    assert await take_over(peer) == []
    assert peer.asked == 1


async def test_one_that_is_dead_is_asked_once() -> None:
    peer = Peer(PeerFailed("b", "UNAVAILABLE", is_dead=True))
    assert await take_over(peer) == []
    assert peer.asked == 1


async def test_nobody_is_asked_under_a_ring_that_is_over() -> None:
    peer = Peer(OTHER_RING)
    assert await take_over(peer, view=None) == []
    assert peer.asked == 1
