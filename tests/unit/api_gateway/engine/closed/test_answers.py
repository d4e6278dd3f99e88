"""What a bid on a closed item is answered that has left Redis; how long that there is no such item is believed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.closed import closed_items as module
from api_gateway.engine.closed.closed_items import ClosedItems
from api_gateway.engine.item_reads import Absent
from shared.archive_reads.origin import decode_state
from shared.domain.errors import Unavailable
from shared.redis_layout.stored_verdicts import (
    StoredVerdict,
    field_of_bid_id,
    field_of_first,
    field_of_other,
    fingerprint_of,
)
from tests.unit.api_gateway.engine.closed.closed_world import ITEM, FakeArchive, FakeRedis, World, state

LINE = b"A|b|1|100|100|1|101|1|bid|1|5"


class Kept:
    """What the archive has under keys: it answers once it may, and counts who asks at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **found: bytes) -> None:
        self.found = found
        self.running = self.running_max = 0
        self.fails = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        monkeypatch.setattr(module, "keyed_verdicts", self._ask)

    async def _ask(self, fetch: Any, item_id: str, user_id: str | None, key: str) -> dict[str, bytes]:
        self.running += 1
        self.running_max = max(self.running, self.running_max)
        try:
            await self.may_answer.wait()
            if self.fails:
                raise Unavailable("away")
            return self.found
        finally:
            self.running -= 1


def closed() -> ClosedItems:
    return ClosedItems(cast(Any, None), cast(Any, None), cast(Any, SimpleNamespace(fetch=None)))


def bid(key: str | None, *, user: str = "ada", amount: int = 100, header: bool = False) -> PendingBid:
    verdict = PendingVerdict()
    return PendingBid(ITEM, user, "b", amount, None, key, not header, verdict)


def stored(user: str, amount: int = 100) -> bytes:
    return StoredVerdict(user, fingerprint_of(amount, None), LINE).encode()


async def test_a_repeat_has_its_verdict_and_whoever_takes_a_key_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {field_of_bid_id("k"): stored("ada"), field_of_first("h"): stored("ada")}
    Kept(monkeypatch, **found, **{field_of_other("bob", "h"): stored("bob", 7)})
    item, items = decode_state(state(5)), closed()
    assert await items.answer(item, bid("k")) == LINE
    assert await items.answer(item, bid("k", amount=101)) == b"K"
    assert await items.answer(item, bid("k", user="eve")) == b"K", "one bid id names one bid"
    assert await items.answer(item, bid("h", user="bob", amount=7, header=True)) == LINE
    assert await items.answer(item, bid("h", user="bob", header=True)) == b"K"
    for fresh in (bid(None), bid("h", user="eve", header=True), bid("k", user="eve", header=True)):
        assert await items.answer(item, fresh) == b"R|CLOSED|0|0|1|1", "a header key of somebody else does not count"


async def test_few_keys_are_looked_for_at_once_and_whatever_becomes_of_it_there_is_room_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "TURN_S", 0.05)
    kept, items = Kept(monkeypatch), closed()
    kept.may_answer.clear()
    asking = [asyncio.create_task(items.verdict(ITEM, "ada", f"k-{n}")) for n in range(5)]
    _, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert len(waiting) >= 2
    kept.fails = True
    kept.may_answer.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
    assert kept.running_max == 2
    kept.fails = False
    async with asyncio.timeout(10):
        assert [await items.verdict(ITEM, "ada", "k") for _ in range(3)] == [None] * 3


class NoItems(FakeArchive):
    async def get(self, key: str) -> None:
        self._world.questions.append(key)


async def test_that_a_lost_item_is_no_closed_one_is_believed_for_a_moment_and_of_so_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LOST_KEPT_MAX", 2)
    world = World()
    items = ClosedItems(cast(Any, FakeRedis(world)), NoItems(world), cast(Any, None))
    for item_id in ("a", "b", "a", "c", "b"):
        assert await items.find(item_id, Absent(1, is_noted=True)) is None
    assert world.questions == ["states/a", "states/b", "states/c"]
    assert await items.find("a", Absent(1, is_noted=True)) is None
    assert len(world.questions) == 4, "the oldest was forgotten"
    items._lost = dict.fromkeys(items._lost, asyncio.get_running_loop().time() - 0.001)
    assert await items.find("a", Absent(1, is_noted=True)) is None
    assert len(world.questions) == 5, "it may be archived by now"


async def test_an_item_is_in_the_epoch_that_its_shard_has_now() -> None:
    world = World()
    items = ClosedItems(cast(Any, FakeRedis(world)), FakeArchive(world), cast(Any, None))
    first = await items.find(ITEM, Absent(1, is_noted=False))
    assert first is not None
    assert await items.find(ITEM, Absent(1, is_noted=False)) is first, "decoded once while it stays"
    later = await items.find(ITEM, Absent(3, is_noted=False))
    assert later is not None
    assert (first.state.epoch, later.state.epoch) == (1, 3)
    assert (items.body_of(later), items.body_of(first)) == (items.body_of(later), items.body_of(first))
    assert b'"epoch":3' in items.body_of(later)
    assert b'"epoch":1' in items.body_of(first)
