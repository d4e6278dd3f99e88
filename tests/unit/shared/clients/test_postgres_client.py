"""A pool of PostgreSQL without a server: it is made all the same, and nobody waits for it for ever."""

from __future__ import annotations

import asyncio

import pytest

from infrastructure.local.servers.ports import HOST, free_ports
from shared.clients.postgres import open_postgres
from tests.tcp import serving


async def test_a_service_starts_while_postgresql_is_away() -> None:
    (port,) = free_ports(1)
    pool = await open_postgres(f"postgresql://bidding@{HOST}:{port}/bidding", name="test", connections_max=3)
    assert (pool.get_size(), pool.get_max_size()) == (0, 3)
    with pytest.raises(ConnectionRefusedError):
        await pool.acquire()
    pool.terminate()


async def test_a_server_that_never_greets_is_waited_for_so_long_and_no_longer() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as port, asyncio.timeout(10):
        pool = await open_postgres(f"postgresql://bidding@{HOST}:{port}/bidding", name="test", timeout_s=0.2)
        with pytest.raises(TimeoutError):
            await pool.acquire()
        pool.terminate()
