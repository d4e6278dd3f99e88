"""Items that are created at one moment: each has its own answer, and they share what is asked."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio

from api_gateway.engine.creation import openings
from api_gateway.engine.creation.new_item import NewItem
from api_gateway.engine.items import Items
from api_gateway.engine.loss.witnesses import Witnesses
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.nats import NatsLink
from shared.domain.auction import Terms
from shared.domain.errors import ItemExists, Overloaded, Unavailable
from shared.streams.last_ids import last_ids
from shared.streams.reader import last_id
from tests.integration.eviction.eviction_world import Auction, auction_of
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEMS = "/api/v1/items"
SOFT = {"trigger_s": 60, "extend_s": 90, "max_count": 3, "hard_end": "2090-01-01T01:00:00Z"}
TERMS: tuple[dict[str, Any], ...] = (
    {},
    {"description": "“two”\nlines", "currency": "JPY", "start_price": 500, "seller_id": "sam"},
    {"start_time": "2089-01-01T00:00:00Z", "end_time": "2090-01-01T00:00:00Z", "soft_close": SOFT},
    {"duration_s": 60, "reserve_price": 20, "buy_now_price": 40, "increment": {"kind": "ladder"}},
    {"increment": {"kind": "percent", "value": 2.5}, "start_price": 10, "reserve_price": 10},
)


@pytest.fixture
def prefix() -> str:
    return f"new-{secrets.token_hex(4)}"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def auction(gateway_stack: Stack) -> AsyncIterator[Auction]:
    async with auction_of(gateway_stack) as auction:
        yield auction


async def test_many_at_once_are_each_told_as_a_reader_is(http: httpx.AsyncClient, prefix: str) -> None:
    bodies = [
        {"name": f"Lot {number}", "id": f"{prefix}-{number}", **TERMS[number % len(TERMS)]} for number in range(100)
    ]
    # Some without an id of their own: they wait for nobody's answer.
    bodies += [{"name": "no id"} for _ in range(20)]
    answers = await asyncio.gather(*(http.post(ITEMS, json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {201}
    for body, answer in zip(bodies, answers, strict=True):
        item_id = body.get("id", answer.json()["id"])
        assert answer.headers["location"] == f"{ITEMS}/{item_id}"
        assert answer.headers["content-type"] == "application/json"
        assert (await http.get(f"{ITEMS}/{item_id}")).content == answer.content


async def test_the_framework_tells_of_a_new_item_in_the_same_bytes(http: httpx.AsyncClient, prefix: str) -> None:
    """A body in chunks takes the other road."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"name": "Lot",'
        yield b'"id": "%b", "duration_s": 60}' % prefix.encode()

    answer = await http.post(ITEMS, content=chunks(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["location"]) == (201, f"{ITEMS}/{prefix}")
    assert answer.headers["content-type"] == "application/json"
    assert (await http.get(f"{ITEMS}/{prefix}")).content == answer.content


async def test_of_many_who_want_one_id_one_has_it(http: httpx.AsyncClient, prefix: str) -> None:
    answers = await asyncio.gather(*(http.post(ITEMS, json={"name": f"n{n}", "id": prefix}) for n in range(40)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 39
    made = next(answer.json() for answer in answers if answer.status_code == 201)
    assert (await http.get(f"{ITEMS}/{prefix}")).json()["name"] == made["name"]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "ITEM_EXISTS"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"name": "x", "end_time": "2001-01-01T00:00:00Z"}, "TERMS_INVALID", "end_time"),
        ({"name": " "}, "TERMS_INVALID", "name"),
        ({"name": "x", "currency": "XXX"}, "CURRENCY_UNKNOWN", "currency"),
        ({"name": "x", "nmae": "y"}, "INVALID", "nmae"),
        ({"name": "x", "id": "no id"}, "INVALID", None),
        ({"name": "x", "start_price": "5"}, "AMOUNT_INVALID", "start_price"),
    ],
)
async def test_what_is_wrong_with_one_is_no_matter_of_the_others(
    http: httpx.AsyncClient, prefix: str, body: dict[str, Any], code: str, field: str | None
) -> None:
    wrong, *others = await asyncio.gather(
        http.post(ITEMS, json={"id": f"{prefix}-wrong"} | body),
        *(http.post(ITEMS, json={"name": "fine", "id": f"{prefix}-{n}"}) for n in range(5)),
    )
    assert (wrong.status_code, wrong.json()["code"], wrong.json().get("field")) == (422, code, field)
    assert {answer.status_code for answer in others} == {201}


