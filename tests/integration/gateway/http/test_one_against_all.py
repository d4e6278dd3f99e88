"""One rude client against all: others' bids stay fast, and the gateway's memory stays small, while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx2 as httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from api_gateway.routes.bid_sockets import PATH as BIDS_PATH
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from tests.crowds.attacks import assert_at_most_doubled, bid_delays
from tests.crowds.rude import Rude
from tests.unit.api_gateway.images.pictures import jpeg
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEMS: Final = 200
LONG: Final = "é" * 5_000
LIST: Final = b"GET /api/v1/items?limit=200 HTTP/1.1\r\nhost: x\r\n\r\n"
OPENAPI: Final = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def catalogue(gateway_stack: Stack, http: httpx.AsyncClient) -> str:
    """As many large items as a page may have; returns another one, which is bid on, and is on none of these pages."""
    [bid_on] = [(await http.post("/api/v1/items", json={"id": "bid-on", "name": "Lamp"})).json()["id"]]
    for start in range(0, ITEMS, 20):
        made = [
            http.post("/api/v1/items", json={"id": f"large-{number}", "name": "Book", "description": LONG})
            for number in range(start, start + 20)
        ]
        assert {answer.status_code for answer in await asyncio.gather(*made)} == {201}

    async def are_listed() -> bool:
        page = (await http.get("/api/v1/items", params={"limit": 200})).json()
        first = page["items"][0]["id"] if page["items"] else ""
        return page["next_cursor"] is not None and first.startswith("large-")

    await eventually(are_listed)
    return str(bid_on)


def _post(path: str, body: bytes, content_type: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _text(data: bytes) -> str:
    return data.decode("latin-1")


BID: Final = "POST /api/v1/items/bid-on/bid HTTP/1.1\r\nhost: x\r\n"
CHUNKED: Final = BID + "transfer-encoding: chunked\r\n\r\n"
WAYS: Final[dict[str, dict[str, Any]]] = {
    "lists": {"connections": 30, "piece": _text(LIST), "asks": True},
    "openapi": {"connections": 100, "piece": _text(OPENAPI), "asks": True},
    "uploads": {
        "connections": 3,
        "piece": _text(_post("/api/v1/images", jpeg(scan=b"\x5a" * 7_000_000), "image/jpeg")),
        "asks": True,
    },
    "answers that nobody reads": {"connections": 150, "piece": _text(LIST * 5), "pieces": 1, "reads": False},
    "requests without end": {"connections": 20, "piece": _text(LIST * 1_000), "reads": False},
    "many trailers": {"connections": 20, "opening": CHUNKED + "0\r\n", "piece": "a:b\r\n" * 10_000},
    "a long trailer": {"connections": 20, "opening": CHUNKED + "0\r\na:", "piece": "a" * 60_000},
    "bodies without end": {"connections": 30, "opening": CHUNKED, "piece": "10000\r\n" + "x" * 65_536 + "\r\n"},
    "nested bodies": {"connections": 30, "piece": _text(_post("/api/v1/items/bid-on/bid", b"[" * 4_000)), "asks": True},
}
"""What a rude client may do, as members of :class:`tests.crowds.rude.Rude`."""


@pytest.mark.parametrize("way", WAYS)
async def test_bids_are_as_fast_beside_it_and_it_takes_little_memory(
    gateway_stack: Stack, http: httpx.AsyncClient, catalogue: str, way: str
) -> None:
    port = gateway_stack.ports.gateway
    assert (await http.get("/openapi.json")).status_code == 200  # it is made when it is first asked for
    clients = Rude(port=port, **WAYS[way])
    await assert_at_most_doubled(lambda: bid_delays(port, catalogue), clients, gateway_stack.pid(API_GATEWAY))


async def test_a_page_has_a_bound_in_bytes_and_all_pages_have_every_item(
    http: httpx.AsyncClient, catalogue: str
) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        answer = await http.get("/api/v1/items", params={"limit": 200, **({"cursor": cursor} if cursor else {})})
        assert len(answer.content) < 700_000
        page = answer.json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert len(seen) == len(set(seen))
    assert {f"large-{number}" for number in range(ITEMS)} <= set(seen)


# ------------------------------------------------------------------------------------------------------ connections


@contextlib.asynccontextmanager
async def another_gateway(stack: Stack, name: str, **env: str) -> AsyncIterator[int]:
    """Another gateway on the same servers, with its own settings; its port."""
    [port] = free_ports(1)
    await stack.add_service(name, API_GATEWAY, port, {"GATEWAY_PORT": str(port), **env})
    try:
        yield port
    finally:
        await stack.stop_process(name)


@contextmanager
def connections(address: str, port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections from an address of this machine."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), 10, source_address=(address, 0)))
        yield opened
    finally:
        for each in opened:
            each.close()


async def health_from(address: str, port: int) -> tuple[int, str]:
    """Status and code of an answer to a connection from this address."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", transport=transport, timeout=10) as client:
        answer = await client.get("/health")
        return answer.status_code, answer.json().get("code", "")


async def test_an_address_has_so_many_connections_and_no_more(gateway_stack: Stack) -> None:
    env = {
        "GATEWAY_CONNECTIONS_MAX": "30",
        "GATEWAY_CONNECTIONS_PER_ADDRESS_MAX": "20",
        "GATEWAY_TRUSTED_PROXIES": "127.0.0.4, 10.0.0.0/8",
    }
    one, other, third, proxy = "127.0.0.2", "127.0.0.3", "127.0.0.1", "127.0.0.4"
    async with another_gateway(gateway_stack, "gateway-crowded", **env) as port:

        async def is_free(address: str) -> bool:
            return await health_from(address, port) == (200, "")

        with connections(one, port, 20):
            assert await health_from(one, port) == (429, "TOO_MANY_CONNECTIONS_FROM_ADDRESS")
            assert await health_from(other, port) == (200, "")
            with connections(proxy, port, 10):
                assert await health_from(other, port) == (503, "TOO_MANY_CONNECTIONS")
            await eventually(lambda: is_free(other))
        await eventually(lambda: is_free(one))
        # A WebSocket of bids is a connection of its address until it ends.
        async with contextlib.AsyncExitStack() as sockets:
            for _ in range(20):
                url = f"ws://127.0.0.1:{port}{BIDS_PATH}"
                await sockets.enter_async_context(connect(url, local_addr=(one, 0), proxy=None))
            assert await health_from(one, port) == (429, "TOO_MANY_CONNECTIONS_FROM_ADDRESS")
        await eventually(lambda: is_free(one))
        with connections(proxy, port, 25):
            assert await health_from(proxy, port) == (200, "")
        await eventually(lambda: is_free(third))
        # A flood of them costs nobody else anything.
        with contextlib.suppress(OSError), connections(one, port, 200):
            await asyncio.sleep(0.2)
            assert await health_from(third, port) == (200, "")
