"""Items open, close, pause and are struck over HTTP; what the feed and the archive learn of it."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import asyncpg
import httpx2 as httpx
import nats
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from shared import names
from shared.messages import AuctionClosed, BidAccepted, Event, decode_event
from shared.redis_layout.keys import deadlines_key, recent_key
from tests.crowds.http_clients import CrowdClient, crowd_client
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def create(http: httpx.AsyncClient, item: str, **terms: Any) -> dict[str, Any]:
    answer = await http.post("/api/v1/items", json={"id": item, "name": item} | terms)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def bid(http: httpx.AsyncClient, item: str, user: str, **amounts: Any) -> dict[str, Any]:
    answer = await http.post(f"/api/v1/items/{item}/bid", json={"user_id": user} | amounts)
    assert answer.status_code in (200, 201), answer.text
    verdict: dict[str, Any] = answer.json()
    return verdict


async def operate(http: httpx.AsyncClient, item: str, operation: str, reason: str = "because") -> httpx.Response:
    return await http.post(f"/api/v1/items/{item}/{operation}", json={"reason": reason, "by": "olga"})


async def item_when(http: httpx.AsyncClient, item: str, status: str, *, within_s: float = 40) -> dict[str, Any]:
    async def found() -> dict[str, Any] | None:
        read: dict[str, Any] = (await http.get(f"/api/v1/items/{item}")).json()
        return read if read["status"] == status else None

    return await eventually(found, f"{item} is {status}", seconds=within_s)


async def events_of(redis: Redis, item: str) -> list[Event]:
    """The item's events, oldest first."""
    raw: Any = await redis.lrange(recent_key(item), 0, -1)
    return [decode_event(event) for event in reversed(raw)]


def kinds(events: list[Event]) -> list[str]:
    return [str(type(event).__struct_config__.tag) for event in events]


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_an_item_opens_and_closes_by_itself(http: httpx.AsyncClient, redis: Redis) -> None:
    created = await create(http, "timed", start_time=in_s(4), end_time=in_s(10), start_price=5)
    assert created["status"] == "scheduled"
    assert (await bid(http, "timed", "ada", amount=5))["code"] == "NOT_STARTED"
    await item_when(http, "timed", "open")
    assert (await bid(http, "timed", "ada", amount=5))["success"]
    closed = await item_when(http, "timed", "sold")
    assert closed["highest_bidder_id"] == "ada"
    assert (await bid(http, "timed", "bob", amount=50))["code"] == "SOLD"
    assert kinds(await events_of(redis, "timed")) == ["created", "opened", "bid", "closed"]
    assert await redis.zscore(deadlines_key(names.shard_of("timed")), "timed") is None


async def test_an_item_that_cannot_be_closed_holds_up_no_other(http: httpx.AsyncClient, redis: Redis) -> None:
    """Its script fails: a key of it has another type than it should."""
    broken, sound = sorted((f"broken-{number}" for number in range(2)), key=names.shard_of)
    assert names.shard_of(broken) < names.shard_of(sound)
    for item in (broken, sound):
        await create(http, item, end_time=in_s(6.0))
    kept: Any = await redis.lrange(recent_key(broken), 0, -1)
    await redis.delete(recent_key(broken))
    await redis.set(recent_key(broken), "no list")
    try:
        await item_when(http, sound, "unsold")

        async def is_told() -> bool:
            return "bidding_items_stuck 1\n" in (await http.get("/metrics")).text

        await eventually(is_told, "one item that is stuck", seconds=40)
    finally:
        await redis.delete(recent_key(broken))
        await cast(Any, redis.rpush(recent_key(broken), *kept))
    await item_when(http, broken, "unsold")


async def test_without_the_reserve_an_item_stays_unsold(http: httpx.AsyncClient, redis: Redis) -> None:
    await create(http, "reserved", duration_s=6, start_price=5, reserve_price=100)
    below = await bid(http, "reserved", "ada", max_amount=60)
    assert (below["current_bid"], below["reserve_met"]) == (60, False)
    closed = await item_when(http, "reserved", "unsold")
    assert closed["reserve_met"] is False
    last = (await events_of(redis, "reserved"))[-1]
    assert isinstance(last, AuctionClosed)
    assert last.winner_id is None


async def test_buy_now_sells_in_the_same_step(http: httpx.AsyncClient, redis: Redis) -> None:
    await create(http, "bought", duration_s=60, start_price=5, buy_now_price=80)
    assert (await http.get("/api/v1/items/bought")).json()["buy_now_available"] is True
    verdict = await bid(http, "bought", "ada", amount=99)
    assert (verdict["current_bid"], verdict["seq"], verdict["message"]) == (80, 1, "Sold to you at the buy-now price")
    assert kinds(await events_of(redis, "bought")) == ["created", "bid", "closed"]
    assert (await bid(http, "bought", "bob", amount=100))["code"] == "SOLD"


