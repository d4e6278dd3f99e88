"""Several items in one call of the script: what was the case with one of them says nothing about the next."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.scripts import Decided
from shared.domain.errors import OutcomeUnknown
from shared.redis_layout.keys import accepted_key, bidders_key, item_key, proxies_key, recent_key, refusals_key
from tests.integration.gateway.bids.lot import Lot, new_lot

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def other(own_redis: Redis) -> Lot:
    return new_lot(own_redis)


async def results_of(lot: Lot, *calls: list[PendingBid]) -> list[Decided | Exception]:
    """One call of the script about several items."""
    try:
        return await lot._bids.place(calls)
    finally:
        await lot._bids.close()


async def each_decided(lot: Lot, *calls: list[PendingBid]) -> list[Decided]:
    """The same, where each item has its verdicts."""
    found: list[Decided] = []
    for result in await results_of(lot, *calls):
        assert isinstance(result, Decided), result
        found.append(result)
    return found


@pytest.mark.parametrize("older_is", ["first", "last"])
async def test_an_item_of_the_layout_before_is_asked_for_its_verdicts_beside_any_other(
    lot: Lot, other: Lot, own_redis: Redis, older_is: str
) -> None:
    """In one call with an item that has no such verdicts. Taken for that one, its bid would be accepted twice."""
    for each in (lot, other):
        await each.open()
        await each.place(each.bid("ada", 10))
    old = "A|old|1|10|10|1|11|1|bid|1|5"
    await own_redis.set(f"{{{lot.shard}}}:idem:{lot.item_id}:ada:old", f"20,\n{old}")
    await cast(Any, own_redis.hdel(item_key(lot.item_id), "keeps_verdicts"))
    # And what looks like one of the other item, which is too young to have any.
    await own_redis.set(f"{{{other.shard}}}:idem:{other.item_id}:ada:new", f"20,\n{old}")
    calls = [[lot.bid("ada", 20, bid_id="old")], [other.bid("ada", 20, bid_id="new")]]
    results = await each_decided(lot, *(calls if older_is == "first" else calls[::-1]))
    of_lot, of_other = results if older_is == "first" else results[::-1]
    assert [verdict.decode() for verdict in of_lot.verdicts] == [old]
    assert of_lot.entry == 0, "nothing was decided anew"
    assert of_other.verdicts[0].startswith(b"A|new|2|20|")


async def test_a_verdict_that_is_told_again_names_the_newest_entry_of_its_shard(lot: Lot) -> None:
    """Whoever is to be told only once the event is safe waits for that, also the one who repeats a bid."""
    await lot.open()
    first = await lot.call(lot.bid("ada", 10, bid_id="k"))
    assert isinstance(first, Decided)
    assert first.entry == first.last_entry > 0
    await lot.place(lot.bid("bob", 20))
    for bids in ([lot.bid("ada", 10, bid_id="k")], [lot.bid("cyd", 1, bid_id="low")]):
        again = await lot.call(*bids)
        assert isinstance(again, Decided)
        assert (again.entry, again.last_entry) == (0, first.entry + 1)


async def test_the_refusals_of_each_item_of_a_call_are_its_own(lot: Lot, other: Lot) -> None:
    await lot.open(start_price=100)
    await other.open(start_price=500)

    def calls() -> list[list[PendingBid]]:
        return [[each.bid("ada", 5, bid_id="k"), each.bid("bob", 6, key="h")] for each in (lot, other)]

    first = await each_decided(lot, *calls())
    assert [result.verdicts[0].split(b"|")[4] for result in first] == [b"100", b"500"]
    for each in (lot, other):
        kept = {name for name in await each.hash(refusals_key(each.item_id)) if name[:2] in (b"b:", b"h:", b"u:")}
        assert kept == {b"b:k", b"h:h"}
        await each.place(each.bid("cyd", 1_000))
    assert [result.verdicts for result in await each_decided(lot, *calls())] == [result.verdicts for result in first]


async def test_an_item_that_fails_in_a_call_keeps_nothing_from_those_after_it(lot: Lot, other: Lot) -> None:
    await lot.open()
    await other.open(start_price=100)
    await lot.place(lot.bid("ada", 10, 90, bid_id="first"))
    await lot.redis.delete(recent_key(lot.item_id))
    await lot.redis.set(recent_key(lot.item_id), "not what it should be")
    failed, decided = await results_of(lot, [lot.bid("bob", 50, 70, key="h")], [other.bid("bob", 100, key="h")])
    assert isinstance(failed, OutcomeUnknown)
    assert isinstance(decided, Decided)
    assert decided.verdicts[0].split(b"|")[2:6] == [b"1", b"100", b"100", b"1"]
    assert await other.hash(bidders_key(other.item_id)) == {b"bob": b"1"}
    assert await other.hash(proxies_key(other.item_id)) == {}
    assert len(await cast(Any, other.redis.lrange(accepted_key(other.item_id), 0, -1))) == 1


async def test_a_raised_maximum_alone_counts_like_any_other_accepted_bid(lot: Lot) -> None:
    """It has no event. Whoever strikes a bid counts on from its place, and whoever left it is one who has bid."""
    await lot.open()
    for bid in (lot.bid("ada", 10, 50), lot.bid("ada", 0, 90), lot.bid("bob", 20), lot.bid("ada", 0, 95)):
        await lot.place(msgspec.structs.replace(bid, amount=bid.amount or None))
    item = await lot.hash(item_key(lot.item_id))
    assert (item[b"accepted"], item[b"bids_counted"], item[b"bid_count"]) == (b"4", b"4", b"2")
    assert item[b"leader_max"] == b"95"
    assert await lot.hash(bidders_key(lot.item_id)) == {b"ada": b"3", b"bob": b"1"}
    assert await lot.hash(proxies_key(lot.item_id)) == {b"ada": b"95"}
    log = await cast(Any, lot.redis.lrange(accepted_key(lot.item_id), 0, -1))
    assert [int(line.split(b"|")[0]) for line in log] == [1, 2, 3, 4]
