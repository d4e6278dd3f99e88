"""More bids than are decided: those that would wait too long are shed, and nothing that is shed was a bid.

Redis stands still meanwhile, so that it is certain what waits. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any

import aiohttp
import httpx2 as httpx

from api_gateway.contract.schemas import BATCH_MAX
from api_gateway.engine.bids.queue_bound import ALWAYS_MAX
from api_gateway.engine.bids.refusals import AT_ONCE_IDLE
from api_gateway.routes.batches import PATH
from infrastructure.local.services import API_GATEWAY
from tests.stack import StackFactory
from tests.waiting import eventually

SHED = 2 * BATCH_MAX - ALWAYS_MAX
FIGURES = ("bidding_bids_shed_total", "bidding_bids_waiting", "bidding_flushes_total")


async def test_what_would_wait_too_long_is_shed_and_may_come_again(start_stack: StackFactory) -> None:
    """Of two batches as many are taken as always may wait; a bid behind them is refused at the door, on both roads and
    on a WebSocket, also a repeated one. When Redis goes on, what was taken is decided and what was shed can be
    repeated."""
    env = {"BID_WAIT_MAX_MS": "1", "REDIS_TIMEOUT_MS": "120000", "AUTH_MODE": "open"}
    stack = await start_stack(services=(API_GATEWAY,), env=env)
    base_url = stack.urls.gateway_url
    async with httpx.AsyncClient(base_url=base_url, timeout=120) as http, aiohttp.ClientSession(base_url) as session:

        async def figures() -> dict[str, float]:
            lines = [line.split() for line in (await http.get("/metrics")).text.splitlines()]
            return {line[0]: float(line[1]) for line in lines if line and line[0] in FIGURES}

        async def bid(amount: float, key: str, user: str = "bob") -> httpx.Response:
            return await http.post(
                "/api/v1/items/rushed/bid", json={"user_id": user, "amount": amount}, headers={"Idempotency-Key": key}
            )

        async def bid_in_chunks(amount: float) -> tuple[int, dict[str, str], Any]:
            async def body() -> Any:
                yield b'{"user_id":"cyd",'
                yield b'"amount":%d}' % amount

            headers = {"content-type": "application/json"}
            async with session.post("/api/v1/items/rushed/bid", data=body(), headers=headers) as answer:
                return (
                    answer.status,
                    {name.lower(): value for name, value in answer.headers.items()},
                    await answer.json(),
                )

        opened = await http.post("/api/v1/items", json={"id": "rushed", "name": "Lamp", "start_price": 1})
        assert opened.status_code == 201, opened.text
        first = await bid(1, "first", "ada")
        assert first.status_code == 201, first.text
        socket = await session.ws_connect("/api/v1/bids")
        before = await figures()

        stack.kill("redis", signal.SIGSTOP)
        in_flight = asyncio.create_task(bid(2, "in-flight"))

        async def is_in_flight() -> bool:
            now = await figures()
            return now["bidding_flushes_total"] > before["bidding_flushes_total"] and not now["bidding_bids_waiting"]

        await eventually(is_in_flight, "the flush", seconds=60)
        bids = [
            {"item_id": "rushed", "user_id": f"user-{number}", "amount": 3 + number, "bid_id": f"batch-{number}"}
            for number in range(2 * BATCH_MAX)
        ]

        async def waiting_and_shed() -> tuple[float, float]:
            now = await figures()
            return now["bidding_bids_waiting"], now["bidding_bids_shed_total"] - before["bidding_bids_shed_total"]

        async def is_taken() -> bool:
            return await waiting_and_shed() == (BATCH_MAX, 0)

        async def is_shedding() -> bool:
            return await waiting_and_shed() == (ALWAYS_MAX, SHED)

        whole = asyncio.create_task(http.post(PATH, json={"bids": bids[:BATCH_MAX]}))
        await eventually(is_taken, "a batch that waits", seconds=60)
        batch = asyncio.create_task(http.post(PATH, json={"bids": bids[BATCH_MAX:]}))
        await eventually(is_shedding, "bids that are shed", seconds=60)

        for _ in range(2):
            shed = await bid(5_000, "shed")
            assert (shed.status_code, shed.json()["code"]) == (503, "OVERLOADED")
            assert int(shed.headers["retry-after"]) >= 1
            assert "connection" not in shed.headers, "the client goes on with the same connection"
        repeated = await bid(1, "first", "ada")
        assert (repeated.status_code, repeated.json()["code"]) == (503, "OVERLOADED"), "nobody looks for its verdict"
        status, headers, problem = await bid_in_chunks(5_001)
        assert (status, problem) == (503, shed.json())
        assert headers["retry-after"] == shed.headers["retry-after"]
        await socket.send_json({"op": "bid", "id": 1, "item_id": "rushed", "user_id": "dan", "amount": 5_002})
        told = await socket.receive_json(timeout=60)
        assert (told["id"], told["status"], told["answer"]["code"]) == (1, 503, "OVERLOADED")
        assert await waiting_and_shed() == (ALWAYS_MAX, SHED + 5)

        stack.kill("redis", signal.SIGCONT)
        assert (await in_flight).status_code == 201
        results = (await whole).json()["results"] + (await batch).json()["results"]
        assert [one["status"] for one in results] == [201] * ALWAYS_MAX + [503] * SHED
        assert {one["answer"]["code"] for one in results[ALWAYS_MAX:]} == {"OVERLOADED"}
        # Nothing that was shed is there, and nothing that was taken is missing.
        item = (await http.get("/api/v1/items/rushed")).json()
        assert (item["current_bid"], item["bid_count"]) == (2 + ALWAYS_MAX, 2 + ALWAYS_MAX)
        for key in ("shed", f"batch-{2 * BATCH_MAX - 1}"):
            assert (await http.get(f"/api/v1/bids/by-key/{key}", params={"item_id": "rushed"})).status_code == 404
        # Repeated under its key it is placed, once.
        accepted = await bid(5_000, "shed")
        assert accepted.status_code == 201, accepted.text
        again = await bid(5_000, "shed")
        assert (again.status_code, again.content) == (accepted.status_code, accepted.content)
        assert (await http.get("/api/v1/items/rushed")).json()["bid_count"] == 3 + ALWAYS_MAX
        assert (await bid(1, "first", "ada")).content == first.content
        await socket.close()


async def test_whoever_waits_for_a_refusal_gets_it(start_stack: StackFactory) -> None:
    """More clients than are told at once, while Redis hangs: they send several requests each, hang up, and wait while
    the gateway ends."""
    env = {"BID_WAIT_MAX_MS": "1", "BID_QUEUE_MAX": "1", "REDIS_TIMEOUT_MS": "120000", "AUTH_MODE": "open"}
    env["GATEWAY_CONNECTIONS_PER_ADDRESS_MAX"] = "0"
    stack = await start_stack(services=(API_GATEWAY,), env=env)
    url = httpx.URL(stack.urls.gateway_url)
    async with httpx.AsyncClient(base_url=url, timeout=120) as http, contextlib.AsyncExitStack() as ends:

        async def figures() -> dict[str, float]:
            lines = [line.split() for line in (await http.get("/metrics")).text.splitlines()]
            return {line[0]: float(line[1]) for line in lines if line and line[0] in FIGURES}

        async def bid(amount: float) -> httpx.Response:
            return await http.post("/api/v1/items/rushed/bid", json={"user_id": "ada", "amount": amount})

        async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(url.host, url.port)
            ends.callback(writer.close)
            return reader, writer

        async def answered(reader: asyncio.StreamReader, requests: int) -> list[bytes]:
            """The status lines of the answers."""
            lines = []
            for _ in range(requests):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                lines.append(head.partition(b"\r\n")[0])
            return lines

        opened = await http.post("/api/v1/items", json={"id": "rushed", "name": "Lamp", "start_price": 1})
        assert opened.status_code == 201, opened.text
        assert (await bid(1)).status_code == 201
        before = await figures()
        stack.kill("redis", signal.SIGSTOP)
        taken = [asyncio.create_task(bid(2))]

        async def is_in_flight() -> bool:
            now = await figures()
            return now["bidding_flushes_total"] > before["bidding_flushes_total"]

        async def is_full() -> bool:
            return (await figures())["bidding_bids_waiting"] == 1

        await eventually(is_in_flight, "the flush", seconds=60)
        taken.append(asyncio.create_task(bid(3)))
        await eventually(is_full, "a queue that is full", seconds=60)

        head = b"POST /api/v1/items/rushed/bid HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        body = b'{"user_id":"bob","amount":9}'
        plain = head + b"content-length: %d\r\n\r\n" % len(body) + body
        chunked = head + b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        clients = [await connected() for _ in range(AT_ONCE_IDLE + 50)]
        for _, writer in clients:
            writer.write(plain + chunked + plain)
        for lines in await asyncio.wait_for(asyncio.gather(*(answered(reader, 3) for reader, _ in clients)), 60):
            assert lines == [b"HTTP/1.1 503 Service Unavailable"] * 3
        assert (await figures())["bidding_bids_shed_total"] - before["bidding_bids_shed_total"] == 3 * len(clients)

        for _, writer in clients:
            writer.write(plain + plain)
            await writer.drain()
            writer.transport.abort()
        clients = [await connected() for _ in clients]
        for _, writer in clients:
            writer.write(plain)
        await asyncio.wait_for(asyncio.gather(*(answered(reader, 1) for reader, _ in clients)), 60)

        async def all_are_shed() -> bool:
            return (await figures())["bidding_bids_shed_total"] >= shed + len(clients)

        shed = (await figures())["bidding_bids_shed_total"]
        for _, writer in clients:
            writer.write(plain)
        await eventually(all_are_shed, "the last ones", seconds=60)
        stack.kill(API_GATEWAY, signal.SIGTERM)
        await asyncio.wait_for(asyncio.gather(*(answered(reader, 1) for reader, _ in clients)), 60)
        stack.kill("redis", signal.SIGCONT)
        assert [(await one).status_code for one in taken] == [201, 201]


async def test_a_gateway_that_was_suspended_takes_what_came_meanwhile(start_stack: StackFactory) -> None:
    """It reads all of it before it hears that the flush that was in flight is over, and that one looks like a long
    one."""
    env = {"AUTH_MODE": "open", "GATEWAY_CONNECTIONS_PER_ADDRESS_MAX": "0", "GATEWAY_ADDRESS_RATE_MAX": "0"}
    stack = await start_stack(services=(API_GATEWAY,), env=env | {"GATEWAY_CALLER_RATE_MAX": "0"})
    url = httpx.URL(stack.urls.gateway_url)
    async with httpx.AsyncClient(base_url=url, timeout=120) as http, contextlib.AsyncExitStack() as ends:

        async def figure(name: str) -> float:
            lines = [line.split() for line in (await http.get("/metrics")).text.splitlines()]
            return next(float(line[1]) for line in lines if line and line[0] == name)

        async def bid(amount: float) -> httpx.Response:
            return await http.post("/api/v1/items/paused/bid", json={"user_id": "ada", "amount": amount})

        opened = await http.post("/api/v1/items", json={"id": "paused", "name": "Lamp", "start_price": 1})
        assert opened.status_code == 201, opened.text
        assert (await bid(1)).status_code == 201
        clients = []
        for _ in range(3 * ALWAYS_MAX):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            ends.callback(writer.close)
            clients.append((reader, writer))
        flushes = await figure("bidding_flushes_total")
        stack.kill("redis", signal.SIGSTOP)
        in_flight = asyncio.create_task(bid(2))

        async def is_in_flight() -> bool:
            return await figure("bidding_flushes_total") > flushes

        await eventually(is_in_flight, "the flush", seconds=60)
        stack.kill(API_GATEWAY, signal.SIGSTOP)
        stack.kill("redis", signal.SIGCONT)
        for number, (_, writer) in enumerate(clients):
            body = b'{"user_id":"bob","amount":%d}' % (number + 3)
            writer.write(b"POST /api/v1/items/paused/bid HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n" % len(body))
            writer.write(b"content-type: application/json\r\n\r\n" + body)
        await asyncio.sleep(0.5)
        stack.kill(API_GATEWAY, signal.SIGCONT)
        assert (await in_flight).status_code == 201
        heads = await asyncio.gather(*(asyncio.wait_for(reader.readline(), 60) for reader, _ in clients))
        assert [head.split()[1] for head in heads].count(b"503") == 0
        assert await figure("bidding_bids_shed_total") == 0