async def test_what_fell_due_during_downtime_happens_once_afterwards(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,))
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2) as redis,
    ):
        created = await create(http, "down", start_time=in_s(5.0), end_time=in_s(5.5))
        await stack.stop_process(API_GATEWAY)
        end_s = datetime.fromisoformat(created["end_time"]).timestamp()
        await asyncio.sleep(max(0.0, end_s - time.time()) + 0.1)
        await stack.start_process(API_GATEWAY)
        await item_when(http, "down", "unsold")
        assert kinds(await events_of(redis, "down")) == ["created", "opened", "closed"]


async def test_a_pause_keeps_the_remaining_time(http: httpx.AsyncClient, redis: Redis) -> None:
    created = await create(http, "paused", duration_s=10)
    await bid(http, "paused", "ada", amount=5)
    began_s = time.monotonic()
    answer = await operate(http, "paused", "pause", 'a "quoted" reason, 100 %')
    assert (answer.status_code, answer.json()["status"]) == (200, "paused")
    assert (await bid(http, "paused", "bob", amount=6))["code"] == "PAUSED"
    assert (await operate(http, "paused", "pause")).status_code == 409
    await asyncio.sleep(1.0)
    resumed = (await operate(http, "paused", "resume")).json()
    took_s = time.monotonic() - began_s
    shift = datetime.fromisoformat(resumed["end_time"]) - datetime.fromisoformat(created["end_time"])
    assert 1.0 <= shift.total_seconds() <= took_s + 0.1
    assert resumed["original_end_time"] == created["end_time"]
    assert (await operate(http, "paused", "resume")).status_code == 409
    assert (await bid(http, "paused", "bob", amount=6))["success"]
    await item_when(http, "paused", "sold")
    assert kinds(await events_of(redis, "paused")) == ["created", "bid", "paused", "resumed", "bid", "closed"]


async def test_a_cancelled_item_is_final(http: httpx.AsyncClient) -> None:
    await create(http, "cancelled", duration_s=60)
    assert (await operate(http, "cancelled", "cancel")).json()["status"] == "cancelled"
    assert (await bid(http, "cancelled", "bob", amount=6))["code"] == "CANCELLED"
    for operation in ("cancel", "pause", "resume"):
        answer = await operate(http, "cancelled", operation)
        assert (answer.status_code, answer.json()["code"]) == (409, "STATE_CONFLICT")


@pytest.mark.parametrize(
    "body",
    [
        '{"reason":""}',
        '{"reason":"  "}',
        '{"reason":"a\\u0000"}',
        '{"reason":"\\u001b[2J"}',
        "{}",
        '{"reason":"x","by":"a b"}',
        "nonsense",
        "",
    ],
)
async def test_an_operation_needs_a_reason(http: httpx.AsyncClient, body: str) -> None:
    answer = await http.post("/api/v1/items/cancelled/pause", content=body)
    assert answer.status_code == 422


async def test_operations_on_a_stranger_are_404(http: httpx.AsyncClient) -> None:
    assert (await operate(http, "nobody-knows", "pause")).status_code == 404
    assert (await operate(http, "nobody-knows", "bids/x/void")).status_code == 404


async def test_a_void_falls_back_to_what_remains(http: httpx.AsyncClient, redis: Redis, gateway_stack: Stack) -> None:
    await create(http, "voids", increment={"kind": "flat", "value": 1})
    await bid(http, "voids", "ada", max_amount=50)  # 0.01
    second = await bid(http, "voids", "bob", amount=20)  # 20, answered by ada's 21
    third = await bid(http, "voids", "cyd", amount=80)
    assert (await http.get("/api/v1/items/voids")).json()["bid_count"] == 3
    item = (await operate(http, "voids", f"bids/{third['bid_id']}/void", "card stolen")).json()
    assert (item["current_bid"], item["highest_bidder_id"], item["bid_count"]) == (21, "ada", 2)
    # Ada's maximum still stands behind the price.
    assert (await bid(http, "voids", "dee", amount=49.5))["is_highest"] is False
    again = await operate(http, "voids", f"bids/{third['bid_id']}/void")
    assert (again.status_code, again.json()["code"]) == (409, "BID_STRUCK")
    # With bob's bid goes the automatic bid that answered it, but not what came later.
    assert (await operate(http, "voids", f"bids/{second['bid_id']}/void")).status_code == 200
    history = (await http.get("/api/v1/items/voids/bids")).json()["bids"]
    assert [(entry["amount"], entry["status"]) for entry in history] == [
        (50, "valid"),
        (49.5, "valid"),
        (80, "voided"),
        (21, "voided"),
        (20, "voided"),
        (0.01, "valid"),
    ]
    connection = await asyncpg.connect(gateway_stack.urls.postgres_url)
    try:

        async def are_struck() -> bool:
            rows = await connection.fetch("SELECT amount, status FROM bids WHERE item_id = 'voids' ORDER BY seq")
            return [row["amount"] for row in rows if row["status"] == "voided"] == [2_000, 2_100, 8_000]

        await eventually(are_struck)
        audit = await connection.fetch(
            "SELECT body->>'by' AS by, body->>'reason' AS reason FROM events "
            "WHERE item_id = 'voids' AND type = 'voided' ORDER BY seq"
        )
    finally:
        await connection.close()
    assert [(row["by"], row["reason"]) for row in audit] == [("olga", "card stolen"), ("olga", "because")]


