"""Limits of what one caller and one address may ask for, on every road, against gateways with small ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from tests.stack import StackFactory
from tests.waiting import eventually

JSON = {"content-type": "application/json"}
pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEMS = "/api/v1/items"
MIB = 1024 * 1024
# One a second, so ten at once, of a caller; of an address 20 a second, 200 at once. The proxy is this machine, so that
# each test can have an address of its own.
SMALL = {
    "AUTH_MODE": "jwt",
    "GATEWAY_CALLER_RATE_MAX": "1",
    "GATEWAY_ITEMS_RATE_MAX": "1",
    "GATEWAY_ADDRESS_RATE_MAX": "20",
    "GATEWAY_TRUSTED_PROXIES": "127.0.0.1",
    "BODIES_BYTES_PER_ADDRESS_MAX": str(MIB),
    "BID_SOCKETS_PER_ADDRESS_MAX": "2",
    "BID_SOCKETS_PER_CALLER_MAX": "3",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    factory = StackFactory()
    try:
        yield await factory(services=(API_GATEWAY,), env=SMALL)
    finally:
        await factory.close()


class Clients:
    """Callers of the gateway, each behind an address that the proxy names."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.http = http
        self._key = signing_key(stack.data_dir)
        self._ws_url = stack.urls.gateway_url.replace("http", "ws", 1) + "/api/v1/bids"

    def headers(self, user: str, address: str, *roles: str) -> dict[str, str]:
        token = signed_token(self._key, user, list(roles or ("bidder", "seller")), ttl_s=600, environment={})
        return {"authorization": f"Bearer {token}", "x-forwarded-for": address}

    async def item(self, number: int) -> str:
        made = await self.http.post(
            ITEMS, json={"name": "x"}, headers=self.headers(f"seller-{number}", f"10.9.0.{number}")
        )
        assert made.status_code == 201, made.text
        return str(made.json()["id"])

    def socket(self, user: str, address: str) -> Any:
        return connect(self._ws_url, additional_headers=self.headers(user, address), proxy=None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clients(stack: Stack) -> AsyncIterator[Clients]:
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, headers=JSON, timeout=30) as http:
        yield Clients(stack, http)


