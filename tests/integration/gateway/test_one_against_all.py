"""One rude client against all: others' bids stay fast, and the gateway's memory stays small, while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import httpx2 as httpx
import pytest
import pytest_asyncio
from typing_extensions import override
from websockets.asyncio.client import connect

from api_gateway.routes.bid_sockets import PATH as BIDS_PATH
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from tests.attacks import quantile, watched
from tests.unit.api_gateway.images.pictures import jpeg
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

ITEMS: Final = 200
LONG: Final = "é" * 5_000
GROWS_MOST_BYTES: Final = 50_000_000
P90_MAX_S: Final = 0.5
"""On a busy machine, where it is some milliseconds at rest."""
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


class _Asks(asyncio.Protocol):
    """Sends a request again and again, each time when as many bytes have come as an answer has."""

    def __init__(self, request: bytes, answer_bytes: int) -> None:
        self._request = request
        self._answer_bytes = answer_bytes
        self._left = 0
        self.answers = 0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self._left += self._answer_bytes
        self.transport.write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left <= 0:
            self.answers += 1
            self.ask()


async def bid_delays(http: httpx.AsyncClient, item: str, seconds: float) -> list[float]:
    """Bid again and again for a while, and time each bid. Whether it is too low matters little."""
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    end_s = loop.time() + seconds
    while (began_s := loop.time()) < end_s:
        answer = await http.post(f"/api/v1/items/{item}/bid", json={"user_id": "ada", "amount": len(delays) + 1})
        assert answer.status_code in (200, 201)
        delays.append(loop.time() - began_s)
        await asyncio.sleep(0.005)
    return delays


async def answer_bytes(port: int, request: bytes) -> int:
    """How long an answer is, with its head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
    return len(head) + length


@pytest.mark.parametrize(("request_", "connections"), [(LIST, 30), (OPENAPI, 100)], ids=["lists", "openapi"])
async def test_who_reads_without_end_leaves_bids_their_turn(
    gateway_stack: Stack, http: httpx.AsyncClient, catalogue: str, request_: bytes, connections: int
) -> None:
    port = gateway_stack.ports.gateway
    length = await answer_bytes(port, request_)
    quiet = await bid_delays(http, catalogue, 1)
    loop = asyncio.get_running_loop()
    asking = [
        (await loop.create_connection(lambda: _Asks(request_, length), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    try:
        await asyncio.sleep(0.3)
        delays = await bid_delays(http, catalogue, 3)
    finally:
        for each in asking:
            each.transport.abort()
    told = f"p50 {quantile(quiet, 0.5) * 1000:.1f} ms before, {quantile(delays, 0.5) * 1000:.1f} ms meanwhile"
    assert quantile(delays, 0.5) < max(0.05, 5 * quantile(quiet, 0.5)), told
    assert quantile(delays, 0.9) < P90_MAX_S
    assert sum(each.answers for each in asking) >= connections, "they are served as well"


async def test_who_uploads_without_end_leaves_bids_their_turn_and_little_in_memory(
    gateway_stack: Stack, http: httpx.AsyncClient, catalogue: str
) -> None:
    photograph = jpeg(scan=b"\x5a" * 7_000_000)
    quiet = await bid_delays(http, catalogue, 1)
    taken = 0

    async def upload() -> None:
        nonlocal taken
        while True:
            answer = await http.post("/api/v1/images", content=photograph, headers={"content-type": "image/jpeg"})
            taken += answer.status_code == 201

    async with watched(gateway_stack.pid(API_GATEWAY)) as memory:
        uploads = [asyncio.create_task(upload()) for _ in range(3)]
        try:
            await asyncio.sleep(0.3)
            delays = await bid_delays(http, catalogue, 4)
        finally:
            for each in uploads:
                each.cancel()
            await asyncio.wait(uploads)
    told = f"p50 {quantile(quiet, 0.5) * 1000:.1f} ms before, {quantile(delays, 0.5) * 1000:.1f} ms meanwhile"
    assert quantile(delays, 0.5) < max(0.05, 5 * quantile(quiet, 0.5)), told
    assert quantile(delays, 0.9) < P90_MAX_S
    assert memory.grown_bytes < GROWS_MOST_BYTES
    assert taken > 0


async def test_clients_that_never_read_pin_little(
    gateway_stack: Stack, http: httpx.AsyncClient, catalogue: str
) -> None:
    port = gateway_stack.ports.gateway
    async with watched(gateway_stack.pid(API_GATEWAY)) as memory:
        writers = []
        for _ in range(150):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            _, writer = await asyncio.open_connection(sock=sock, limit=1)
            writer.write(LIST * 5)
            writers.append(writer)
        try:
            delays = await bid_delays(http, catalogue, 4)
        finally:
            for writer in writers:
                writer.transport.abort()
    assert memory.grown_bytes < GROWS_MOST_BYTES
    assert quantile(delays, 0.9) < P90_MAX_S


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
