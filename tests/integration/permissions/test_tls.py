"""The clients of all three servers over TLS: they talk to the server that was meant, and to no other one.

The certificates are those of throw-away authorities: the right one, another one, and the right one for another name.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from infrastructure.docker.authorities import with_authority
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.binaries import find_nats
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.servers.redis_and_nats import plain_environment
from infrastructure.local.stack import Stack
from shared.clients.nats import NatsLink
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from tests.authorities import Authority
from tests.programs import accepts, running_server
from tests.tcp import relay, serving

pytestmark = pytest.mark.integration

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Case:
    """The server's certificate, and whom the client trusts."""

    certificate: tuple[Path, Path]
    trusted: Path
    is_meant: bool


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Authority]:
    folder = tmp_path_factory.mktemp("authorities")
    return Authority(folder / "ours"), Authority(folder / "another")


@pytest.fixture(params=["meant", "another authority", "another name"])
def case(request: pytest.FixtureRequest, authorities: tuple[Authority, Authority]) -> Case:
    ours, another = authorities
    if request.param == "meant":
        return Case(ours.certificate(HOST), ours.file, True)
    if request.param == "another name":
        return Case(ours.certificate("elsewhere.example"), ours.file, False)
    return Case(another.certificate(HOST), ours.file, False)


def context_of(case: Case) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*case.certificate)
    return context


async def test_redis(servers: Stack, case: Case) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, servers.ports.redis)

    async with (
        serving(handle, context=context_of(case)) as port,
        open_redis(f"rediss://{HOST}:{port}/0?ssl_ca_certs={case.trusted}", timeout_s=30) as redis,
    ):
        if case.is_meant:
            assert await redis.ping()
            return
        with pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            await redis.ping()


async def test_nats(
    tmp_path: Path, case: Case, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (port,) = free_ports(1)
    cert, key = case.certificate
    config = tmp_path / "nats.conf"
    config.write_text(f'host: "{HOST}"\nport: {port}\ntls {{ cert_file: "{cert}", key_file: "{key}" }}\n')
    spec = ProcessSpec(
        name="nats",
        argv=(str(find_nats(os.environ)), "-c", str(config)),
        env=plain_environment(os.environ),
        log=tmp_path / "nats.log",
        ready=accepts(port),
        address=f"{HOST}:{port}",
    )
    # Where Python looks for the authorities that it trusts.
    monkeypatch.setenv("SSL_CERT_FILE", str(case.trusted))
    async with running_server(spec):
        link = NatsLink(f"tls://{HOST}:{port}", name="test", timeout_s=30 if case.is_meant else 2)
        if case.is_meant:
            await link.connected()
            assert link.is_connected
        else:
            with pytest.raises(ConnectionError, match=f"NATS at tls://{HOST}:{port} is not reachable"):
                await link.connected()
            assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
        await link.close()


@asynccontextmanager
async def postgres_over_tls(to_port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """PostgreSQL's own way into TLS: the client asks, the server says S, and then they shake hands."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readexactly(8)
        assert asked[4:] == (80877103).to_bytes(4)
        writer.write(b"S")
        try:
            await writer.start_tls(context)
        except ssl.SSLError as error:
            raise ConnectionResetError(str(error)) from error
        await relay(reader, writer, to_port)

    async with serving(handle) as port:
        yield port


async def test_postgres(servers: Stack, case: Case, tmp_path: Path) -> None:
    """With the environment that the entry point of the image makes of POSTGRES_CA."""
    async with postgres_over_tls(servers.ports.postgres, context_of(case)) as port:
        given = {
            "POSTGRES_URL": f"postgresql://bidding@{HOST}:{port}/bidding?sslmode=require",
            "POSTGRES_CA": case.trusted.read_text(),
        }
        environment = with_authority(given, tmp_path)
        assert "POSTGRES_CA" not in environment
        pool = await open_postgres(environment["POSTGRES_URL"], name="test", connections_max=1, timeout_s=30)
        try:
            if case.is_meant:
                assert await pool.fetchval("SELECT 1") == 1
                return
            with pytest.raises((ssl.SSLCertVerificationError, ConnectionError), match="CERTIFICATE_VERIFY_FAILED"):
                await pool.fetchval("SELECT 1")
        finally:
            pool.terminate()


async def test_postgres_without_an_authority_takes_any_server(
    servers: Stack, authorities: tuple[Authority, ...]
) -> None:
    """What sslmode=require means: encrypted, and by whomever. Hence POSTGRES_CA."""
    other = Case(authorities[1].certificate("elsewhere.example"), authorities[0].file, False)
    async with postgres_over_tls(servers.ports.postgres, context_of(other)) as port:
        connection = await asyncpg.connect(f"postgresql://bidding@{HOST}:{port}/bidding?sslmode=require", timeout=30)
        await connection.close()


def test_an_authority_without_an_address_or_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="POSTGRES_CA is set, but POSTGRES_URL is not"):
        with_authority({"POSTGRES_CA": "x"}, tmp_path)
    with pytest.raises(ValueError, match="POSTGRES_CA is no certificate in PEM"):
        with_authority({"POSTGRES_CA": "x", "POSTGRES_URL": "postgresql://h/d"}, tmp_path)
    assert with_authority({"POSTGRES_URL": "postgresql://h/d"}, tmp_path) == {"POSTGRES_URL": "postgresql://h/d"}
