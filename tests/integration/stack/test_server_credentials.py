"""Servers that ask for a password and speak TLS, as a deployment has them, through the clients of the services."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from nats.errors import Error as NatsError
from redis.exceptions import AuthenticationError

from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.binaries import find_nats, find_redis
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.servers.redis_and_nats import plain_environment
from shared.clients.nats import NatsLink, StreamLimits, open_nats
from shared.clients.redis import open_redis
from shared.server_urls import with_credentials
from tests.programs import accepts, running_server
from tests.tcp import relay, serving

x509 = pytest.importorskip("cryptography.x509")
pytestmark = pytest.mark.integration

PASSWORD = 'p@ss/w:rd, "50%" #1'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def server(folder: Path, *command: str, port: int) -> ProcessSpec:
    return ProcessSpec(
        name="server",
        argv=command,
        env=plain_environment(os.environ),
        log=folder / "server.log",
        ready=accepts(port),
        address=f"127.0.0.1:{port}",
    )


@asynccontextmanager
async def nats_server(folder: Path, tls: tuple[Path, Path] | None = None) -> AsyncIterator[int]:
    """Its port. It lets in `bidding` with PASSWORD and nobody else."""
    (port,) = free_ports(1)
    escaped = PASSWORD.replace("\\", "\\\\").replace('"', '\\"')
    config = f'host: "127.0.0.1"\nport: {port}\nauthorization {{ user: "bidding", password: "{escaped}" }}\n'
    if tls is not None:
        config += f'tls {{ cert_file: "{tls[0]}", key_file: "{tls[1]}" }}\n'
    (folder / "nats.conf").write_text(config)
    async with running_server(server(folder, str(find_nats(os.environ)), "-c", str(folder / "nats.conf"), port=port)):
        yield port


async def test_nats_with_a_password_that_a_url_has_to_encode(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as port:
        # The second server is given without credentials, and is the one that is there.
        (closed,) = free_ports(1)
        url = with_credentials(f"nats://bidding@127.0.0.1:{closed}", password=PASSWORD) + f",127.0.0.1:{port}"
        async with asyncio.timeout(15):
            client = await open_nats(url, name="test")
        assert client.is_connected
        await client.close()


async def test_a_wrong_password_is_not_connected_and_not_shown(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with nats_server(tmp_path) as port:
        link = NatsLink(f"nats://bidding:hunter2@127.0.0.1:{port}", name="test", timeout_s=1)
        with pytest.raises(ConnectionError) as caught:
            await link.connected()
        await link.close()
    assert isinstance(caught.value.__cause__, NatsError | TimeoutError)
    assert "hunter2" not in str(caught.value) + caplog.text


async def test_nats_over_tls(tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    # Where Python looks for the authorities that it trusts.
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    async with nats_server(tmp_path, certificate) as port:
        async with asyncio.timeout(15):
            url = with_credentials(f"tls://bidding@127.0.0.1:{port}", password=PASSWORD)
            client = await open_nats(url, name="test")
        assert client.is_connected
        await client.close()


@asynccontextmanager
async def tls_in_front_of(port: int, certificate: tuple[Path, Path]) -> AsyncIterator[int]:
    """A port that speaks TLS and passes everything on; not every redis-server is built with it."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async with serving(lambda reader, writer: relay(reader, writer, port), context=context) as tls_port:
        yield tls_port


async def test_redis_with_a_password_and_over_tls(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    (port,) = free_ports(1)
    escaped = PASSWORD.replace('"', '\\"')
    (tmp_path / "redis.conf").write_text(
        f'bind 127.0.0.1\nport {port}\nsave ""\ndir {tmp_path}\nrequirepass "{escaped}"\n'
    )
    async with running_server(server(tmp_path, str(find_redis(os.environ)), str(tmp_path / "redis.conf"), port=port)):
        wrong = open_redis(f"redis://:hunter2@127.0.0.1:{port}/0", timeout_s=5)
        with pytest.raises(AuthenticationError):
            await wrong.get("key")
        await wrong.aclose()
        async with tls_in_front_of(port, certificate) as tls_port:
            trusted = f"ssl_ca_certs={certificate[0]}"
            address = f"rediss://127.0.0.1:{tls_port}/0?{trusted}"
            redis = open_redis(with_credentials(address, password=PASSWORD), timeout_s=5)
            await redis.set("key", "value")
            assert await redis.get("key") == b"value"
            await redis.aclose()


def test_the_replicas_of_the_stream_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert StreamLimits().replicas == 1
    monkeypatch.setenv("NATS_STREAM_REPLICAS", "3")
    assert StreamLimits().replicas == 3
    monkeypatch.setenv("NATS_STREAM_REPLICAS", "2")
    with pytest.raises(ValueError, match="must be 1, 3 or 5"):
        StreamLimits()
