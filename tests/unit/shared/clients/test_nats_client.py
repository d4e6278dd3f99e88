"""What a connection to NATS leaves behind that was lost, or never came about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from nats.errors import Error as NatsError
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from infrastructure.local.servers.ports import HOST
from shared import names
from shared.clients.nats import (
    Client,
    NatsLink,
    StreamLimits,
    StreamUnavailable,
    ensure_stream,
    open_nats,
)
from tests.tcp import serving

GREETING_NEVER_COMES_S = 0.2
PATIENCE_S = 20
SOCKETS_HOLD_LESS_BYTES = 15_000_000


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


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a NATS server says until a client counts as connected."""
    writer.write(b'INFO {"max_payload": 1048576}\r\n')
    try:
        await reader.readuntil(b"PING\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the client was not patient enough") from error
    writer.write(b"PONG\r\n")


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    client = await open_nats(f"nats://{HOST}:{port}", name="test")
    try:
        yield client
    finally:
        async with asyncio.timeout(PATIENCE_S):
            await client.close()


async def test_a_server_that_stops_greeting_costs_no_socket_either() -> None:
    """Before Python 3.11.5 each try to reconnect would leave a socket; since then it would leave a warning."""
    lost, given_up, the_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def greeting_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not lost.is_set():
            await greet(reader, writer)
            await lost.wait()
        else:
            await reader.read()
            given_up.set()
            await the_end.wait()

    async with serving(greeting_once) as port, connected(port) as client:
        client.options |= {"connect_timeout": GREETING_NEVER_COMES_S, "reconnect_time_wait": GREETING_NEVER_COMES_S}
        lost.set()
        async with asyncio.timeout(PATIENCE_S):
            await given_up.wait()


async def test_who_asked_for_it_is_told_at_once_that_the_connection_is_lost() -> None:
    greeted, lost = asyncio.Event(), asyncio.Event()

    async def greeting_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not greeted.is_set():
            await greet(reader, writer)
            await greeted.wait()

    async with serving(greeting_once) as port:
        client = await open_nats(f"nats://{HOST}:{port}", name="test", on_lost=lost.set)
        try:
            assert not lost.is_set()
            greeted.set()
            async with asyncio.timeout(PATIENCE_S):
                await lost.wait()
            assert not client.is_connected
        finally:
            async with asyncio.timeout(PATIENCE_S):
                await client.close()


async def test_a_server_that_stops_reading_is_given_up_with_what_waits_for_it() -> None:
    """Of a host that vanished under load nobody would tell for a quarter of an hour that nothing reaches it."""
    flooded, came_back, the_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def deaf_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greet(reader, writer)
        if flooded.is_set():
            came_back.set()
        else:
            await flooded.wait()
            writer.write_eof()
        await the_end.wait()

    async with serving(deaf_at_first) as port, connected(port) as client:
        publishing = asyncio.create_task(_flood(client, flooded))
        async with asyncio.timeout(PATIENCE_S):
            await came_back.wait()
        await asyncio.wait([publishing])


async def _flood(client: Client, flooded: asyncio.Event) -> None:
    message = b"a" * 1_000_000
    for _ in range(SOCKETS_HOLD_LESS_BYTES // len(message)):
        await client.publish("any", message)
    flooded.set()


def state_of(link: NatsLink) -> tuple[Any, bool]:
    return link.client, link.is_connected


async def test_of_many_who_need_the_connection_one_opens_it_and_again_once_it_was_closed_for_good() -> None:
    """Each of the others would leave one that nobody closes."""
    accepted, the_end = 0, asyncio.Event()

    async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        await greet(reader, writer)
        await the_end.wait()

    async with serving(greeting) as port, asyncio.timeout(PATIENCE_S):
        link = NatsLink(f"nats://{HOST}:{port}", name="test")
        assert state_of(link) == (None, False)
        clients = await asyncio.gather(*(link.connected() for _ in range(10)))
        assert (len({id(client) for client in clients}), accepted) == (1, 1)
        assert state_of(link) == (clients[0], True)
        await clients[0].close()
        assert state_of(link) == (None, False)
        again = await link.connected()
        assert (again is clients[0], accepted) == (False, 2)
        await link.close()
        assert (state_of(link), again.is_closed) == ((None, False), True)


async def test_a_client_that_is_connecting_again_by_itself_is_not_replaced() -> None:
    class Link(NatsLink):
        async def _open(self) -> Client:
            raise AssertionError("a second one")

    link = Link("nats://nowhere", name="test")
    link._client = cast(Client, SimpleNamespace(is_closed=False, is_connected=False))
    with pytest.raises(StreamUnavailable, match="disconnected"):
        await link.connected()
    assert link.client is None


class WithoutStream:
    """JetStream that has no stream yet, or has one."""

    def __init__(self, *, has_stream: bool = False) -> None:
        self._has_stream = has_stream
        self.made: list[StreamConfig] = []

    async def stream_info(self, name: str) -> Any:
        assert name == names.STREAM
        if not self._has_stream:
            raise NotFoundError
        return "as it is"

    async def add_stream(self, config: StreamConfig) -> str:
        self.made.append(config)
        return "made"


async def test_a_full_stream_refuses_what_is_new_and_drops_nothing_that_is_not_archived() -> None:
    jetstream = WithoutStream()
    limits = StreamLimits(bytes_max=7_000, age_max_s=60, duplicate_window_s=5, replicas=3)
    assert cast(Any, await ensure_stream(cast(Any, jetstream), limits)) == "made"
    (config,) = jetstream.made
    assert (config.name, config.subjects) == (names.STREAM, [names.SUBJECT_ALL])
    assert (config.discard, config.retention) == (DiscardPolicy.NEW, RetentionPolicy.LIMITS)
    assert (config.storage, config.num_replicas) == (StorageType.FILE, 3)
    assert (config.max_bytes, config.max_age, config.duplicate_window) == (7_000, 60, 5)
    assert config.allow_direct, "or many subjects cannot be asked for at once"
    await ensure_stream(cast(Any, jetstream))
    assert (jetstream.made[1].max_age, jetstream.made[1].duplicate_window) == (3 * 86_400, 120)


async def test_a_stream_that_is_there_is_left_as_it_is() -> None:
    jetstream = WithoutStream(has_stream=True)
    found: Any = await ensure_stream(cast(Any, jetstream), StreamLimits(bytes_max=1))
    assert found == "as it is"
    assert jetstream.made == []
