"""The edge of the live feed: admission, heartbeats and pings, several broadcasters on one port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
import sys
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from broadcast_service.core.close_codes import SERVICE_RESTART, TOO_MANY_ERRORS
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from tests.integration.feed.feed_world import (
    FEED,
    PATIENCE_S,
    AuctionHouse,
    Json,
    another_feed,
    closed_with,
    http_get,
    metric,
    raw_upgrade,
    ws_url,
)
from tests.programs import finished
from tests.waiting import eventually

pytestmark = pytest.mark.integration

READY = b"GET /ready HTTP/1.1\r\nhost: x\r\n\r\n"


async def next_of(viewer: ClientConnection, kind: str) -> Json:
    """The next frame of a type; others, such as the number of viewers, are skipped."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            frame: Json = json.loads(await viewer.recv())
            if frame["type"] == kind:
                return frame


async def test_nobody_is_sent_to_the_host_that_a_request_names(feed_stack: Stack) -> None:
    for path in ("/health/", "/ready/", "/stats/items/lot/"):
        answer = await http_get(feed_stack, path, host="evil.example")
        assert (answer.status_code, answer.headers.get("location")) == (404, None), path


# ------------------------------------------------------------------------------------------------- heartbeats


async def test_every_connection_is_told_the_time_again_and_again(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with (
        another_feed(feed_stack, "feed-beating", FEED_TIME_S="0.2") as port,
        contextlib.AsyncExitStack() as viewers,
    ):
        for path in (f"/ws/items/{item}", "/ws", f"/ws/items/{item}?feed=full"):
            viewer = await viewers.enter_async_context(connect(ws_url(feed_stack, path, port)))
            connected = await next_of(viewer, "connected")
            assert connected["heartbeat_s"] == 0.2
            assert connected["feed"] == ("full" if "full" in path else "conflated")
            first, second = [await next_of(viewer, "heartbeat") for _ in range(2)]
            assert connected["server_time"] < first["server_time"] < second["server_time"]
            assert "stale" not in first


async def test_who_does_not_answer_pings_is_given_up_and_who_does_stays(feed_stack: Stack) -> None:
    env = {"FEED_PING_INTERVAL_S": "0.2", "FEED_PING_TIMEOUT_S": "8"}
    async with (
        another_feed(feed_stack, "feed-pinging", **env) as port,
        connect(ws_url(feed_stack, "/ws", port)) as healthy,
    ):
        reader, writer = await raw_upgrade(port, "/ws")
        async with asyncio.timeout(PATIENCE_S):
            rest = await reader.read()
        assert b"\x89\x04" in rest, "a ping of four bytes"
        assert b"keepalive ping timeout" in rest
        writer.close()
        await healthy.send('{"op":"ping"}')
        await next_of(healthy, "pong")

        async def is_alone() -> bool:
            return await metric(feed_stack, "feed_connections ", port) == 1

        await eventually(is_alone, seconds=60)


def text_message(text: str) -> bytes:
    """A masked text message of less than 126 bytes, with a mask of zeros."""
    data = text.encode()
    return struct.pack("!BBI", 0x81, 0x80 | len(data), 0) + data


async def test_what_was_said_at_once_is_answered_in_order(feed_stack: Stack) -> None:
    """Many messages in one packet are handled one by one."""
    reader, writer = await raw_upgrade(feed_stack.ports.broadcast, "/ws")
    writer.write(b"".join(text_message(f'{{"op":"unsubscribe","items":["item-{n}"]}}') for n in range(200)))
    writer.write(text_message('{"op":"ping"}'))
    async with asyncio.timeout(PATIENCE_S):
        answers = await reader.readuntil(b'"pong"')
    assert answers.count(b'"unsubscribed"') == 200
    writer.close()


async def test_a_message_that_came_with_the_upgrade_is_answered(feed_stack: Stack) -> None:
    """A client may send as soon as it has requested the upgrade, before it reads the answer."""
    async with connect(ws_url(feed_stack, "/ws")) as viewer:
        await viewer.send('{"op":"ping"}')
        assert json.loads(await viewer.recv())["type"] == "connected"
        await next_of(viewer, "pong")


async def test_nonsense_for_ever_ends_the_connection(feed_stack: Stack) -> None:
    async with connect(ws_url(feed_stack, "/ws")) as viewer:
        for _ in range(101):
            await viewer.send("nonsense")
        assert await closed_with(viewer) == TOO_MANY_ERRORS.code


# ---------------------------------------------------------------------------------------------------- addresses


async def refused(url: str, **headers: str) -> tuple[int, Any]:
    with pytest.raises(InvalidStatus) as answer:
        await connect(url, additional_headers=headers)
    response = answer.value.response
    if response.status_code in (429, 503):
        assert int(response.headers["Retry-After"]) > 0
    return response.status_code, json.loads(response.body)["code"]


async def test_one_address_cannot_take_all_the_room(feed_stack: Stack) -> None:
    env = {"FEED_CONNECTIONS_PER_ADDRESS_MAX": "2", "FEED_TRUSTED_PROXIES": "127.0.0.1"}
    async with another_feed(feed_stack, "feed-crowded", **env) as port, contextlib.AsyncExitStack() as viewers:
        url = ws_url(feed_stack, "/ws", port)

        async def come(address: str) -> ClientConnection:
            return await viewers.enter_async_context(connect(url, additional_headers={"X-Forwarded-For": address}))

        first = await come("192.0.2.1")
        await come("192.0.2.1")
        too_many = (429, "TOO_MANY_CONNECTIONS_FROM_ADDRESS")
        assert await refused(url, **{"X-Forwarded-For": "192.0.2.1"}) == too_many
        # The proxy appends to what the client itself wrote into the header.
        assert await refused(url, **{"X-Forwarded-For": "192.0.2.99, 192.0.2.1"}) == too_many
        answer = await http_get(feed_stack, "/sse/items/any", port, **{"x-forwarded-for": "192.0.2.1"})
        assert (answer.status_code, answer.json()["code"]) == too_many
        await come("192.0.2.2")
        await come("2001:db8::1")
        await come("2001:db8::2")
        assert await refused(url, **{"X-Forwarded-For": "2001:db8::3"}) == too_many
        await first.close()

        async def has_room() -> bool:
            try:
                await come("192.0.2.1")
            except InvalidStatus:
                return False
            return True

        await eventually(has_room, seconds=60)


async def test_the_header_of_a_stranger_is_not_believed(feed_stack: Stack) -> None:
    async with (
        another_feed(feed_stack, "feed-direct", FEED_CONNECTIONS_PER_ADDRESS_MAX="1") as port,
        connect(ws_url(feed_stack, "/ws", port), additional_headers={"X-Forwarded-For": "192.0.2.1"}),
    ):
        url = ws_url(feed_stack, "/ws", port)
        assert (await refused(url, **{"X-Forwarded-For": "192.0.2.2"}))[0] == 429


async def test_many_who_come_at_once_do_not_pass_the_bound(feed_stack: Stack) -> None:
    async with another_feed(feed_stack, "feed-rushed", FEED_CONNECTIONS_MAX="5") as port:
        url = ws_url(feed_stack, "/ws", port)
        outcomes = await asyncio.gather(*(connect(url, open_timeout=60) for _ in range(40)), return_exceptions=True)
        let_in = [each for each in outcomes if isinstance(each, ClientConnection)]
        assert len(let_in) == 5
        assert all(isinstance(each, InvalidStatus) for each in outcomes if each not in let_in)
        for viewer in let_in:
            await viewer.close()


async def test_an_unknown_kind_of_feed_is_refused(feed_stack: Stack) -> None:
    assert await refused(ws_url(feed_stack, "/ws/items/any?feed=everything")) == (422, "FEED_INVALID")


async def test_a_connection_that_asked_for_every_event_gets_it_of_every_item(
    feed_stack: Stack, house: AuctionHouse
) -> None:
    item, other = await house.open(), await house.open()
    async with connect(ws_url(feed_stack, "/ws?feed=full")) as viewer:
        assert (await next_of(viewer, "connected"))["feed"] == "full"
        await viewer.send(json.dumps({"op": "subscribe", "items": [item]}))
        await next_of(viewer, "snapshot")
        await house.bid(item, 100, 200, 300, 400, 500)
        assert [(await next_of(viewer, "bid"))["seq"] for _ in range(5)] == [1, 2, 3, 4, 5]
        # The operation's `feed` overrides that of the URL.
        await viewer.send(json.dumps({"op": "subscribe", "items": [other], "feed": "conflated"}))
        await next_of(viewer, "snapshot")
        await house.bid(other, 100, 200, 300, 400, 500)
        state = await next_of(viewer, "state")
        assert (state["item_id"], state["seq"], state["bids_since_last"]) == (other, 5, 5)


# --------------------------------------------------------------------------------------- several on one port


async def test_several_broadcasters_share_a_port_and_each_serves(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    stack = Stack(
        feed_stack.data_dir / "shared",
        ports=Ports.free(),
        services=(FEED,),
        migrate=False,
        redis_url=feed_stack.urls.redis_url,
        nats_url=feed_stack.urls.nats_url,
        postgres_url=feed_stack.urls.postgres_url,
        broadcasters=3,
    )
    async with stack, contextlib.AsyncExitStack() as viewers:
        assert set(stack.processes) == {FEED, f"{FEED}-2", f"{FEED}-3"}
        own = [int(process.spec.address.rpartition(":")[2]) for process in stack.processes.values()]
        seen = []
        for _ in range(24):
            seen.append(await viewers.enter_async_context(connect(ws_url(stack, f"/ws/items/{item}?feed=full"))))
        counts = [(await http_get(stack, f"/stats/items/{item}", port)).json()["subscribers"] for port in own]
        assert sum(counts) == 24
        # All 24 connections go to the same one of three with a probability of 1 in 3^23.
        assert max(counts) < 24
        await house.bid(item, 100, 200)
        for viewer in seen:
            assert [(await next_of(viewer, "bid"))["seq"] for _ in range(2)] == [1, 2]
        # When one ends, the others still have the port.
        stack.kill(f"{FEED}-2", signal.SIGTERM)
        assert await stack.wait_ended(f"{FEED}-2")
        async with connect(ws_url(stack, f"/ws/items/{item}")) as newcomer:
            assert (await next_of(newcomer, "snapshot"))["seq"] == 2


async def broadcaster(stack: Stack, **env: str) -> tuple[int, str]:
    """One that ends by itself; its exit code, and what it said."""
    return await finished(sys.executable, "-m", FEED, env=os.environ | stack.service_env | env, within_s=120)


async def test_who_does_not_share_a_port_does_not_get_it(feed_stack: Stack) -> None:
    async with another_feed(feed_stack, "feed-alone") as taken:
        env = {"BROADCAST_PORT": str(taken), "BROADCAST_REUSE_PORT": "true"}
        code, said = await broadcaster(feed_stack, **env)
        assert code
        assert "in use" in said


async def test_a_short_secret_ends_the_start_with_a_message(feed_stack: Stack) -> None:
    code, said = await broadcaster(feed_stack, FEED_TOKEN_SECRET="short")
    assert code
    assert "FEED_TOKEN_SECRET" in said
    assert "at least 32 bytes" in said
    assert "short" not in said.replace("shorter", ""), "a secret is not printed, not even a bad one"


# -------------------------------------------------------------------------------------- heads that do not end


async def answer_to(port: int, *pieces: bytes, every_s: float = 0.05) -> bytes:
    """Send the pieces one after another, the last one repeatedly, until the service closes; returns its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def talk() -> None:
        for piece in pieces[:-1]:
            writer.write(piece)
            await asyncio.sleep(every_s)
        while pieces[-1]:
            writer.write(pieces[-1])
            await writer.drain()
            await asyncio.sleep(every_s)

    talking = asyncio.create_task(talk())
    answer = b""
    try:
        async with asyncio.timeout(PATIENCE_S):
            # A client that still sends when the service closes may get a reset.
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65_536):
                    answer += data
    finally:
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        writer.transport.abort()
    return answer


async def test_a_head_that_does_not_end_is_cut_off(feed_stack: Stack) -> None:
    async with (
        another_feed(feed_stack, "feed-patient", FEED_HEAD_TIMEOUT_S="3") as port,
        connect(ws_url(feed_stack, "/ws", port)) as viewer,
    ):
        head = b"GET /ws HTTP/1.1\r\nhost: x\r\n"
        silent, trickling, second, endless = await asyncio.gather(
            answer_to(port, b""),
            answer_to(port, head, b"x"),
            answer_to(port, READY, head, b"x"),
            answer_to(port, head, b"x-filler: " + b"a" * 4_000 + b"\r\n", every_s=0.02),
        )
        assert silent == b"", "who asked for nothing is answered nothing"
        assert trickling.startswith(b"HTTP/1.1 408 ")
        assert b"HEAD_TOO_SLOW" in trickling
        assert second.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 408 " in second
        assert endless == b"" or b"HEAD_TOO_LARGE" in endless
        await viewer.send('{"op":"ping"}')
        await next_of(viewer, "pong")


# ------------------------------------------------------------------------------------------------------- the end


async def test_nobody_is_let_in_while_it_stops(feed_stack: Stack) -> None:
    """Connections that were open for plain HTTP before may still send requests."""
    async with (
        another_feed(feed_stack, "feed-stopping", FEED_DRAIN_S="8") as port,
        contextlib.AsyncExitStack() as viewers,
    ):
        watching = [await viewers.enter_async_context(connect(ws_url(feed_stack, "/ws", port))) for _ in range(101)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        # A load balancer sends its requests over a connection that it keeps.
        told, asking = await asyncio.open_connection("127.0.0.1", port)
        asking.write(READY)
        async with asyncio.timeout(PATIENCE_S):
            assert (await told.readuntil(b"}")).split()[1] == b"200"
        feed_stack.kill("feed-stopping", signal.SIGTERM)
        assert await closed_with(watching[0]) == SERVICE_RESTART.code
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readline()).split()[1] == b"503"
        writer.close()
        asking.write(READY)
        async with asyncio.timeout(PATIENCE_S):
            assert (await told.readline()).split()[1] == b"503"
        asking.close()
        assert [await closed_with(viewer) for viewer in watching[1:]] == [SERVICE_RESTART.code] * 100


@pytest.mark.parametrize("more", [f"x-long: {'x' * 9_000}\r\n", "".join(f"x-{n}: 1\r\n" for n in range(130))])
async def test_a_head_that_only_the_websockets_library_refuses_is_answered_and_closed(
    feed_stack: Stack, more: str
) -> None:
    """Nobody else would end such a connection, which is no viewer yet."""
    wish = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    wish += "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
    reader, writer = await asyncio.open_connection("127.0.0.1", feed_stack.ports.broadcast)
    try:
        writer.write(f"GET /ws HTTP/1.1\r\nhost: x\r\n{wish}\r\n{more}\r\nx".encode())
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"HTTP/1.1 4")
    finally:
        writer.close()
