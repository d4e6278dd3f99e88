"""Whoever sends much is parsed in turns with the others, and what is sent for nothing is parsed up to a bound."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import pytest

from infrastructure.local.servers.ports import HOST
from shared.http.protocols.bounded import DROPPED_MAX
from shared.http.protocols.turned import SLICE_BYTES
from shared.pacing.turns import Turns
from tests.unit.shared.http.test_protocol import GET, LONG_S, PROTOCOLS, serving
from tests.waiting import eventually

SENDING: Final = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
PIECE: Final = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
PATIENCE_S: Final = 60.0

every_service = pytest.mark.parametrize("service", PROTOCOLS)


class Counting:
    """Answers at once where it is not asked to wait for the body, and counts what it was given of bodies."""

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits
        self.body_bytes = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        more = self._waits and scope["method"] == "POST"
        while more:
            message = await receive()
            self.body_bytes += len(message.get("body", b""))
            more = message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def answered(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")


@every_service
async def test_a_long_read_is_parsed_in_turns(service: str) -> None:
    """One step in each turn, as if it took all the time that there is."""
    protocol = type("Slow", (PROTOCOLS[service],), {"turns": Turns(0.0)})
    app = Counting(waits=True)
    async with serving(protocol, keep_alive_s=LONG_S, app=app) as (port, connections):
        reader, writer = await asyncio.open_connection(HOST, port)
        await eventually(lambda: bool(connections), seconds=PATIENCE_S)
        connection: Any = next(iter(connections))
        connection.data_received(SENDING + PIECE * 4)
        turns = 0
        while connection._unparsed:
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 4 * 65_536 / (8 * SLICE_BYTES)
        # Nothing is lost on the way, and the connection goes on.
        writer.write(b"0\r\n\r\n")
        await answered(reader)
        assert app.body_bytes == 4 * 65_536
        writer.write(GET)
        await answered(reader)
        writer.close()


@every_service
async def test_the_rest_of_a_request_that_is_answered_is_parsed_up_to_a_bound(service: str) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=Counting(waits=False)) as (port, connections):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(SENDING)
        await answered(reader)
        [connection] = connections
        for _ in range(3):
            writer.write(PIECE)
        await eventually(lambda: connection._dropped_bytes == 3 * 65_536, seconds=PATIENCE_S)
        # So much may be the rest of a request like others: the next one is answered.
        writer.write(b"0\r\n\r\n" + GET)
        await answered(reader)

        writer.write(SENDING)
        await answered(reader)
        for _ in range(DROPPED_MAX // 65_536 + 40):
            writer.write(PIECE)
        # It is told the end, and is not reset while it sends.
        async with asyncio.timeout(PATIENCE_S):
            assert await reader.read() == b""
            await writer.drain()
        assert connection.is_deaf
        writer.close()


@every_service
async def test_who_sends_such_a_rest_without_end_is_cut_off_in_time(service: str) -> None:
    quick = type("Quick", (PROTOCOLS[service],), {"timeout_s": 1.5})
    async with serving(quick, keep_alive_s=LONG_S, app=Counting(waits=False)) as (port, connections):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(SENDING)
        await answered(reader)

        def send_more() -> bool:
            if not writer.transport.is_closing() and writer.transport.get_write_buffer_size() < len(PIECE):
                writer.write(PIECE)
            return not connections

        await eventually(send_more, seconds=PATIENCE_S)
        writer.transport.abort()
