"""Connections on real sockets, without a service around them: when frames go straight to the socket, and when not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from broadcast_service.core.close_codes import SLOW_VIEWER, TOO_MANY_ERRORS, TOO_MANY_OPERATIONS, CloseCode
from broadcast_service.core.frames import event_frame
from broadcast_service.core.outgoing import OutgoingLimits
from broadcast_service.metrics import Metrics
from broadcast_service.transport.connection import Connection, send_to_all
from shared.http.protocols.websockets import (
    AFTER_CLOSE_BYTES_MAX,
    PARSE_STEP_BYTES,
    DirectWebSocket,
    transport_of,
    websocket_protocol,
)
from tests.protocols import speaking
from tests.unit.broadcast_service.builders import bid
from tests.waiting import eventually

pytestmark = pytest.mark.integration

READ_BYTES_MAX = 256 * 1024
"""What asyncio reads of a socket at once."""

FRAMES_MAX = 5_000
"""More than all buffers between two sockets of this machine hold, with the sizes below."""


class World:
    """A server that takes over every WebSocket and does nothing else."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.connections: list[Connection] = []
        self.protocols: list[DirectWebSocket] = []
        self.gone: list[Connection] = []
        self.noises = 0
        self.noises_max = 0
        self.closes_with = TOO_MANY_OPERATIONS
        # How many messages were handled, of those that are expected, and how many waited at most meanwhile.
        self.heard = 0
        self.expected = 0
        self.waited = 0
        self.port = 0

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        transport = transport_of(scope)
        connection = Connection(
            transport,
            "c",
            single=True,
            limits=OutgoingLimits(frames_max=2 * FRAMES_MAX, bytes_max=100_000_000),
            metrics=self.metrics,
            clock=asyncio.get_running_loop().time,
        )
        transport.take_over(Forward(self, connection))
        self.connections.append(connection)
        self.protocols.append(transport)

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[World]:
        config = uvicorn.Config(
            self.app,
            ws=websocket_protocol(
                send_buffer_bytes=4_096,
                restart=(1012, "restart"),
                given_up=frozenset((TOO_MANY_OPERATIONS.code, TOO_MANY_ERRORS.code)),
            ),
            ws_ping_interval=None,
            lifespan="off",
            interface="asgi3",
        )
        config.load()
        async with speaking(cast(type[DirectWebSocket], config.ws_protocol_class), config) as (self.port, _):
            yield self

    @contextlib.asynccontextmanager
    async def viewer(self) -> AsyncIterator[tuple[ClientConnection, Connection]]:
        """A client that reads only when the test says so, and the connection on the server's side."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect(("127.0.0.1", self.port))
        sock.setblocking(False)
        before = len(self.connections)
        async with connect(f"ws://127.0.0.1:{self.port}/", sock=sock, max_queue=1, close_timeout=0.1) as client:

            async def taken_over() -> bool:
                return len(self.connections) > before

            await eventually(taken_over)
            yield client, self.connections[-1]


class Forward:
    """Handles the calls of the transport like a session."""

    def __init__(self, world: World, connection: Connection) -> None:
        self._world = world
        self._connection = connection

    def on_message(self, text: str | None) -> None:
        world = self._world
        world.heard += 1
        assert world.heard <= world.expected, "nobody says anything here"
        world.waited = max(world.waited, len(world.protocols[0].inbox or ()))

    def on_noise(self) -> None:
        self._world.noises += 1
        if self._world.noises == self._world.noises_max:
            self._connection.close(self._world.closes_with)

    def on_full(self) -> None:
        self._connection.on_full()

    def on_writable(self) -> None:
        self._connection.on_writable()

    def on_gone(self) -> None:
        self._world.gone.append(self._connection)


async def test_frames_go_straight_to_the_socket_until_it_is_full_and_again_when_it_was_read() -> None:
    async with World().serve() as world, world.viewer() as (client, connection):
        assert connection.is_direct
        sent = 0
        while connection.is_direct and sent < FRAMES_MAX:
            sent += 1
            send_to_all((event_frame(bid(sent)),), [connection], world.metrics)
        assert not connection.is_direct
        assert connection.is_behind
        assert world.metrics.frames_queued == 0, "all of it was taken"
        for _ in range(10):
            sent += 1
            send_to_all((event_frame(bid(sent)),), [connection], world.metrics)
        assert world.metrics.frames_queued == 10
        async with asyncio.timeout(30):
            seqs = [json.loads(await client.recv())["seq"] for _ in range(sent)]
        assert seqs == list(range(1, sent + 1))

        async def is_direct() -> bool:
            return connection.is_direct

        assert await eventually(is_direct)
        assert not connection.is_behind


async def test_who_leaves_is_written_to_no_more() -> None:
    async with World().serve() as world:
        async with world.viewer() as (_, connection):
            assert connection.is_direct

        async def is_gone() -> bool:
            return connection in world.gone

        assert await eventually(is_gone)
        assert not connection.is_direct
        send_to_all((event_frame(bid(1)),), [connection], world.metrics)
        assert world.metrics.frames_sent == 0


async def test_who_is_closed_is_told_in_its_own_turn_of_the_loop() -> None:
    """Not during the loop over all viewers, which must not change meanwhile."""
    async with World().serve() as world, world.viewer() as (_, connection):
        connection.close(SLOW_VIEWER)
        assert not connection.is_direct
        assert world.gone == []

        async def is_gone() -> bool:
            return connection in world.gone

        assert await eventually(is_gone)


PING, PONG, FIRST, ANOTHER = (bytes([head, 0x80, 0, 0, 0, 0]) for head in (0x89, 0x8A, 0x01, 0x00))


@pytest.mark.parametrize("code", [SLOW_VIEWER, TOO_MANY_OPERATIONS], ids=lambda code: code.name)
async def test_who_talks_on_after_the_end_is_listened_to_no_more(code: CloseCode) -> None:
    """Pings and fragments are reported until the connection is closed for them. After that little is even parsed, to
    find the viewer's own close frame; and nothing at all of who was closed for what it sends."""
    async with World().serve() as world, world.viewer() as (client, connection):
        world.noises_max, world.closes_with = 400, code
        client.transport.write((PING + PONG) * 100 + FIRST + ANOTHER * 99)
        await eventually(lambda: world.noises == 300)
        assert connection not in world.gone
        client.transport.write(ANOTHER * 200_000)
        await eventually(lambda: connection in world.gone)
        assert world.noises == 400
        protocol = world.protocols[-1]
        if code is TOO_MANY_OPERATIONS:
            assert protocol.is_deaf
            assert protocol.bytes_after_close < PARSE_STEP_BYTES
        else:
            await eventually(lambda: protocol.bytes_after_close >= AFTER_CLOSE_BYTES_MAX)
            assert protocol.bytes_after_close < AFTER_CLOSE_BYTES_MAX + PARSE_STEP_BYTES
        assert len(protocol.frames) == 200


async def test_who_says_more_than_is_handled_is_not_read_meanwhile() -> None:
    """Each message has its own turn of the event loop, and what is read of the next ones is no more than one read."""
    message = Frame(Opcode.TEXT, b"x" * 94).serialize(mask=True)
    async with World().serve() as world, world.viewer() as (client, _):
        world.expected = 20_000
        client.transport.write(message * world.expected)

        async def all_heard() -> bool:
            return world.heard == world.expected

        await eventually(all_heard, seconds=60)
        assert 0 < world.waited <= READ_BYTES_MAX // len(message)
