"""Bids over one WebSocket: the verdicts of HTTP, each with its id, within bounds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from api_gateway.bid_socket.session import ERRORS_MAX, IN_FLIGHT_MAX
from api_gateway.routes.bid_sockets import PATH
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]


@pytest.fixture
def prefix() -> str:
    return f"socket-{secrets.token_hex(4)}"


def url_of(stack: Stack) -> str:
    return stack.urls.gateway_url.replace("http", "ws", 1) + PATH


@asynccontextmanager
async def opened(stack: Stack, **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(url_of(stack), compression=None, proxy=None, **options) as socket:
        yield socket


async def said(socket: ClientConnection, *messages: Json | str) -> list[Json]:
    """All answers, in the order of the messages."""
    for message in messages:
        await socket.send(message if isinstance(message, str) else json.dumps(message))
    answers = [json.loads(await asyncio.wait_for(socket.recv(), 20)) for _ in messages]
    assert {answer["type"] for answer in answers} <= {"answer"}
    places = {m["id"]: n for n, m in enumerate(messages) if isinstance(m, dict) and "id" in m}
    return sorted(answers, key=lambda answer: places.get(answer["id"], 0))


def bid(number: int | str, item_id: str, user: str = "ann", **more: Any) -> Json:
    return {"op": "bid", "id": number, "item_id": item_id, "user_id": user, **more}


async def test_each_bid_has_the_answer_that_http_gives(
    gateway_stack: Stack, http: httpx.AsyncClient, prefix: str
) -> None:
    """The same bids on two items, over both ways: accepted, too low, an automatic bid, malformed ones, keys."""
    bids: list[Json] = [
        {"user_id": "ann", "amount": 5},
        {"user_id": "bob", "amount": 5},
        {"user_id": "bob", "max_amount": 9},
        {"user_id": "ann", "amount": 6, "bid_id": f"{prefix}-k"},
        {"user_id": "ann", "amount": 6, "bid_id": f"{prefix}-k"},
        {"user_id": "ann", "amount": 7, "bid_id": f"{prefix}-k"},
        {"user_id": "ann", "amount": 6.001},
        {"user_id": "ann", "amount": "7"},
        {"user_id": "ann", "amount": 7, "bid_id": "~1"},
        {"user_id": "a b", "amount": 7},
        {"user_id": "ann"},
        {"user_id": "ann", "amount": 20, "max_amount": 10},
        {"user_id": "ann", "amount": 7, "amuont": 8},
    ]
    found: list[tuple[int, Json]] = []
    async with opened(gateway_stack) as socket:
        for number, one in enumerate(bids):
            (answer,) = await said(socket, {"op": "bid", "id": number, "item_id": f"{prefix}-a", **one})
            found.append((answer["status"], answer["answer"]))
    for one, (status, told) in zip(bids, found, strict=True):
        alone = await http.post(f"/api/v1/items/{prefix}-b/bid", json=one)
        expected = alone.json()
        if "event_id" in expected:
            assert told.pop("event_id") == expected.pop("event_id").replace(f"{prefix}-b", f"{prefix}-a")
            if "bid_id" not in one:
                del told["bid_id"], expected["bid_id"]
        if "amuont" in one:  # a message has members of its own, which the text lists or compares with
            assert {told.pop(name)[:40] for name in ("detail", "error")} == {expected.pop("detail")[:40]}
            expected.pop("error")
        assert (status, told) == (alone.status_code, expected)


async def test_answers_carry_the_clients_ids_and_bids_on_one_item_keep_their_order(
    gateway_stack: Stack, prefix: str
) -> None:
    async with opened(gateway_stack) as socket:
        for start in (1, 1_000):  # items that the gateway does not know yet, and ones that it knows
            bids = [
                bid(f"b{n}" if n % 2 else n, f"{prefix}-{n % 3}", f"u{n % 7}", amount=start + n) for n in range(300)
            ]
            answers = await said(socket, *bids)
            assert [answer["id"] for answer in answers] == [one["id"] for one in bids]
            assert {answer["status"] for answer in answers} == {201}
            for item in range(3):
                seqs = [answer["answer"]["seq"] for answer in answers[item::3]]
                assert seqs == list(range(seqs[0], seqs[0] + 100))


@pytest.mark.parametrize(
    ("message", "answer_id", "text"),
    [
        ("{", None, "truncated"),
        ("[1]", None, "object"),
        ('{"op":"bod","id":7}', 7, "bod"),
        ('{"op":"bid","id":"x","item_id":"a","user_id":"ann","amount":1,"amt":2}', "x", "did you mean"),
        ('{"op":"bid","item_id":"a","user_id":"ann","amount":1}', None, "id"),
        ('{"op":"bid","id":-1,"item_id":"a","user_id":"ann","amount":1}', None, ">= 0"),
        ('{"op":"bid","id":"%s","item_id":"a","user_id":"ann","amount":1}' % ("x" * 65), None, "64"),
        ('{"op":"bid","id":1,"item_id":"no item!","user_id":"ann","amount":1}', 1, "item id"),
    ],
)
async def test_what_is_no_bid_is_told_so(
    gateway_stack: Stack, message: str, answer_id: int | str | None, text: str
) -> None:
    async with opened(gateway_stack) as socket:
        (answer,) = await said(socket, message)
        assert (answer["id"], answer["status"]) == (answer_id, 422)
        assert answer["answer"]["type"] == "urn:bidding:problem:invalid"
        assert text in answer["answer"]["detail"]
        await socket.send(b"\0\1")
        assert json.loads(await socket.recv())["status"] == 422


async def errors(socket: ClientConnection) -> None:
    while True:
        assert json.loads(await socket.recv())["status"] == 422


async def test_too_many_mistakes_and_a_long_message_end_the_connection(gateway_stack: Stack) -> None:
    async with opened(gateway_stack) as socket:
        for _ in range(ERRORS_MAX + 3):
            await socket.send("{")
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(errors(socket), 20)
        assert socket.close_code == 4429
    async with opened(gateway_stack) as socket:
        await socket.send("x" * 8_193)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1009


async def test_pages_of_other_origins_may_not_bid(gateway_stack: Stack) -> None:
    async with opened(gateway_stack, origin=gateway_stack.urls.gateway_url):
        pass
    with pytest.raises(InvalidStatus) as refused:
        await connect(url_of(gateway_stack), origin=Origin("http://evil.example"), proxy=None)
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body or b"")["code"] == "ORIGIN_NOT_ALLOWED"


async def figure(http: httpx.AsyncClient, name: str) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"bidding_{name} "))


def framed(text: str) -> bytes:
    """A masked text frame whose mask changes nothing."""
    data = text.encode()
    length = struct.pack("!B", 128 | len(data)) if len(data) < 126 else struct.pack("!BH", 254, len(data))
    return b"\x81" + length + b"\0\0\0\0" + data


async def test_a_client_that_does_not_read_is_not_read_and_closed_in_the_end(
    gateway_stack: Stack, http: httpx.AsyncClient, redis: Redis, prefix: str
) -> None:
    """It sends as many bids as it can, and takes no answer: what the gateway keeps for it is bounded."""
    await http.post(f"/api/v1/items/{prefix}/bid", json={"user_id": "ann", "amount": 100_000})
    port = gateway_stack.ports.gateway
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_024)
    head = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write((head + "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
    assert b"101" in await reader.readline()
    # Without its own reader asyncio would buffer what comes.
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    batch = b"".join(framed(json.dumps(bid(n, prefix, amount=1))) for n in range(1_000))
    before = await figure(http, "bids_decided_total")
    with contextlib.suppress(TimeoutError):
        # As many bids as all buffers take.
        async with asyncio.timeout(2):
            while True:
                writer.write(batch)
                await writer.drain()

    async def is_closed() -> bool:
        return await figure(http, "bid_sockets") == 0

    await eventually(is_closed, seconds=30)
    # The kernel has room for some megabytes of answers.
    assert await figure(http, "bids_decided_total") - before < 60_000
    writer.transport.abort()
    # Others are not touched.
    assert (await http.post(f"/api/v1/items/{prefix}/bid", json={"user_id": "ann", "amount": 1})).status_code == 200


async def test_connections_are_bounded_and_bids_in_flight_are_answered_before_the_end(
    start_stack: StackFactory, prefix: str
) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_SOCKETS_MAX": "1"})
    async with Redis.from_url(stack.urls.redis_url, protocol=2) as client, opened(stack) as socket:
        with pytest.raises(InvalidStatus) as full:
            await connect(url_of(stack), proxy=None)
        assert full.value.response.status_code == 503
        assert json.loads(full.value.response.body or b"")["code"] == "TOO_MANY_CONNECTIONS"
        await said(socket, bid(0, prefix, amount=1))

        # More than may be in flight, while Redis answers nobody for a while; then the gateway is told to stop.
        await client.client_pause(4_000)
        count = IN_FLIGHT_MAX + 500
        for number in range(1, count + 1):
            await socket.send(json.dumps(bid(number, prefix, amount=1 + number)))
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url) as http:

            async def many_wait() -> bool:
                return await figure(http, "bids_waiting") > IN_FLIGHT_MAX // 2

            await eventually(many_wait, seconds=3.5)
        stopping = asyncio.create_task(stack.stop_process(API_GATEWAY))
        answers: list[Json] = [json.loads(text) async for text in socket]
        await stopping
        assert socket.close_code == 1001
        assert {answer["status"] for answer in answers} == {201}
        numbers = [answer["id"] for answer in answers]
        assert numbers == list(range(1, len(numbers) + 1)), "all that was placed, and nothing twice"
        # What the kernel had was not read any more; the bound is passed by what 1 KiB holds at most.
        assert IN_FLIGHT_MAX // 2 < len(numbers) < IN_FLIGHT_MAX + 20
        # What was not answered was not placed either.
        await stack.start_process(API_GATEWAY)
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url) as http:
            assert (await http.get(f"/api/v1/items/{prefix}")).json()["seq"] == 1 + len(numbers)


async def test_an_answer_that_gets_lost_is_unknown_as_over_http(start_stack: StackFactory, prefix: str) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"REDIS_TIMEOUT_MS": "400", "RESOLVE_MS": "300"})
    async with Redis.from_url(stack.urls.redis_url, protocol=2) as client, opened(stack) as socket:
        await said(socket, bid(0, prefix, amount=1))
        await client.client_pause(2_500)
        (answer,) = await said(socket, bid(1, prefix, amount=2, bid_id="k"))
        assert (answer["status"], answer["answer"]["code"]) == (503, "OUTCOME_UNKNOWN")
        assert answer["retry_after"] == 1

        async def is_known() -> bool:
            (again,) = await said(socket, bid(2, prefix, amount=2, bid_id="k"))
            return bool(again["status"] == 201 and again["answer"]["seq"] == 2)

        await eventually(is_known)


_UPGRADE = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
_KEY = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


def upgrade(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n{_UPGRADE}{_KEY}{more}\r\n".encode()


async def told_until_the_end(stack: Stack, sent: bytes) -> bytes:
    """Everything that is answered, until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.gateway)
    try:
        writer.write(sent)
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "more",
    [
        f"x-long: {'x' * 9_000}\r\n",
        "".join(f"x-{number}: 1\r\n" for number in range(130)),
        "content-length: 5\r\n",
    ],
    ids=["a long line", "many headers", "a body"],
)
async def test_a_head_that_only_the_websockets_library_refuses_is_answered_and_closed(
    gateway_stack: Stack, more: str
) -> None:
    """uvicorn has handed the connection over by then. Nobody else would end it, or answer."""
    answer = await told_until_the_end(gateway_stack, upgrade(PATH, more) + b"x")
    assert answer.startswith(b"HTTP/1.1 4"), answer[:200]


async def test_a_wish_for_a_websocket_behind_a_request_is_ignored(gateway_stack: Stack) -> None:
    """The answer that is due would lose its connection, and wait for room in it for ever."""
    first = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await told_until_the_end(gateway_stack, first + upgrade(PATH) + last)
    assert re.findall(rb"HTTP/1\.1 (\d\d\d) ", answer) == [b"200", b"404", b"200"]


async def test_an_origin_that_is_none_is_refused_like_a_foreign_one(gateway_stack: Stack) -> None:
    answer = await told_until_the_end(gateway_stack, upgrade(PATH, "origin: http://[\r\n"))
    assert answer.startswith(b"HTTP/1.1 403")
