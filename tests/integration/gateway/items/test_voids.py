"""A struck bid over HTTP, with the real gateway: what the item becomes, and what the history and the archive say."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx2 as httpx
import pytest
from redis.asyncio import Redis

from archival_worker.chain.audit import audit
from infrastructure.local.services import ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared.messages import BidVoided, decode_event
from shared.redis_layout.keys import accepted_key, proxies_key, recent_key, verdicts_key
from shared.redis_layout.limits import ACCEPTED_KEPT
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]
_numbers = itertools.count()


async def opened(http: httpx.AsyncClient, **terms: Any) -> str:
    item = f"void-{next(_numbers)}"
    answer = await http.post("/api/v1/items", json={"id": item, "name": item, "start_price": 1} | terms)
    assert answer.status_code == 201, answer.text
    return item


async def bid(http: httpx.AsyncClient, item: str, user: str, **amounts: Any) -> Json:
    answer = await http.post(f"/api/v1/items/{item}/bid", json={"user_id": user} | amounts)
    assert answer.status_code == 201, answer.text
    verdict: Json = answer.json()
    return verdict


async def strike(http: httpx.AsyncClient, item: str, bid_id: str) -> httpx.Response:
    return await http.post(f"/api/v1/items/{item}/bids/{bid_id}/void", json={"reason": "a mistake", "by": "olga"})


async def strike_again(http: httpx.AsyncClient, item: str, bid_id: str) -> list[httpx.Response]:
    """All answers up to the first that is not 503: while the archive lags behind, nothing is changed."""
    answers: list[httpx.Response] = []

    async def is_told() -> bool:
        answers.append(await strike(http, item, bid_id))
        return answers[-1].status_code != 503

    await eventually(is_told, "an answer but 503", seconds=60)
    return answers


async def history(http: httpx.AsyncClient, item: str) -> list[tuple[float, str, str]]:
    """Oldest first."""
    bids = (await http.get(f"/api/v1/items/{item}/bids?limit=200")).json()["bids"]
    return [(each["amount"], each["kind"], each["status"]) for each in reversed(bids)]


async def void_events(redis: Redis, item: str) -> list[BidVoided]:
    raw: Any = await redis.lrange(recent_key(item), 0, -1)
    return [event for event in map(decode_event, reversed(raw)) if isinstance(event, BidVoided)]


async def assert_archive_agrees(stack: Stack, http: httpx.AsyncClient, item: str) -> None:
    """The price in Redis is that of the highest valid row in PostgreSQL; the history and the audit agree."""
    shown = (await http.get(f"/api/v1/items/{item}")).json()
    connection = await asyncpg.connect(stack.urls.postgres_url)
    try:

        async def archived() -> bool:
            row = await connection.fetchrow("SELECT seq FROM items WHERE item_id = $1", item)
            return row is not None and row["seq"] == shown["seq"]

        await eventually(archived, seconds=60)
        rows = await connection.fetch("SELECT amount, kind, status FROM bids WHERE item_id = $1 ORDER BY seq", item)
    finally:
        await connection.close()
    valid = [row["amount"] for row in rows if row["status"] == "valid"]
    assert max(valid, default=100) == round(shown["current_bid"] * 100)
    stored = [(row["amount"] / 100, row["kind"], row["status"]) for row in rows]
    assert stored[-200:] == await history(http, item)
    report = await audit(stack.urls.postgres_url, item)
    assert report.finding is None, report.text()


async def test_a_struck_maximum_does_not_go_on_winning(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    item = await opened(http)
    bob = await bid(http, item, "bob", max_amount=100)
    await bid(http, item, "ann", amount=10)
    after = (await strike(http, item, bob["bid_id"])).json()
    assert (after["current_bid"], after["highest_bidder_id"], after["bid_count"]) == (10, "ann", 1)
    assert await history(http, item) == [(1, "bid", "voided"), (10, "bid", "valid"), (10.01, "proxy", "voided")]
    await assert_archive_agrees(gateway_stack, http, item)
    assert (await bid(http, item, "cyd", amount=10.01))["is_highest"]


async def test_automatic_bids_of_others_are_made_anew(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    item = await opened(http, increment={"kind": "flat", "value": 1})
    await bid(http, item, "ann", max_amount=50)
    bob = await bid(http, item, "bob", max_amount=100)
    await bid(http, item, "cyd", max_amount=200)
    after = (await strike(http, item, bob["bid_id"])).json()
    assert (after["current_bid"], after["highest_bidder_id"], after["bid_count"]) == (51, "cyd", 2)
    rows = [(1, "bid", "valid"), (51, "bid", "voided"), (101, "bid", "repriced"), (51, "proxy", "valid")]
    assert await history(http, item) == rows
    await assert_archive_agrees(gateway_stack, http, item)
    assert (await bid(http, item, "dee", max_amount=150))["current_bid"] == 151, "cyd's maximum stands"


async def test_a_raised_maximum_can_be_struck_and_the_earlier_one_comes_back(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    item = await opened(http, increment={"kind": "flat", "value": 1})
    await bid(http, item, "bob", max_amount=50)
    raised = await bid(http, item, "bob", max_amount=100)
    await bid(http, item, "ann", amount=60)
    after = (await strike(http, item, raised["bid_id"])).json()
    assert (after["current_bid"], after["highest_bidder_id"]) == (60, "ann")
    maximum: Any = redis.hget(proxies_key(item), "bob")
    assert await maximum == b"5000"
    await assert_archive_agrees(gateway_stack, http, item)


async def test_a_later_maximum_stays_when_an_old_plain_bid_is_struck(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    item = await opened(http, increment={"kind": "flat", "value": 1})
    plain = await bid(http, item, "bob", amount=5)
    await bid(http, item, "ann", amount=10)
    await bid(http, item, "bob", max_amount=40)
    assert (await strike(http, item, plain["bid_id"])).status_code == 200
    assert (await bid(http, item, "cyd", amount=30))["current_bid"] == 31
    await assert_archive_agrees(gateway_stack, http, item)


async def test_what_cannot_be_struck_says_why(http: httpx.AsyncClient) -> None:
    item = await opened(http)
    await bid(http, item, "bob", max_amount=100)
    ann = await bid(http, item, "ann", amount=10)
    automatic = await strike(http, item, f"{ann['bid_id']}/proxy")
    assert (automatic.status_code, automatic.json()["code"]) == (404, "BID_NOT_FOUND")
    assert f"'{ann['bid_id']}' that it came with" in automatic.json()["detail"]
    assert (await strike(http, item, "never")).status_code == 404
    assert (await strike(http, item, ann["bid_id"])).status_code == 200
    again = await strike(http, item, ann["bid_id"])
    assert (again.status_code, again.json()["code"]) == (409, "BID_STRUCK")
    await http.post(f"/api/v1/items/{item}/cancel", json={"reason": "a test"})
    assert (await strike(http, item, ann["bid_id"])).json()["code"] == "STATE_CONFLICT"


async def test_a_paused_item_keeps_its_status(http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack) -> None:
    item = await opened(http, increment={"kind": "flat", "value": 1})
    await bid(http, item, "ann", max_amount=50)
    bob = await bid(http, item, "bob", max_amount=100)
    await bid(http, item, "cyd", max_amount=200)
    await http.post(f"/api/v1/items/{item}/pause", json={"reason": "a test"})
    after = (await strike(http, item, bob["bid_id"])).json()
    assert (after["status"], after["current_bid"], after["highest_bidder_id"]) == ("paused", 51, "cyd")
    await assert_archive_agrees(gateway_stack, http, item)


@pytest.mark.parametrize(("struck", "offered_to", "price"), [("bob", "ann", 10), ("ann", "bob", 1)])
async def test_after_the_close_who_would_have_won_is_named(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack, struck: str, offered_to: str, price: float
) -> None:
    item = await opened(http, duration_s=6)
    ids = {"bob": (await bid(http, item, "bob", max_amount=100))["bid_id"]}
    ids["ann"] = (await bid(http, item, "ann", amount=10))["bid_id"]

    async def sold() -> bool:
        return bool((await http.get(f"/api/v1/items/{item}")).json()["status"] == "sold")

    await eventually(sold, seconds=40)
    after = (await strike(http, item, ids[struck])).json()
    assert (after["status"], after["highest_bidder_id"], after["current_bid"]) == ("unsold", None, price)
    (event,) = await void_events(redis, item)
    assert (event.offered_to, event.bidder_id) == (offered_to, struck)
    await assert_archive_agrees(gateway_stack, http, item)


async def test_a_void_after_the_close_does_not_prolong_how_long_verdicts_stay(
    http: httpx.AsyncClient, redis: Redis
) -> None:
    item = await opened(http, buy_now_price=80)
    ann = await bid(http, item, "ann", amount=80, bid_id=f"{item}-ann")
    # All but an hour of the day after the close has gone.
    await redis.expire(verdicts_key(item), 3_600)
    assert (await strike(http, item, ann["bid_id"])).json()["status"] == "unsold"
    assert 0 < await redis.ttl(verdicts_key(item)) <= 3_600


# ---------------------------------------------------------------------------------------------------- while others bid


@asynccontextmanager
async def fast_bidders(url: str, item: str, *, start: int, many: int = 4) -> AsyncIterator[None]:
    """Bidders who bid as fast as they are answered, each on a connection of its own that stays open.

    Without an HTTP client: one would be slower than what it asks, and leave gaps between the bids.
    """
    price = itertools.count(start, 2)
    where = httpx.URL(url)

    async def bid_on(user: str) -> None:
        reader, writer = await asyncio.open_connection(where.host, where.port)
        try:
            while True:
                body = f'{{"user_id":"{user}","amount":{next(price)}}}'
                head = f"POST /api/v1/items/{item}/bid HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                answer = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(answer.partition(b"content-length:")[2].split(b"\r\n")[0]))
        finally:
            writer.close()

    tasks = [asyncio.create_task(bid_on(f"fast-{number}")) for number in range(many)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


async def test_a_void_comes_through_however_fast_others_bid(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    item = await opened(http)
    ids = [(await bid(http, item, f"slow-{number}", amount=1 + number))["bid_id"] for number in range(5)]
    async with fast_bidders(gateway_stack.urls.gateway_url, item, start=100):
        for bid_id in ids:
            before = (await http.get(f"/api/v1/items/{item}")).json()["seq"]
            async with asyncio.timeout(30):
                answer = await strike(http, item, bid_id)
            assert answer.status_code == 200, answer.text
            assert answer.json()["seq"] > before
    assert [event.bid_id for event in await void_events(redis, item)] == ids
    await assert_archive_agrees(gateway_stack, http, item)


async def test_a_bid_of_long_ago_is_counted_from_the_archive_while_others_bid(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    """The log in Redis does not reach back to it; no answer tells a maximum."""
    item = await opened(http, increment={"kind": "flat", "value": 1})
    hidden = "8765432.1"
    first = await bid(http, item, "bob", max_amount=20)
    raised = await bid(http, item, "bob", max_amount=40)
    ann = await bid(http, item, "ann", max_amount=float(hidden))
    answers: list[httpx.Response] = []
    async with fast_bidders(gateway_stack.urls.gateway_url, item, start=100):

        async def trimmed() -> bool:
            line: Any = await redis.lindex(accepted_key(item), 0)
            return not line.startswith(b"1|")

        await eventually(trimmed, seconds=150)
        for each, status in ((raised, 200), (ann, 200), (first, 200), (ann, 409)):
            answers += await strike_again(http, item, each["bid_id"])
            assert answers[-1].status_code == status, answers[-1].text
    length: Any = redis.llen(accepted_key(item))
    assert await length <= ACCEPTED_KEPT
    assert all(hidden not in answer.text and "876543210" not in answer.text for answer in answers)
    after = (await http.get(f"/api/v1/items/{item}")).json()
    assert after["highest_bidder_id"].startswith("fast-")
    maxima: Any = redis.hgetall(proxies_key(item))
    assert await maxima == {}
    await assert_archive_agrees(gateway_stack, http, item)
    assert (await strike(http, item, "never")).status_code == 404


async def beyond_the_log(redis: Redis, stack: Stack, http: httpx.AsyncClient, item: str) -> None:
    """The log of the item lost all but its newest entry, as if later bids had pushed them out; all is archived."""
    lines: Any = redis.ltrim(accepted_key(item), -1, -1)
    await lines
    await assert_archive_agrees(stack, http, item)


async def test_a_bid_beyond_the_log_is_struck_once_though_the_archive_lags(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    """Two operators strike the same bid at once; what the archive says of it is older than the first void."""
    item = await opened(http, increment={"kind": "flat", "value": 1})
    ann = (await bid(http, item, "ann", max_amount=20))["bid_id"]
    await bid(http, item, "bob", amount=30)
    await bid(http, item, "cyd", amount=40)
    await beyond_the_log(redis, gateway_stack, http, item)
    gateway_stack.kill(ARCHIVAL_WORKER, signal.SIGSTOP)
    try:
        strikes = [asyncio.create_task(strike_again(http, item, ann)) for _ in range(3)]
        await asyncio.wait(strikes, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gateway_stack.kill(ARCHIVAL_WORKER, signal.SIGCONT)
    answers = [(await each)[-1] for each in strikes]
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409], [each.text for each in answers]
    assert len(await void_events(redis, item)) == 1
    await assert_archive_agrees(gateway_stack, http, item)


async def test_a_bid_that_is_neither_in_the_log_nor_archived_yet_is_not_said_to_be_unknown(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    item = await opened(http, increment={"kind": "flat", "value": 1})
    await bid(http, item, "ann", amount=10)
    await beyond_the_log(redis, gateway_stack, http, item)
    await gateway_stack.stop_process(ARCHIVAL_WORKER)
    try:
        bob = (await bid(http, item, "bob", amount=30))["bid_id"]
        await bid(http, item, "cyd", amount=40)
        lines: Any = redis.ltrim(accepted_key(item), -1, -1)
        await lines
        answer = await strike(http, item, bob)
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE"), answer.text
    finally:
        await gateway_stack.start_process(ARCHIVAL_WORKER)
    await assert_archive_agrees(gateway_stack, http, item)
    assert (await strike(http, item, "never")).status_code == 404
    assert (await strike(http, item, bob)).status_code == 200


async def test_without_the_archive_only_what_redis_remembers_can_be_struck(
    http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack
) -> None:
    item = await opened(http)
    first = await bid(http, item, "ann", amount=10)
    await bid(http, item, "bob", amount=20)
    gateway_stack.kill("postgres", signal.SIGINT)
    try:
        assert await gateway_stack.wait_ended("postgres", 60)
        assert (await strike(http, item, first["bid_id"])).status_code == 200
        lines: Any = redis.ltrim(accepted_key(item), 1, -1)
        await lines
        answer = await strike(http, item, (await bid(http, item, "cyd", amount=30))["bid_id"])
        assert answer.status_code == 503
        assert "archive" in answer.json()["detail"]
    finally:
        await gateway_stack.start_process("postgres")
