"""Pages of items are made few at a time, shared by who asks for the same one, and never older than who asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from api_gateway.reads import listing
from api_gateway.reads.listing import AT_ONCE_MAX, OF_ONE_MAX, Listing, Wish
from shared.archive_reads.catalogue import CataloguePage
from shared.domain.errors import InvalidInput, Overloaded, Unavailable

WISH = Wish(None, "newest", None, 50)


class Reading:
    def __init__(self, body: bytes) -> None:
        self.body = body


class World:
    """A catalogue of three items, all of which Redis has. Pages are made when the test lets them."""

    def __init__(self) -> None:
        self.let = asyncio.Semaphore(0)
        self.asked: list[Wish] = []
        self.price = 0
        self.padding = ""
        self.error: Exception | None = None
        self.listing = Listing(cast(Any, self), cast(Any, self))

    async def page(
        self, *, status: str | None, sort: str, cursor: str | None, limit: int, seller: str | None
    ) -> CataloguePage:
        self.asked.append(Wish(status, cast(Any, sort), cursor, limit, seller))
        await self.let.acquire()
        if self.error is not None:
            raise self.error
        ids = ["a", "b", "c"]
        return CataloguePage(ids[:limit], f"after {limit}" if limit < len(ids) else None)

    async def readings(self, item_ids: Sequence[str]) -> dict[str, Reading]:
        told = {"price": self.price, "padding": self.padding}
        return {item_id: Reading(msgspec.json.encode({"id": item_id, **told})) for item_id in item_ids}

    def ask(self, wish: Wish = WISH, payer: str = "") -> asyncio.Task[bytes]:
        return asyncio.create_task(self.listing.page(wish, payer))


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_asks_while_a_page_is_made_is_told_the_next_one() -> None:
    world = World()
    first = world.ask()
    await turns()
    later = [world.ask() for _ in range(5)]
    await turns()
    # The first is under way; of the others one is made for all.
    assert len(world.asked) == AT_ONCE_MAX
    world.price = 7
    for _ in range(2):
        world.let.release()
    pages = await asyncio.gather(*later)
    assert len(world.asked) == 2
    assert all(page is pages[0] for page in pages)
    assert msgspec.json.decode(pages[0])["items"][0]["price"] == 7
    await first


async def test_few_are_made_at_once_and_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "WAITING_MAX", 3)
    world = World()
    asked = []
    for number in range(AT_ONCE_MAX + 3):
        asked.append(world.ask(WISH._replace(limit=number + 1), f"user-{number}"))
        await turns()
    assert len(world.asked) == AT_ONCE_MAX
    with pytest.raises(Overloaded):
        await world.listing.page(WISH._replace(limit=99))
    for _ in asked:
        world.let.release()
    await asyncio.gather(*asked)
    assert len(world.asked) == len(asked)


async def test_nobody_waits_for_all_that_another_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "AT_ONCE_MAX", 1)
    world = World()
    greedy = [world.ask(WISH._replace(limit=1), "mallory")]
    await turns()
    greedy += [world.ask(WISH._replace(limit=number + 2), "mallory") for number in range(OF_ONE_MAX)]
    await turns()
    with pytest.raises(Overloaded, match="you have asked"):
        await world.listing.page(WISH._replace(limit=99), "mallory")
    # Also who wants what the other has asked for last.
    patient = [world.ask(WISH._replace(limit=77), "ann"), world.ask(WISH._replace(limit=OF_ONE_MAX + 1), "bob")]
    for _ in range(5):
        world.let.release()
        await turns()
    assert all(each.done() for each in patient)
    assert sum(each.done() for each in greedy) == 4
    for _ in greedy:
        world.let.release()
    await asyncio.gather(*greedy)
    assert len(world.asked) == len(greedy) + 1, "what two ask for is made once"


async def test_where_all_room_is_taken_who_holds_most_of_it_makes_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "AT_ONCE_MAX", 1)
    monkeypatch.setattr(listing, "WAITING_MAX", 6)
    world = World()
    made = world.ask(WISH._replace(limit=1), "mallory")
    await turns()
    of_mallory = [world.ask(WISH._replace(limit=number), "mallory") for number in (2, 3, 4)]
    of_trudy = [world.ask(WISH._replace(limit=number), "trudy") for number in (5, 6)]
    of_dee = world.ask(WISH._replace(limit=7), "dee")
    # A page that two callers want does not count against either of them alone.
    of_ann = world.ask(WISH._replace(limit=4), "ann")
    await turns()
    of_bob = world.ask(WISH._replace(limit=8), "bob")
    await turns()
    assert [each.done() for each in of_mallory] == [False, True, False], "the last one that is nobody else's"
    with pytest.raises(Overloaded, match="yours"):
        await of_mallory[1]
    # Nobody holds so much more than whoever asks now.
    with pytest.raises(Overloaded, match="too many lists"):
        await world.listing.page(WISH._replace(limit=9), "ann")
    for _ in range(7):
        world.let.release()
        await turns()
    await asyncio.gather(made, of_mallory[0], of_mallory[2], *of_trudy, of_dee, of_ann, of_bob)
    assert [wish.limit for wish in world.asked] == [1, 2, 5, 7, 4, 8, 6]


async def test_a_page_that_another_has_had_made_costs_nobody_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "AT_ONCE_MAX", 1)
    monkeypatch.setattr(listing, "OF_ONE_MAX", 2)
    world = World()
    wanted = [("mallory", 1), ("mallory", 2), ("ann", 2), ("ann", 4), ("bob", 5), ("mallory", 3)]
    asked = []
    for payer, limit in wanted:
        asked.append(world.ask(WISH._replace(limit=limit), payer))
        await turns()
    world.let.release()
    await turns()
    # The page that both wanted is being made. So one of ann's waits, and she may ask for another.
    asked.append(world.ask(WISH._replace(limit=6), "ann"))
    await turns()
    for _ in range(5):
        world.let.release()
        await turns()
    await asyncio.gather(*asked)
    assert [wish.limit for wish in world.asked] == [1, 2, 4, 5, 3, 6]


async def test_those_of_whom_nothing_is_known_are_not_taken_for_one_who_asks_for_much() -> None:
    world = World()
    asked = [world.ask(WISH._replace(limit=number + 1)) for number in range(2 * OF_ONE_MAX)]
    await turns()
    for _ in asked:
        world.let.release()
    await asyncio.gather(*asked)
    assert len(world.asked) == len(asked)


async def test_an_error_reaches_all_who_wait_and_nobody_after_them() -> None:
    world = World()
    world.error = InvalidInput("cursor: no")
    world.let.release()
    with pytest.raises(InvalidInput):
        await world.listing.page(WISH)
    world.error = ValueError("a defect")
    world.let.release()
    with pytest.raises(Unavailable):
        await world.listing.page(WISH)
    world.error = None
    world.let.release()
    assert len(msgspec.json.decode(await world.listing.page(WISH))["items"]) == 3


async def test_who_goes_away_does_not_end_it_for_the_others() -> None:
    world = World()
    gone, stays = world.ask(), world.ask()
    await turns()
    gone.cancel()
    await turns()
    world.let.release()
    assert len(msgspec.json.decode(await stays)["items"]) == 3


async def test_a_page_of_too_many_bytes_is_shorter_and_has_the_cursor_of_the_shorter_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    world.padding = "x" * 100
    monkeypatch.setattr(listing, "PAGE_BYTES_MAX", 300)
    for _ in range(2):
        world.let.release()
    page = msgspec.json.decode(await world.listing.page(WISH))
    assert [item["id"] for item in page["items"]] == ["a", "b"]
    assert page["next_cursor"] == "after 2"
    # One item is always told, however large it is.
    monkeypatch.setattr(listing, "PAGE_BYTES_MAX", 10)
    for _ in range(2):
        world.let.release()
    page = msgspec.json.decode(await world.listing.page(WISH))
    assert [item["id"] for item in page["items"]] == ["a"]


@pytest.mark.parametrize("turns_later", range(12))
async def test_who_asks_at_the_moment_when_the_last_page_is_done_is_answered(
    turns_later: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1. The last page is made. 2. Somebody asks for another one. 3. The loop hears that the task of 1 has ended."""
    monkeypatch.setattr(listing, "AT_ONCE_MAX", 1)
    world = World()
    for _ in range(2):
        world.let.release()
    first = world.ask()
    for _ in range(turns_later):
        await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await world.listing.page(WISH._replace(limit=2))
        await first
