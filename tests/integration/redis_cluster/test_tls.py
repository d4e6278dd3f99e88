"""A cluster behind TLS: nodes are called by the names that the cluster tells, and each must show a certificate for it.

The packaged server is built without TLS, so each node has a server in front of it that speaks it, as a load balancer
does; what nodes tell clients is that server's port. All that the client does is real.
"""

from __future__ import annotations

import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.exceptions import ConnectionError as RedisConnectionError

from infrastructure.local.stack import Stack
from shared import names
from shared.clients.cluster.client import ClusterClient
from shared.clients.redis import open_redis
from tests.faults.redis_cluster.moving import Nodes
from tests.tcp import relay, serving

x509 = pytest.importorskip("cryptography.x509")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_NAME = "localhost"


class Authority:
    """A CA for one test. Its own certificate is in ``file``."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._folder = folder
        folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = self._named(folder.name)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._signed(self._name, self._key, None))

    def certificate(self, name: str) -> ssl.SSLContext:
        """A TLS context for a server, with a certificate of this name."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        certificate, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(self._signed(self._named("a node"), key, name))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key_file)
        return context

    def _named(self, name: str) -> Any:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])

    def _signed(self, name: Any, key: Any, host: str | None) -> bytes:
        from cryptography.hazmat.primitives import hashes, serialization

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
        )
        if host is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return bytes(signed.public_bytes(serialization.Encoding.PEM))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest_asyncio.fixture
async def nodes_by_name(nodes: Nodes) -> AsyncIterator[Nodes]:
    """Nodes that tell clients their name."""
    for client in nodes.clients.values():
        await client.config_set("cluster-announce-hostname", _NAME)
        await client.config_set("cluster-preferred-endpoint-type", "hostname")
    yield nodes
    for client in nodes.clients.values():
        await client.config_set("cluster-announce-hostname", "")
        await client.config_set("cluster-preferred-endpoint-type", "ip")
        await client.config_set("cluster-announce-port", "0")


@contextlib.asynccontextmanager
async def behind_tls(nodes: Nodes, *contexts: ssl.SSLContext) -> AsyncIterator[list[int]]:
    """A server that speaks TLS in front of each node; the nodes know of it. Their ports."""
    async with contextlib.AsyncExitStack() as servers:
        ports: list[int] = []
        for (port, client), context in zip(nodes.clients.items(), contexts, strict=True):

            def passed_on(port: int = port) -> Any:
                return lambda reader, writer: relay(reader, writer, port)

            ports.append(await servers.enter_async_context(serving(passed_on(), context=context)))
            await client.config_set("cluster-announce-port", str(ports[-1]))
        for client in nodes.clients.values():
            await _told(client, set(ports))
        yield ports


async def _told(client: Any, ports: set[int]) -> None:
    from tests.waiting import eventually

    async def knows() -> bool:
        answer = await client.execute_command("CLUSTER", "SLOTS")
        return {(primary[0], primary[1]) for _, _, primary, *_ in answer} == {(_NAME.encode(), port) for port in ports}

    await eventually(knows, "the nodes have told each other their names", seconds=60)


def client_of(port: int, authority: Path) -> ClusterClient:
    url = f"rediss+cluster://{_NAME}:{port}?ssl_ca_certs={authority}"
    redis = open_redis(url, timeout_s=3.0)
    assert isinstance(redis, ClusterClient)
    return redis


async def test_all_nodes_are_asked_over_tls_by_their_names(
    cluster: Stack, nodes_by_name: Nodes, authority: Authority
) -> None:
    async with behind_tls(nodes_by_name, *[authority.certificate(_NAME)] * 3) as ports:
        redis = client_of(ports[0], authority.file)
        try:
            for shard in names.SHARDS:
                await redis.set(f"{{{shard}}}:test:tls", shard)
            found, missing = await redis.nodes(names.SHARDS)
            assert {node.address for node in found} == {(_NAME, port) for port in ports}
            assert not missing
        finally:
            await redis.aclose()


async def test_a_node_with_a_certificate_for_another_name_is_asked_nothing(
    cluster: Stack, nodes_by_name: Nodes, authority: Authority
) -> None:
    """The others are: its shards alone have no node that may be asked."""
    good, bad = authority.certificate(_NAME), authority.certificate("somebody-else.example")
    async with behind_tls(nodes_by_name, good, good, bad) as ports:
        redis = client_of(ports[0], authority.file)
        try:
            asked: dict[int, str] = {}
            for shard in names.SHARDS:
                try:
                    await redis.get(f"{{{shard}}}:test:tls")
                except RedisConnectionError as error:
                    place = redis.placed(shard)
                    assert place is not None
                    asked.setdefault(place[0].port, str(error))
            assert list(asked) == [ports[2]]
            assert "certificate" in asked[ports[2]].lower() or "hostname" in asked[ports[2]].lower(), asked
        finally:
            await redis.aclose()


async def test_an_authority_that_nobody_trusts_gets_nothing(
    cluster: Stack, nodes_by_name: Nodes, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    async with behind_tls(nodes_by_name, *[other.certificate(_NAME)] * 3) as ports:
        redis = client_of(ports[0], authority.file)
        try:
            with pytest.raises(RedisConnectionError, match="certificate verify failed"):
                await redis.get("{s00}:test:tls")
        finally:
            await redis.aclose()
