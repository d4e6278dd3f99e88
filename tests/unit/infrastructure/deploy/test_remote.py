"""Servers that run elsewhere: reading their URLs, showing them, and noticing that they are not there."""

from __future__ import annotations

import socket

import pytest

from infrastructure.local.errors import StackError
from infrastructure.local.remote import endpoints, require_reachable, without_password
from infrastructure.local.servers.ports import free_ports


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache.example:6380/0", [("cache.example", 6380)]),
        ("rediss://:secret@cache.example/0", [("cache.example", 6379)]),
        ("nats://a.example:4222,nats://b.example", [("a.example", 4222), ("b.example", 4222)]),
        ("nats://a.example:1,b.example:2", [("a.example", 1), ("b.example", 2)]),
        ("postgresql://me:p%40ss@db.example/bids", [("db.example", 5432)]),
        ("redis://[::1]:7000", [("::1", 7000)]),
    ],
)
def test_endpoints(url: str, expected: list[tuple[str, int]]) -> None:
    assert endpoints(url) == expected


@pytest.mark.parametrize("url", ["redis://", "redis:///0", "redis://host:port"])
def test_no_endpoint(url: str) -> None:
    with pytest.raises(ValueError, match=r"host|Port|invalid"):
        endpoints(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:secret@h:1/0", "redis://:***@h:1/0"),
        ("postgresql://me:secret@h/db", "postgresql://me:***@h/db"),
        ("nats://u:secret@a:1,nats://u:secret@b:2", "nats://u:***@a:1,nats://u:***@b:2"),
        ("postgresql://me@h/db", "postgresql://me@h/db"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown


async def test_a_server_that_answers_is_reachable_also_as_the_second_of_two() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (closed,) = free_ports(1)
        await require_reachable("NATS_URL", f"nats://127.0.0.1:{closed},nats://127.0.0.1:{port}")


async def test_one_that_does_not_answer_is_named_without_its_password() -> None:
    (closed,) = free_ports(1)
    with pytest.raises(StackError, match="REDIS_URL is redis://") as caught:
        await require_reachable("REDIS_URL", f"redis://:secret@127.0.0.1:{closed}/0")
    assert "secret" not in str(caught.value)
    assert "unset REDIS_URL" in str(caught.value)


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "postgresql://me@/bids?host=/run/postgresql"])
async def test_a_unix_socket_is_taken_on_trust(url: str) -> None:
    await require_reachable("ANY_URL", url)


async def test_what_is_no_url_is_named() -> None:
    with pytest.raises(StackError, match="POSTGRES_URL is not the URL of a server"):
        await require_reachable("POSTGRES_URL", "postgresql://")
