"""WebSockets that stay silent, do not read, or never come about: for how long each may cost something."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from broadcast_service.core.close_codes import SLOW_VIEWER
from broadcast_service.core.frames import event_frame
from shared.http.protocols import websockets as module
from shared.http.protocols.websockets import DirectWebSocket
from tests.integration.feed.edge.test_feed_transport import FRAMES_MAX, World
from tests.unit.broadcast_service.builders import bid
from tests.waiting import eventually

pytestmark = pytest.mark.integration

INTERVAL_S, TIMEOUT_S = 20.0, 5.0
PING = bytes([0x89, 0x80, 0, 0, 0, 0])


def tend(protocol: DirectWebSocket, now_s: float, ping: bytes = b"ping") -> None:
    protocol.tend(now_s, ping, interval_s=INTERVAL_S, timeout_s=TIMEOUT_S)


def pinged(protocol: DirectWebSocket) -> tuple[bytes | None, bool]:
    """The ping that is not answered yet, and whether that was seen to be late."""
    return protocol.pending_ping_payload, protocol.is_overdue


async def test_a_pong_that_is_late_once_may_only_be_unread_and_one_that_stays_away_is_the_end() -> None:
    """A process that was suspended itself finds all of its pings overdue, and the pongs in its sockets."""
    async with World().serve() as world, world.viewer() as (client, connection):
        protocol = world.protocols[-1]
        begun_s = protocol.pinged_s
        tend(protocol, begun_s + INTERVAL_S - 0.1)
        assert pinged(protocol) == (None, False), "it is not due yet"

        client.transport.pause_reading()
        tend(protocol, begun_s + INTERVAL_S, b"1111")
        tend(protocol, begun_s + INTERVAL_S + TIMEOUT_S - 0.1, b"2222")
        assert pinged(protocol) == (b"1111", False)
        tend(protocol, begun_s + INTERVAL_S + TIMEOUT_S, b"3333")
        assert (protocol.is_overdue, protocol.close_sent) == (True, False)
        client.transport.resume_reading()
        await eventually(lambda: protocol.pending_ping_payload is None)
        assert not protocol.is_overdue, "it begins anew"
        assert world.noises == 0, "an answer is no noise"

        client.transport.pause_reading()
        pinged_s = begun_s + 2 * INTERVAL_S
        tend(protocol, pinged_s, b"4444")
        tend(protocol, pinged_s + TIMEOUT_S)
        assert connection not in world.gone
        tend(protocol, pinged_s + TIMEOUT_S + 1)
        await eventually(lambda: connection in world.gone)
        client.transport.resume_reading()
        with pytest.raises(ConnectionClosed, match="keepalive"):
            await client.recv()


async def filled(world: World) -> None:
    """Send until the socket of a viewer that does not read takes no more."""
    connection, protocol = world.connections[-1], world.protocols[-1]
    sent = 0
    while connection.is_direct and sent < FRAMES_MAX:
        sent += 1
        connection.send((event_frame(bid(sent)),))
    assert not protocol.is_writable


async def test_who_pings_and_does_not_read_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers would pile up in memory."""
    async with World().serve() as world, world.viewer() as (client, _):
        async with asyncio.timeout(30):
            await (await client.ping())
        client.transport.pause_reading()
        await filled(world)
        answered: list[bytes] = []
        monkeypatch.setattr(world.protocols[-1].transport, "write", answered.append)
        client.transport.write(PING * 2_000)
        await eventually(lambda: world.noises == 2_001)
        assert answered == []


async def test_who_is_closed_and_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_GRACE_S", 0.3)
    async with World().serve() as world, world.viewer() as (client, connection):
        client.transport.pause_reading()
        await filled(world)
        protocol = world.protocols[-1]
        connection.close(SLOW_VIEWER)
        assert not protocol.disconnected
        await eventually(lambda: protocol.disconnected)
        assert connection in world.gone


async def read_to_the_end(client: ClientConnection) -> None:
    async with asyncio.timeout(30):
        async for _ in client:
            pass


async def test_who_is_closed_is_not_written_to_where_there_is_room_again() -> None:
    async with World().serve() as world, world.viewer() as (client, connection):
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, told: errors.append(told))
        client.transport.pause_reading()
        await filled(world)
        protocol = world.protocols[-1]
        connection.close(SLOW_VIEWER)
        client.transport.resume_reading()
        with pytest.raises(ConnectionClosed):
            await read_to_the_end(client)
        assert (errors, protocol.is_writable) == ([], False)
        assert client.close_code == SLOW_VIEWER.code, "the frame that says why came last"


class NeverOpened(World):
    """An application that hangs before it accepts."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass


async def test_a_websocket_that_is_never_opened_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_S", 0.3)
    async with NeverOpened().serve() as world:
        reader, writer = await asyncio.open_connection("127.0.0.1", world.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        async with asyncio.timeout(10):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_one_that_was_opened_is_not_cut_off_after_that_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OPEN_S", 0.2)
    async with World().serve() as world, world.viewer() as (client, connection):
        await asyncio.sleep(0.4)
        connection.send((event_frame(bid(1)),))
        async with asyncio.timeout(10):
            assert await client.recv()
        assert world.gone == []