def assert_limited(answer: httpx.Response, policy: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED"), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["ratelimit"].startswith(f'"{policy}";r=0;t=')
    assert answer.headers["ratelimit-policy"].startswith(f'"{policy}";q=')


async def in_pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.mark.parametrize("road", ["direct", "asgi"])
async def test_bids_of_a_caller_on_both_roads(clients: Clients, road: str) -> None:
    item_id = await clients.item(1 if road == "direct" else 2)
    headers = clients.headers(f"bidder-{road}", "10.0.0.1")
    answers = []
    for amount in range(1, 13):
        body = json.dumps({"amount": amount}).encode()
        content: Any = body if road == "direct" else in_pieces(body)
        answers.append(await clients.http.post(f"{ITEMS}/{item_id}/bid", content=content, headers=headers))
    assert [answer.status_code for answer in answers[:10]] == [201] * 10
    assert "ratelimit" not in answers[0].headers
    assert answers[9].headers["ratelimit"].startswith('"caller";r='), "it may slow down before anything is refused"
    # By then a second may have passed, in which one more was allowed.
    assert_limited(answers[11], "caller")
    read = await clients.http.get(f"{ITEMS}/{item_id}", headers={"x-forwarded-for": "10.0.0.1"})
    assert read.json()["bid_count"] <= 11
    # Another caller of the same address bids on.
    other = await clients.http.post(
        f"{ITEMS}/{item_id}/bid", json={"amount": 99}, headers=clients.headers(f"other-{road}", "10.0.0.1")
    )
    assert other.status_code == 201


async def test_a_batch_counts_its_bids_and_its_items(clients: Clients) -> None:
    item_id = await clients.item(3)
    bids = {"bids": [{"item_id": item_id, "amount": amount} for amount in range(1, 10)]}
    headers = clients.headers("batcher", "10.0.0.3")
    first = await clients.http.post("/api/v1/bids:batch", json=bids, headers=headers)
    assert first.status_code == 200
    assert_limited(await clients.http.post("/api/v1/bids:batch", json=bids, headers=headers), "caller")
    read = await clients.http.get(f"{ITEMS}/{item_id}", headers={"x-forwarded-for": "10.0.0.3"})
    assert read.json()["bid_count"] == 9, "nothing of the refused one was placed"
    items = {"items": [{"name": "x"}] * 9}
    headers = clients.headers("importer", "10.0.0.3")
    # Items have a bucket of their own, of ten here: nothing of the caller's is used but one unit.
    made = await clients.http.post("/api/v1/items:batch", json=items, headers=headers)
    assert made.status_code == 200
    assert made.headers["ratelimit"].startswith('"items";r='), "less than a quarter is left"
    assert_limited(await clients.http.post("/api/v1/items:batch", json=items, headers=headers), "items")


async def test_an_address_is_bounded_whoever_calls_and_whatever_is_asked_for(clients: Clients) -> None:
    """Also without a token, or with a bad one: to look at it takes time."""
    for number, (method, path, headers) in enumerate(
        [
            ("GET", ITEMS, {}),
            ("GET", f"{ITEMS}/none", {}),
            ("GET", "/static/css/tokens.css", {}),
            ("POST", f"{ITEMS}/none/bid", {"authorization": "Bearer a.b.c"}),
            ("POST", ITEMS, {}),
            ("POST", "/api/v1/bids:batch", {}),
        ]
    ):
        address = {"x-forwarded-for": f"203.0.113.{number}, 10.1.0.{number}"}
        answers = [await clients.http.request(method, path, headers=headers | address) for _ in range(30)]
        assert 429 not in {answer.status_code for answer in answers}, path
        answers = await asyncio.gather(
            *(clients.http.request(method, path, headers=headers | address) for _ in range(400))
        )
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited, path
        assert_limited(limited[0], "address")
        spoofed = [{"x-forwarded-for": f"198.51.100.{first}, 10.1.0.{number}"} for first in range(100)]
        answers = await asyncio.gather(
            *(clients.http.request(method, path, headers=headers | said) for said in spoofed)
        )
        assert 429 in {answer.status_code for answer in answers}, path
        elsewhere = {"x-forwarded-for": f"10.2.0.{number}"}
        assert (await clients.http.request(method, path, headers=headers | elsewhere)).status_code != 429


async def told(socket: ClientConnection, item_id: str, count: int) -> list[Any]:
    for number in range(count):
        await socket.send(json.dumps({"op": "bid", "id": number, "item_id": item_id, "amount": number + 1}))
    return [json.loads(await asyncio.wait_for(socket.recv(), 10)) for _ in range(count)]


async def test_bids_over_a_websocket(clients: Clients) -> None:
    item_id = await clients.item(4)
    async with clients.socket("streamer", "10.0.0.4") as socket:
        answers = await told(socket, item_id, 20)
    limited = [each for each in answers if each["status"] == 429]
    # The request that opened it was one unit.
    assert 9 <= len(limited) <= 11
    taken = [each for each in answers if each["status"] == 201]
    # A refusal may be told before the bids that came before it are decided.
    assert "rate_limit" not in taken[0], "more than a quarter is left"
    near = [each["rate_limit"] for each in taken if "rate_limit" in each]
    # Of ten at once: those that leave two, one and none, beside what a second brings back meanwhile.
    assert len(near) >= 3, "it may slow down before anything is refused"
    for each in near:
        assert (each["policy"], each["remaining"] <= 2) == ("caller", True)
        assert 8 <= each["reset_s"] <= 10
    assert {(each["rate_limit"]["policy"], each["rate_limit"]["remaining"]) for each in limited} == {("caller", 0)}
    assert all(each["rate_limit"]["reset_s"] == each["retry_after"] for each in limited)
    assert {each["answer"]["code"] for each in limited} == {"RATE_LIMITED"}
    assert all(each["retry_after"] >= 1 for each in limited)
    read = await clients.http.get(f"{ITEMS}/{item_id}", headers={"x-forwarded-for": "10.0.0.4"})
    assert read.json()["bid_count"] == 20 - len(limited)


async def test_who_goes_on_over_a_websocket_is_closed(clients: Clients) -> None:
    item_id = await clients.item(5)
    async with clients.socket("flooder", "10.0.0.5") as socket:
        for number in range(300):
            await socket.send(json.dumps({"op": "bid", "id": number, "item_id": item_id, "amount": number + 1}))
        with contextlib.suppress(ConnectionClosed):
            async for _ in socket:
                pass
        assert socket.close_code == 4429


async def test_websockets_of_an_address(clients: Clients) -> None:
    async with clients.socket("one", "10.0.0.6"), clients.socket("two", "10.0.0.6"):
        with pytest.raises(InvalidStatus) as refused:
            await clients.socket("three", "10.0.0.6")
        assert refused.value.response.status_code == 429
        assert b"TOO_MANY_CONNECTIONS_FROM_ADDRESS" in (refused.value.response.body or b"")
        async with clients.socket("four", "10.0.0.7"):
            pass


async def test_websockets_of_a_caller(clients: Clients) -> None:
    """From however many addresses; and a place is free again when one is closed."""
    async with clients.socket("many", "10.0.1.1"), clients.socket("many", "10.0.1.2"):
        async with clients.socket("many", "10.0.1.3"):
            with pytest.raises(InvalidStatus) as refused:
                await clients.socket("many", "10.0.1.4")
            assert refused.value.response.status_code == 429
            assert b"TOO_MANY_CONNECTIONS_OF_CALLER" in (refused.value.response.body or b"")

        async def is_free() -> bool:
            with contextlib.suppress(InvalidStatus):
                async with clients.socket("many", "10.0.1.4"):
                    return True
            return False

        await eventually(is_free)


async def test_what_is_no_bid_and_no_websocket_is_charged_too(clients: Clients) -> None:
    """The bid's address asked with GET, and WebSockets that are refused: of no such address, or without a token."""
    answers = await asyncio.gather(
        *(clients.http.get(f"{ITEMS}/none/bid", headers={"x-forwarded-for": "10.0.1.5"}) for _ in range(400))
    )
    assert 405 in {answer.status_code for answer in answers}
    assert_limited(next(answer for answer in answers if answer.status_code == 429), "address")
    opening = {
        "x-forwarded-for": "10.0.1.6",
        **{"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-version": "13"},
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    for path, refused_with in (("/nothing", 403), ("/api/v1/bids", 401)):
        opening["x-forwarded-for"] = f"10.0.2.{refused_with - 400}"
        answers = await asyncio.gather(*(clients.http.get(path, headers=opening) for _ in range(400)))
        assert {answer.status_code for answer in answers} == {refused_with, 429}, path
        assert_limited(next(answer for answer in answers if answer.status_code == 429), "address")


async def test_bodies_of_an_address_have_a_sum(clients: Clients, stack: Stack) -> None:
    """Three that never end, of 400 KB each: the third one is not read further."""
    opened = []
    try:
        for number in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.gateway)
            opened.append(writer)
            headers = clients.headers(f"slow-{number}", "10.0.0.8")
            lines = [f"{name}: {value}" for name, value in headers.items()]
            said = ("host: x", "content-type: application/json", f"content-length: {MIB}")
            head = ("POST /api/v1/items:batch HTTP/1.1", *said, *lines, "", "")
            writer.write("\r\n".join(head).encode() + b" " * 400_000)
            await writer.drain()
            status = asyncio.create_task(reader.readline())
            await asyncio.wait([status], timeout=1 if number < 2 else 10)
            assert status.done() is (number == 2)
            status.cancel()
        assert status.result().startswith(b"HTTP/1.1 429 ")
        elsewhere = clients.headers("small", "10.0.0.9")
        assert (
            await clients.http.post("/api/v1/items:batch", json={"items": []}, headers=elsewhere)
        ).status_code == 422
    finally:
        for writer in opened:
            writer.close()


async def test_nothing_of_a_body_is_awaited_of_a_stranger_on_the_direct_road(stack: Stack) -> None:
    for path in (f"{ITEMS}/none/bid", ITEMS):
        reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.gateway)
        said = "host: x\r\ncontent-type: application/json\r\ncontent-length: 100"
        writer.write(f"POST {path} HTTP/1.1\r\n{said}\r\n\r\n".encode())
        status = await asyncio.wait_for(reader.readline(), 5)
        assert status.startswith(b"HTTP/1.1 401 "), path
        # The body may come all the same, and the connection goes on.
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x" * 100 + b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        rest = await asyncio.wait_for(reader.readuntil(b'"healthy"'), 5)
        assert b"HTTP/1.1 200 " in rest, path
        writer.close()


async def test_what_was_refused_is_counted(clients: Clients) -> None:
    """Also by itself: other tests have had refusals, or not."""
    headers = clients.headers("counted", "10.0.0.10")
    for number in range(3):
        items = {"items": [{"name": "x"}] * (9 if number < 2 else 400)}
        await clients.http.post("/api/v1/items:batch", json=items, headers=headers)
    await asyncio.gather(*(clients.http.get(ITEMS, headers={"x-forwarded-for": "10.0.0.11"}) for _ in range(400)))
    text = (await clients.http.get("/metrics")).text
    for policy in ("address", "caller"):
        line = next(
            line for line in text.splitlines() if line.startswith(f'bidding_rate_limited_total{{policy="{policy}"}}')
        )
        assert float(line.rpartition(" ")[2]) > 0
    assert "bidding_bodies_refused_total " in text


async def test_open_has_no_limits_of_its_own_on_one_s_own_machine(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,))
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, headers=JSON, timeout=60) as http:
        bids = {"bids": [{"item_id": "lot", "user_id": "ann", "amount": 1}] * 500}
        for _ in range(3):
            for status in [(await http.post("/api/v1/bids:batch", json=bids)).status_code for _ in range(5)]:
                assert status == 200
