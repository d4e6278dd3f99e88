"""What a connection to NATS leaves behind that never came about."""

from __future__ import annotations

import asyncio

import pytest
from nats.errors import Error as NatsError

from infrastructure.local.ports import HOST
from shared.clients.nats import NatsLink, open_nats
from tests.tcp import serving

GREETING_NEVER_COMES_S = 0.2


async def test_a_server_that_accepts_and_never_greets_costs_no_socket() -> None:
    """A NATS server that is stopped or overloaded: the kernel still takes the connection."""
    closed = asyncio.Semaphore(0)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        closed.release()

    async with serving(silent) as port:
        link = NatsLink(f"nats://{HOST}:{port}", name="test", timeout_s=GREETING_NEVER_COMES_S)
        for _ in range(3):
            with pytest.raises(ConnectionError, match=rf"nats://{HOST}:{port} is not reachable: timed out"):
                await link.connected()
            async with asyncio.timeout(10):
                await closed.acquire()
        await link.close()


async def test_an_address_that_is_none_is_an_error_of_its_own() -> None:
    """Not one about closing what was never open."""
    with pytest.raises(NatsError, match="invalid connect url"):
        await open_nats(f"nats://{HOST}:none", name="test")
