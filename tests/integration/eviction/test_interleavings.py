"""What happens while an item leaves Redis, or comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, cast

import asyncpg
import httpx2 as httpx
import pytest
from websockets.asyncio.client import connect

from api_gateway.engine.closed.reads import KEPT_S
from api_gateway.engine.creation.new_item import NewItem
from api_gateway.engine.loss.witnesses import Witnesses
from archival_worker.eviction.evictor import Evictor, _Candidate
from infrastructure.local.services import ALL_SERVICES, API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.domain.auction import Terms
from shared.domain.errors import ItemExists, ItemNotFound
from shared.redis_layout.keys import (
    closed_key,
    item_key,
    lost_key,
    recent_key,
)
from tests.acceptance.test_one_bid_end_to_end import feed_url
from tests.integration.eviction.eviction_world import AT_ONCE, auction_of, sold
from tests.integration.eviction.test_life import REASON, no_longer_returned
from tests.integration.feed.feed_world import greeted
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

BOTH = (API_GATEWAY, ARCHIVAL_WORKER)


class Slow(Witnesses):
    """Finds out that an item is new, and then something happens before it says so."""

    def __init__(self, witnesses: Witnesses, happens: Any) -> None:
        self._witnesses = witnesses
        self._happens = happens

    async def published_epochs(self, item_ids: Sequence[str]) -> dict[str, int]:
        return await self._witnesses.published_epochs(item_ids)

    async def archived(self, item_ids: Sequence[str]) -> dict[str, bool]:
        found = await self._witnesses.archived(item_ids)
        happens, self._happens = self._happens, None
        if happens is not None:
            await happens()
        return found


async def test_an_id_is_not_opened_a_second_time_by_a_gateway_that_slept(start_stack: StackFactory) -> None:
    """1. A gateway finds that the id is new. 2. Another one opens it, it is sold, archived, and leaves. 3. The first
    one opens it."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:

        async def whole_life() -> None:
            await sold(auction.house, "lot")
            await auction.evicted("lot")

        items = auction.items(Slow(auction.witnesses, whole_life))
        with pytest.raises(ItemExists):
            await items.create(NewItem(Terms("lot", 0), name="A second one"))
        assert await auction.traces("lot") == []
        assert (await auction.house.item("lot"))["status"] == "sold"

        openings: list[asyncio.Task[Any]] = []

        async def another_whole_life() -> None:
            await sold(auction.house, "again")
            await auction.evicted("again")
            openings.append(asyncio.create_task(items.create(NewItem(Terms("again", 0), name="A second one"))))
            await asyncio.wait(openings, timeout=0.5)

        # A gateway that opens an id does not rely on an older question, which began before all this.
        items = auction.items(Slow(auction.witnesses, another_whole_life))
        with pytest.raises(ItemNotFound):
            await items.absent("again")
        with pytest.raises(ItemExists):
            await openings[0]
        assert await auction.traces("again") == []

        # Without the fence it would have been opened: Redis does not have it.
        opened = await auction.items(cast(Any, KnowsNothing())).create(NewItem(Terms("other", 0), name="Another one"))
        assert opened.state.seq == 0


class KnowsNothing:
    async def published_epochs(self, item_ids: Sequence[str]) -> dict[str, int]:
        return {}

    async def archived(self, item_ids: Sequence[str]) -> dict[str, bool]:
        return {}


async def test_a_first_bid_on_an_id_that_has_left_opens_nothing(start_stack: StackFactory) -> None:
    # With a cache it could be told for a while how the item stands.
    stack = await start_stack(services=BOTH, env={"OPEN_CATALOGUE": "true", "READ_CACHE": "off"})
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        await sold(house, "dinars", currency="KWD")
        await auction.evicted("lot", "dinars")
        # By a gateway that has never heard of it, and that remembers nothing.
        await stack.restart(API_GATEWAY)
        answers = await asyncio.gather(*(house.bid("lot", f"u-{n}", f"b-{n}", amount=n + 100) for n in range(50)))
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(200, "SOLD")}
        assert await auction.traces("lot") == []

        await stack.stop_process("postgres")
        try:
            answer = await house.bid("lot", "eve", "late", amount=1_000)
            assert answer.status_code == 503, answer.text
            # Three decimals are right in its currency, which nobody can tell now.
            answer = await house.bid("dinars", "eve", "late", amount=1_000.125)
            assert answer.status_code == 503, answer.text
            assert (await house.http.get("/api/v1/items/lot")).status_code == 503
            assert (await house.http.post("/api/v1/items", json={"id": "lot", "name": "x"})).status_code == 503
            assert (await house.http.post("/api/v1/items/lot/bids/lot-ann/void", json=REASON)).status_code == 503
            assert (await house.http.get("/api/v1/bids/by-key/lot-ann?item_id=lot")).status_code == 503
            assert await auction.traces("lot") == []
        finally:
            await stack.start_process("postgres")

        async def is_back() -> bool:
            return (await house.http.get("/api/v1/items/lot")).status_code == 200

        await eventually(is_back)
        assert (await house.bid("lot", "eve", "late", amount=1_000)).json()["code"] == "SOLD"
        assert (await house.bid("dinars", "eve", "late", amount=1_000.125)).json()["code"] == "SOLD"