async def test_a_voided_winner_is_not_replaced_silently(http: httpx.AsyncClient, redis: Redis) -> None:
    await create(http, "second-chance", duration_s=6)
    await bid(http, "second-chance", "ada", amount=10)
    winner = await bid(http, "second-chance", "bob", amount=20)
    await item_when(http, "second-chance", "sold")
    item = (await operate(http, "second-chance", f"bids/{winner['bid_id']}/void")).json()
    assert (item["status"], item["highest_bidder_id"], item["current_bid"]) == ("unsold", None, 10)
    last = (await events_of(redis, "second-chance"))[-1]
    assert last.offered_to == "ada"  # type: ignore[union-attr]


async def crowd_bid(http: CrowdClient, item: str, user: str, amount: int) -> dict[str, Any]:
    body = json.dumps({"user_id": user, "amount": amount})
    answer = await http.post(f"/api/v1/items/{item}/bid", body.encode())
    assert answer.status_code in (200, 201), answer.text
    verdict: dict[str, Any] = answer.json()
    return verdict


async def test_of_two_thousand_equal_bids_one_wins(http: httpx.AsyncClient, gateway_stack: Stack) -> None:
    await create(http, "equal")
    at_once = asyncio.Semaphore(200)

    async def one(crowd: CrowdClient, user: str) -> dict[str, Any]:
        async with at_once:
            return await crowd_bid(crowd, "equal", user, 7)

    async with crowd_client(gateway_stack.urls.gateway_url) as crowd:
        verdicts = await asyncio.gather(*(one(crowd, f"u{number}") for number in range(2_000)))
    assert sum(verdict["success"] for verdict in verdicts) == 1
    assert {verdict["code"] for verdict in verdicts if not verdict["success"]} == {"TOO_LOW"}


async def race_for_the_end(http: CrowdClient, item: str, end: float) -> list[dict[str, Any]]:
    """Bids around an end (a Unix time, in seconds), the first early enough for a busy machine; what each was told."""
    verdicts = []
    for number, offset in enumerate((-0.5, -0.006, -0.001, 0.001)):
        await asyncio.sleep(max(0.0, end + offset - time.time()))
        verdicts.append(await crowd_bid(http, item, f"u{number}", number + 1))
    return verdicts


async def create_ending_soon(http: CrowdClient, name: str) -> dict[str, float]:
    """A hundred items and when each ends, as far apart as this process can bid: four times in each gap."""
    head_start_s = 1.5
    while True:
        begin = time.time() + head_start_s
        ends = {f"{name}-{head_start_s * 10:.0f}-{number}": begin + number * 0.010 for number in range(100)}
        terms = (
            {"id": item, "name": item, "end_time": datetime.fromtimestamp(end, UTC).isoformat()}
            for item, end in ends.items()
        )
        answers = await asyncio.gather(*(http.post("/api/v1/items", json.dumps(each).encode()) for each in terms))
        if all(answer.status_code == 201 for answer in answers) and time.time() < begin - 0.6:
            return ends
        # The machine is too busy to make them all before the first one ends.
        head_start_s *= 2
        assert head_start_s < 60, {answer.text for answer in answers if answer.status_code != 201}