async def test_a_body_over_the_bound_is_refused_as_before(http: httpx.AsyncClient) -> None:
    answer = await http.post(ITEMS, json={"name": "x", "description": "y" * 70_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "BODY_TOO_LARGE")


class Counting(Witnesses):
    """How often they are asked; waits where it is told to."""

    def __init__(self, witnesses: Witnesses) -> None:
        self._witnesses = witnesses
        self.asked: list[int] = []
        self.archive_is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def published_epochs(self, item_ids: Sequence[str]) -> dict[str, int]:
        await self.may_answer.wait()
        return await self._witnesses.published_epochs(item_ids)

    async def archived(self, item_ids: Sequence[str]) -> dict[str, bool]:
        self.asked.append(len(item_ids))
        if self.archive_is_away:
            raise Unavailable("away")
        return await self._witnesses.archived(item_ids)


def lot(item_id: str, *, is_random: bool = False) -> NewItem:
    return NewItem(Terms(item_id, 0), name="Lot", id_is_random=is_random)


def items_of(auction: Auction, witnesses: Witnesses) -> Items:
    return auction.items(witnesses)


async def test_items_of_one_moment_are_one_question(auction: Auction, prefix: str) -> None:
    witnesses = Counting(auction.witnesses)
    items = items_of(auction, witnesses)
    made = await asyncio.gather(*(items.create(lot(f"{prefix}-{number}")) for number in range(200)))
    assert [item.terms.item_id for item in made] == [f"{prefix}-{number}" for number in range(200)]
    assert len(witnesses.asked) <= 2
    await items.create(lot(f"{prefix}-sure", is_random=True))
    assert sum(witnesses.asked) == 200, "an id that was made here needs no question"
    with pytest.raises(ItemExists):
        await items.create(lot(f"{prefix}-7"))
    assert sum(witnesses.asked) == 200, "nor does one that is there"


async def test_while_nobody_can_tell_nothing_is_created_and_others_go_on(auction: Auction, prefix: str) -> None:
    witnesses = Counting(auction.witnesses)
    witnesses.archive_is_away = True
    items = items_of(auction, witnesses)
    with pytest.raises(Unavailable, match="away"):
        await items.create(lot(prefix))
    assert (await items.create(lot(f"{prefix}-sure", is_random=True))).state.seq == 0
    assert await auction.traces(prefix) == [key for key in await auction.traces(prefix) if f"{prefix}-sure" in key]
    witnesses.archive_is_away = False
    assert (await items.create(lot(prefix))).terms.item_id == prefix


async def test_those_who_wait_are_bounded(auction: Auction, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "WAITING_MAX", 10)
    witnesses = Counting(auction.witnesses)
    witnesses.may_answer.clear()
    items = items_of(auction, witnesses)
    first = asyncio.create_task(items.create(lot(prefix)))
    await asyncio.sleep(0.05)
    answers = [items.openings.open(lot(f"{prefix}-{number}")) for number in range(12)]
    refused = [answer.exception() for answer in answers if answer.done()]
    assert [type(error) for error in refused] == [Overloaded] * 2
    witnesses.may_answer.set()
    await first
    assert len(await asyncio.gather(*answers[:10])) == 10


async def test_the_newest_messages_of_many_subjects_are_one_question(
    auction: Auction, http: httpx.AsyncClient, prefix: str
) -> None:
    ids = [f"{prefix}-{number}" for number in range(6)]
    for item_id in ids[::2]:
        await http.post(ITEMS, json={"name": "Lot", "id": item_id})
    link = NatsLink(auction.stack.urls.nats_url, name="test")
    subjects = [names.subject_of(item_id) for item_id in ids]
    try:
        client = await link.connected()

        async def all_published() -> bool:
            return len(await last_ids(client, subjects, timeout_s=5)) == 3

        await eventually(all_published)
        found = await last_ids(client, subjects, timeout_s=5)
        for subject in subjects:
            assert found.get(subject) == await last_id(client.jetstream(), subject)
            alone = await last_ids(client, [subject], timeout_s=5)
            assert alone.get(subject) == found.get(subject)
        nobody = [names.subject_of(f"{prefix}-nobody-{number}") for number in range(3)]
        assert await last_ids(client, nobody, timeout_s=5) == {}
    finally:
        await link.close()
