"""Servers of one protocol of uvicorn's, in the event loop of the test and without uvicorn's own server around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from infrastructure.local.servers.ports import HOST
from tests.waiting import eventually


@asynccontextmanager
async def speaking(protocol: type[Any], config: uvicorn.Config) -> AsyncIterator[tuple[int, set[Any]]]:
    """A server on a free port: the port, and its connections, which are reset when the block ends."""
    state = ServerState()
    connections: set[Any] = state.connections

    def make() -> Any:
        return protocol(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(make, HOST, 0)
    try:
        yield int(server.sockets[0].getsockname()[1]), connections
    finally:
        server.close()
        for connection in list(connections):
            connection.transport.abort()
        await eventually(lambda: not connections)