async def test_bids_at_the_very_end_against_the_closer(gateway_stack: Stack, redis: Redis) -> None:
    """A thousand items end while bids and the closer race for each end; Redis TIME alone decides."""
    in_time = late = 0
    told_of: dict[str, list[dict[str, Any]]] = {}
    async with crowd_client(gateway_stack.urls.gateway_url) as http:
        for batch in range(10):
            ends = await create_ending_soon(http, f"edge-{batch}")
            races = (race_for_the_end(http, item, end) for item, end in ends.items())
            told_of |= dict(zip(ends, await asyncio.gather(*races), strict=True))
    for item, told in told_of.items():

        async def closed_events(item: str = item) -> list[Event]:
            events = await events_of(redis, item)
            return events if isinstance(events[-1], AuctionClosed) else []

        events = await eventually(closed_events)
        closed = events[-1]
        assert kinds(events).count("closed") == 1
        assert closed.end_us is not None
        assert closed.ts_us >= closed.end_us
        placed = [event for event in events if isinstance(event, BidAccepted)]
        assert all(event.ts_us < closed.end_us for event in placed), "a bid was accepted after the end"
        acknowledged = [verdict["seq"] for verdict in told if verdict["success"]]
        assert acknowledged == [event.seq for event in placed], "an in-time bid was lost"
        assert {verdict["code"] for verdict in told if not verdict["success"]} <= {"CLOSED", "SOLD"}
        assert closed.status == ("sold" if placed else "unsold")
        in_time += len(placed)
        late += len(told) - len(placed)
    assert in_time > 100, "bids must have been in time, or nothing was raced"
    assert late > 100, "bids must have been late, or nothing was raced"


async def test_a_maximum_is_shown_to_nobody(start_stack: StackFactory) -> None:
    """Leave maxima, then look for them in every answer, frame, event, archived row, export and log of the platform.

    The sealed facts are where they have to be: beside the events of a message, and in a table of their own.
    """
    stack = await start_stack()
    maxima = (7_341.97, 7_352.98, 7_363.99)
    secret = maxima[0]
    said: list[str] = []
    sealed: list[str] = []

    async def keep(response: httpx.Response) -> None:
        said.append((await response.aread()).decode())

    hooks = {"response": [keep]}
    feed = stack.urls.broadcast_url.replace("http://", "ws://") + "/ws/items/secret"
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10, event_hooks=hooks) as http:
        await create(http, "secret", start_price=1, increment={"kind": "ladder"}, reserve_price=6_543.21)
        async with connect(feed) as viewer:
            # Below the reserve a maximum would be shown in full by the rules, so this one reaches it.
            assert (await bid(http, "secret", "ada", max_amount=secret, bid_id="ada-1"))["current_bid"] == 6_543.21
            assert (await bid(http, "secret", "bob", amount=6_700))["is_highest"] is False
            assert (await bid(http, "secret", "ada", max_amount=secret))["code"] == "MAX_NOT_RAISED"
            for number, raised in enumerate(maxima[1:], start=2):
                told = await bid(http, "secret", "ada", max_amount=raised, bid_id=f"ada-{number}")
                assert (told["message"], told["seq"]) == ("Your maximum is raised", 3)
            assert (await bid(http, "secret", "bob", amount=6_900))["seq"] == 4
            await operate(http, "secret", "cancel")
            await http.get("/api/v1/bids/by-key/ada-1", params={"item_id": "secret"})
            for path in ("/api/v1/items/secret", "/api/v1/items/secret/bids", "/api/v1/items", "/metrics", "/ready"):
                await http.get(path)
            while '"seq":6' not in said[-1]:
                said.append(str(await viewer.recv()))
        for url in (stack.urls.archiver_url, stack.urls.broadcast_url):
            said += [(await http.get(f"{url}/{path}")).text for path in ("ready", "metrics")]
    connection = await asyncpg.connect(stack.urls.postgres_url)
    try:

        async def archived() -> bool:
            return bool(await connection.fetchval("SELECT count(*) = 1 FROM exports WHERE state = 'confirmed'"))

        await eventually(archived, seconds=30)
        # Without the parts of tables, whose rows are those of the whole.
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            " AND NOT relispartition"
        )
        for (table,) in tables:
            rows = [str(dict(row)) for row in await connection.fetch(f"SELECT * FROM {table}")]
            (sealed if table == "sealed" else said).extend(rows)
        assert len(tables) > 8
        assert len(sealed) == 3
    finally:
        await connection.close()
    client = await nats.connect(stack.urls.nats_url)
    try:
        subscription = await client.jetstream().subscribe(names.SUBJECT_ALL, ordered_consumer=True)
        for _ in range(7):
            message = json.loads((await subscription.next_msg(timeout=30)).data)
            sealed.append(json.dumps(message.pop("sealed", None)))
            said.append(json.dumps(message))
    finally:
        await client.close()
    said += [path.read_text() for path in (stack.data_dir / "logs").iterdir()]
    exported = list((stack.data_dir / "exports").rglob("*.gz"))
    assert len(exported) == 1
    said += [gzip.decompress(path.read_bytes()).decode() for path in exported]
    everything = "\n".join(said)
    assert "6543.21" in everything
    for maximum in maxima:
        for digits in (f"{maximum}", f"{maximum:.2f}".replace(".", "")):
            assert digits not in everything
        assert sum(f"{maximum:.2f}".replace(".", "") in text for text in sealed) >= 2, "in the message and in the table"
