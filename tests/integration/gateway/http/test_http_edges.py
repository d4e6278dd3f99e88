"""HTTP where it is seldom looked at: other methods, half a request, several at once. Every error is a problem."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx2 as httpx
import pytest

from infrastructure.local.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")


def bid_request(item: str, amount: str, *headers: str) -> bytes:
    body = f'{{"user_id":"ada","amount":{amount}}}'
    lines = (f"POST /api/v1/items/{item}/bid HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers)
    return "\r\n".join((*lines, "", body)).encode()


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = re.search(r"content-length: (\d+)", head)
    assert length is not None, head
    return int(head[9:12]), json.loads(await reader.readexactly(int(length[1])))


async def raw(stack: Stack, sent: bytes, *, answers: int) -> list[tuple[int, dict[str, Any]]]:
    """Status and body of so many answers on one connection, and that nothing comes after them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.gateway)
    writer.write(sent)
    found: list[tuple[int, dict[str, Any]]] = []
    try:
        async with asyncio.timeout(30):
            for _ in range(answers):
                found.append(await answer_of(reader))
            writer.write_eof()
            assert await reader.read() == b""
    finally:
        writer.close()
    return found


def assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["error"] == answer.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
async def test_a_bid_is_placed_with_post_alone(http: httpx.AsyncClient, method: str) -> None:
    answer = await http.request(method, "/api/v1/items/methods/bid")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST"


async def test_an_item_may_be_called_bid(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/v1/items/bid")).json()["id"] == "bid"
    assert (await http.post("/api/v1/items/bid/bid", json={"user_id": "ada", "amount": 1})).status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/api/v1/items", 405),
        ("POST", "/health", 405),
        ("GET", "/api/v1/nothing", 404),
        ("POST", "/api/v1/items/a%2Fb/bid", 404),
        ("GET", "/api/v1/items?limit=0", 422),
        ("GET", "/api/v1/items?limit=1e2", 422),
        ("GET", "/api/v1/items?sort=up", 422),
        ("GET", "/api/v1/items/x/bids?cursor=1:2:3", 422),
    ],
)
async def test_every_refusal_is_a_problem(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    if "/bids" in path:
        await http.get("/api/v1/items/x")
    assert_problem(await http.request(method, path), status)


@pytest.mark.parametrize("path", ["/health", "/ready", "/api/v1/items", "/metrics", "/"])
async def test_head_is_answered_as_get_without_a_body(http: httpx.AsyncClient, path: str) -> None:
    answer = await http.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == (await http.get(path)).headers["content-type"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /api/v1/items/x/bid HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /api/v1/items/x/bid HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        b"POST /api/v1/items/x/bid HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n",
        # Bytes that two readers could take for different requests (RFC 9112, sections 2.2, 3.2, 5 and 6).
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n",
        b"GET /health HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: a b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: a/b\r\n\r\n",
        b"GET /health HTTP/1.1\nhost: x\n\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nx-a: a\r\n b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost : x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/v1/items/x/bid HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /api/v1/items/x/bid HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\nx\n0\n\n",
        b"POST /api/v1/items/x/bid HTTP/1.1\r\nhost: x\r\ncontent-length: 2, 2\r\n\r\n{}",
    ],
)
async def test_what_is_no_http_is_a_problem_as_well(gateway_stack: Stack, sent: bytes) -> None:
    ((status, body),) = await raw(gateway_stack, sent, answers=1)
    assert (status, body["code"], body["error"]) == (400, "BAD_REQUEST", body["detail"])


async def test_bids_in_one_packet_are_answered_in_their_order(gateway_stack: Stack) -> None:
    sent = b"".join(bid_request("pipelined", amount) for amount in ("1", "3", "2"))
    answers = await raw(gateway_stack, sent, answers=3)
    assert [(status, body["your_bid"]) for status, body in answers] == [(201, 1), (201, 3), (200, 2)]