async def test_closed_items_that_cannot_be_read_do_not_hide_a_page_of_the_list(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        await auction.evicted("lot")
        await house.create("live")
        await house.all_archived()
        blocker = await asyncpg.connect(stack.urls.postgres_url)
        try:
            async with blocker.transaction():
                # Lists do not need it, and closed items do.
                await blocker.execute("LOCK TABLE chains IN ACCESS EXCLUSIVE MODE")
                answer = await house.http.get("/api/v1/items")
        finally:
            await blocker.close()
        assert answer.status_code == 200, answer.text
        assert [item["id"] for item in answer.json()["items"]] == ["live"]
        assert answer.json()["being_rebuilt"] == ["lot"]
        assert not await auction.redis.exists(lost_key(names.shard_of("lot")))
        listed = (await house.http.get("/api/v1/items")).json()
        assert ([item["id"] for item in listed["items"]], listed["being_rebuilt"]) == (["live", "lot"], [])


async def test_viewers_of_a_live_item_do_not_wait_for_an_archive_that_hangs(start_stack: StackFactory) -> None:
    stack = await start_stack(services=ALL_SERVICES)
    async with AsyncExitStack() as open_, auction_of(stack) as auction:
        await auction.house.create("live")
        await auction.house.all_published()
        blocker = await asyncpg.connect(stack.urls.postgres_url)
        open_.push_async_callback(blocker.close)
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE chains IN ACCESS EXCLUSIVE MODE")
            for number in range(64):
                await open_.enter_async_context(connect(f"{feed_url(stack)}/ws/items/gone-{number}"))
            # Eight workers that each wait for two seconds would come to it after sixteen.
            async with asyncio.timeout(6), connect(f"{feed_url(stack)}/ws/items/live") as viewer:
                assert (await greeted(viewer))["status"] == "open"
        async with connect(f"{feed_url(stack)}/ws/items/live") as viewer:
            assert (await greeted(viewer))["status"] == "open"


async def test_a_live_item_takes_bids_while_postgresql_is_away(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await house.create("live", increment={"kind": "flat", "value": 1})
        await house.accepted("live", "ann", "one", amount=1)
        await stack.stop_process("postgres")
        try:
            assert (await house.accepted("live", "bob", "two", amount=2))["seq"] == 2
            assert (await house.item("live"))["seq"] == 2
        finally:
            await stack.start_process("postgres")


async def test_a_void_that_comes_between_the_archives_word_and_the_removal(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        await auction.exported("lot")

        class Interrupted(Evictor):
            async def _exported(self, due: Sequence[_Candidate]) -> dict[str, int]:
                found = await super()._exported(due)
                await house.operate("lot/bids/lot-ann/void")
                await house.all_archived()
                return found

        assert await Interrupted(auction.pool, auction.redis, auction.metrics, AT_ONCE).look() == 0
        assert (await house.hash("lot"))["status"] == "unsold"
        voided = await house.http.get("/api/v1/items/lot")
        await no_longer_returned(auction, "lot")
        await auction.evicted("lot")
        assert (await house.http.get("/api/v1/items/lot")).content == voided.content


async def test_an_item_that_is_struck_after_a_look_has_begun_waits_for_the_next(start_stack: StackFactory) -> None:
    """1. It is due, and was never struck. 2. The archiver is suspended for over a minute. A bid is struck, which is
    archived and exported. 3. The archiver goes on, and asks for no minute after the export."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await auction.exported("lot")

        class Suspended(Evictor):
            async def _exported(self, due: Sequence[_Candidate]) -> dict[str, int]:
                assert [candidate.item_id for candidate in due] == ["lot"]
                await cast(Any, auction.redis).hset(item_key("lot"), "returned_us", 1)
                return await super()._exported(due)

        assert await Suspended(auction.pool, auction.redis, auction.metrics, AT_ONCE).look() == 0
        assert await auction.redis.exists(item_key("lot"))


async def test_cursors_are_read_in_the_same_way_wherever_the_item_is(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        cursors = ("", "1:2", "abc", "a b", "1:99999999999999999999", "1:" + "9" * 60)
        paths = {cursor: ("GET", f"/api/v1/items/lot/bids?cursor={cursor}", None, None) for cursor in cursors}
        before = await auction.answers("lot", **paths)
        assert [before[cursor][0] for cursor in cursors] == [200, 200, 422, 422, 422, 422]
        await auction.evicted("lot")
        assert await auction.answers("lot", **paths) == before


async def settled(ask: Callable[[], Awaitable[httpx.Response]]) -> bytes:
    """The answer. While a change of the item is being archived, which takes long on a busy machine, a gateway says that
    it cannot tell yet, and a client asks again."""
    answer = await ask()
    for _ in range(300):
        if answer.status_code != 503:
            break
        assert "try again" in answer.text
        await asyncio.sleep(0.1)
        answer = await ask()
    return answer.content


async def test_readers_and_repeats_see_no_seam(start_stack: StackFactory) -> None:
    """Everybody asks all the while, as the item leaves, comes back for a void, and leaves again."""
    stack = await start_stack(services=ALL_SERVICES)
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        first = (await house.bid("lot", "bob", "lot-bob", amount=1)).content
        key = (await house.http.get("/api/v1/bids/by-key/lot-bob?item_id=lot")).content
        await auction.exported("lot")
        is_over = asyncio.Event()
        asked = 0
        rest_s = 0.0
        readers = asyncio.Semaphore(4)

        async def no_longer_returned_between_reads() -> None:
            """No program takes the mark of a return away, so nobody may be in the middle of a read when it goes."""
            async with AsyncExitStack() as all_of_them:
                for _ in range(4):
                    await all_of_them.enter_async_context(readers)
                await no_longer_returned(auction, "lot")

        async def ask() -> None:
            seq = 0
            while not is_over.is_set():
                await asyncio.sleep(rest_s)
                async with readers:
                    seq = await look(seq)

        async def look(seq: int) -> int:
            nonlocal asked
            read = await house.http.get("/api/v1/items/lot")
            assert read.status_code == 200, read.text
            assert read.json()["seq"] >= seq, "it went back"
            seq = read.json()["seq"]
            assert await settled(lambda: house.bid("lot", "bob", "lot-bob", amount=1)) == first
            assert await settled(lambda: house.http.get("/api/v1/bids/by-key/lot-bob?item_id=lot")) == key
            history = await house.http.get("/api/v1/items/lot/bids")
            assert [bid["bid_id"] for bid in history.json()["bids"]] == ["lot-ann", "lot-bob"], history.text
            refused = json.loads(await settled(lambda: house.bid("lot", "eve", "eve-1", amount=1_000)))
            assert refused["code"] in ("SOLD", "CLOSED"), refused
            asked += 1
            return seq

        tasks = [asyncio.create_task(ask()) for _ in range(4)]
        try:
            for struck in ("lot-ann", "lot-bob"):
                for _ in range(3):
                    await auction.evicted("lot")
                    assert await auction.returns().bring_back("lot")
                    await no_longer_returned_between_reads()
                await auction.evicted("lot")
                await house.operate(f"lot/bids/{struck}/void")
                await auction.exported("lot")
                # The gateway's cache counts on the minute, of which it needs this part. Nothing moves meanwhile.
                rest_s = 0.2
                await asyncio.sleep(KEPT_S)
                rest_s = 0.0
                await no_longer_returned_between_reads()
        finally:
            is_over.set()
            await asyncio.gather(*tasks)
        assert asked > 10


async def test_an_item_without_its_hash_is_taken_for_what_the_archive_has(start_stack: StackFactory) -> None:
    """Redis has lost the hash of a closed item, which the archive has whole: nothing is missing."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        read = await house.http.get("/api/v1/items/lot")
        await auction.exported("lot")
        await auction.redis.delete(item_key("lot"))
        assert (await house.http.get("/api/v1/items/lot")).content == read.content
        assert await auction.redis.exists(recent_key("lot"))
        fence = await auction.fence("lot")
        await auction.evictor.look()
        assert await auction.traces("lot") == [], "what was left of it is gone, too"
        assert await auction.fence("lot") != fence
        code, output = await house.recover("--item", "lot")
        assert code == 3, output
        assert "is closed and served from the archive" in output
        await house.operate("lot/bids/lot-ann/void")
        assert (await house.item("lot"))["status"] == "unsold"


async def test_what_an_older_version_closed_is_found(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await auction.house.create("open")
        await auction.exported("lot")
        await auction.redis.delete(closed_key(names.shard_of("lot")))
        assert await auction.evictor.look() == 0
        task = asyncio.create_task(auction.evictor.run())
        try:

            async def has_left() -> bool:
                return not await auction.redis.exists(item_key("lot"))

            await eventually(has_left, seconds=30)
        finally:
            task.cancel()
        assert await auction.redis.exists(item_key("open"))
