"""What a client of Redis does where an answer gets lost, or none comes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from api_gateway.engine.loss.guard import NotAdmitted
from infrastructure.local.servers.ports import HOST
from shared.clients.redis import open_redis, told_of
from tests.tcp import serving


async def test_a_command_whose_answer_got_lost_is_not_sent_again() -> None:
    """It may have run: a script would run twice."""
    heard: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(4096):
            heard.append(received)
            if b"EVALSHA" in received:
                return
            writer.write(b"+OK\r\n" * received.count(b"*"))

    async with serving(hang_up) as port:
        client = open_redis(f"redis://{HOST}:{port}")
        try:
            with pytest.raises(RedisConnectionError):
                await client.evalsha("0" * 40, 0)
            pipeline = client.pipeline(transaction=False)
            pipeline.evalsha("1" * 40, 0)
            with pytest.raises(RedisConnectionError):
                await pipeline.execute()
        finally:
            await client.aclose()
    sent = b"".join(heard)
    assert [sent.count(sha * 40) for sha in (b"0", b"1")] == [1, 1]


SOON_S = 0.2
PATIENCE_S = 3.0
"""Less than what the library waits by itself."""


async def test_a_server_that_never_answers_is_waited_for_so_long_and_no_longer() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass

    async with serving(silent) as port, asyncio.timeout(PATIENCE_S):
        client = open_redis(f"redis://{HOST}:{port}", timeout_s=SOON_S)
        try:
            with pytest.raises(RedisTimeoutError):
                await client.ping()
        finally:
            await client.aclose()


async def test_so_many_connections_are_made_and_a_free_one_is_not_waited_for_for_ever() -> None:
    accepted = 0

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal accepted
        accepted += 1
        while received := await reader.read(4096):
            writer.write(b"+OK\r\n" * received.count(b"*"))

    async with serving(answering) as port, asyncio.timeout(PATIENCE_S):
        client = open_redis(f"redis://{HOST}:{port}", timeout_s=SOON_S, connections_max=2)
        pool: Any = client.connection_pool
        try:
            taken = [await pool.get_connection() for _ in range(2)]
            with pytest.raises(RedisConnectionError, match="No connection available"):
                await client.set("a", "1")
            waiting = asyncio.ensure_future(client.set("a", "1"))
            await asyncio.sleep(0)
            await pool.release(taken.pop())
            assert await waiting
            await pool.release(taken.pop())
        finally:
            await client.aclose()
    assert accepted == 2


async def test_every_new_connection_is_admitted_before_it_carries_anything() -> None:
    heard: list[bytes] = []

    async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while received := await reader.read(4096):
            heard.append(received)
            writer.write(b"+OK\r\n" * received.count(b"*"))

    async def refuse(connection: AbstractConnection) -> None:
        await connection.on_connect()
        raise RedisConnectionError("not this one")

    async with serving(answering) as port, asyncio.timeout(PATIENCE_S):
        client = open_redis(f"redis://{HOST}:{port}", on_connect=refuse)
        try:
            with pytest.raises(RedisConnectionError, match="not this one"):
                await client.set("bid", "1")
        finally:
            await client.aclose()
    assert b"bid" not in b"".join(heard)


def test_what_is_told_of_an_error_has_no_address() -> None:
    secret = "Error 111 connecting to 10.0.0.7:6379. Connect call failed ('10.0.0.7', 6379)."
    assert told_of(RedisConnectionError(secret)) == "ConnectionError"
    assert told_of(OSError(secret)) == "OSError"
    assert told_of(TimeoutError()) == "TimeoutError"
    assert told_of(ResponseError("OOM command not allowed")) == "OOM command not allowed"
    assert told_of(NotAdmitted("it may be an older copy")) == "it may be an older copy"