async def test_a_bid_is_answered_whatever_comes_after_it(gateway_stack: Stack) -> None:
    """Its answer must not be taken for one to the nonsense behind it, nor be lost over it."""
    ((status, body),) = await raw(gateway_stack, bid_request("followed", "5") + b"nonsense\r\n\r\n", answers=1)
    assert (status, body["seq"]) == (201, 1)
    endless = bid_request("followed", "6") + b"GET / HTTP/1.1\r\nx-filler: " + b"x" * 60_000
    ((status, body),) = await raw(gateway_stack, endless, answers=1)
    assert (status, body["seq"]) == (201, 2)


@pytest.mark.parametrize("host", ["x", "", "127.0.0.1:8080", "[::1]:8080", "a-b.example.com"])
async def test_every_form_of_a_host_is_heard(gateway_stack: Stack, host: str) -> None:
    sent = f"GET /health HTTP/1.1\r\nhost: {host}\r\n\r\n".encode()
    ((status, _),) = await raw(gateway_stack, sent, answers=1)
    assert status == 200
    ((status, _),) = await raw(gateway_stack, b"GET /health HTTP/1.0\r\n\r\n", answers=1)
    assert status == 200


UPGRADE = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQCAAAAAAIAAAAA")


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_who_asks_for_http_2_is_answered_in_http_1(gateway_stack: Stack, pieces: int) -> None:
    """Clients in Java ask with their first request, its body behind it: as if they had not asked (RFC 9110, 7.8)."""
    item = f"h2c-{pieces}"
    plain = bid_request(item, "1", *UPGRADE)
    chunked = (
        "\r\n".join((f"POST /api/v1/items/{item}/bid HTTP/1.1", "host: x", "transfer-encoding: chunked", *UPGRADE))
        + '\r\n\r\n1c\r\n{"user_id":"ada","amount":2}\r\n0\r\n\r\n'
    ).encode()
    sent = plain + chunked + bid_request(item, "3") + plain
    size = -(-len(sent) // pieces)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway_stack.ports.gateway)
    try:
        for start in range(0, len(sent), size):
            writer.write(sent[start : start + size])
            await writer.drain()
            # One round trip on another connection: the server has very likely read this piece by itself.
            await raw(gateway_stack, b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n", answers=1)
        async with asyncio.timeout(30):
            bids = [await answer_of(reader) for _ in range(4)]
    finally:
        writer.close()
    assert [(status, body["your_bid"]) for status, body in bids] == [(201, 1), (201, 2), (201, 3), (200, 1)]


async def test_two_keys_are_one_too_many(gateway_stack: Stack) -> None:
    sent = bid_request("keys", "5", "idempotency-key: a", "idempotency-key: b", "connection: close")
    ((status, body),) = await raw(gateway_stack, sent, answers=1)
    assert (status, body["code"]) == (422, "INVALID")


@pytest.mark.parametrize(
    ("number", "status"), [("1e2", 201), ("1.5E1", 201), ("-0", 422), ("1E400", 422), ("0.1e-1", 201), ("1e-3", 422)]
)
async def test_numbers_are_those_of_json(http: httpx.AsyncClient, number: str, status: int) -> None:
    item = f"numbers-{re.sub(r'[^0-9A-Za-z]', '_', number)}"
    text = f'{{"user_id":"ada","amount":{number}}}'
    assert (await http.post(f"/api/v1/items/{item}/bid", content=text.encode())).status_code == status
    assert_problem(await http.post(f"/api/v1/items/{item}/bid", content=b"\xef\xbb\xbf" + text.encode()), 422)


async def test_the_document_tells_patterns_that_every_dialect_knows(http: httpx.AsyncClient) -> None:
    """``\\Z`` means the letter Z in JavaScript."""
    text = (await http.get("/openapi.json")).text
    patterns = re.findall(r'"pattern":"([^"]*)"', text)
    assert patterns
    assert all(pattern.endswith("$") for pattern in patterns)
