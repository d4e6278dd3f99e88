"""Peers that show each other certificates."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.wire import SERVICE
from tests.integration.read_cache.cluster_world import cluster

x509 = pytest.importorskip("cryptography.x509")
pytestmark = pytest.mark.integration


@dataclass
class Authority:
    """A CA of its own, in a folder."""

    folder: Path

    def __post_init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self.folder.mkdir()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.folder.name)])
        self.certificate = self._signed(self.name, self.key, is_ca=True)
        self._write("ca.pem", self.certificate)
        node_key = ec.generate_private_key(ec.SECP256R1())
        node_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a cache node")])
        self._write("cert.pem", self._signed(node_name, node_key, is_ca=False))
        self._write_key("key.pem", node_key)

    def _signed(self, name: Any, key: Any, *, is_ca: bool) -> Any:
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _write(self, name: str, certificate: Any) -> None:
        from cryptography.hazmat.primitives import serialization

        (self.folder / name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _write_key(self, name: str, key: Any) -> None:
        from cryptography.hazmat.primitives import serialization

        (self.folder / name).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def settings(self) -> dict[str, Any]:
        return {
            "read_cache_tls_cert_file": str(self.folder / "cert.pem"),
            "read_cache_tls_key_file": str(self.folder / "key.pem"),
            "read_cache_tls_ca_file": str(self.folder / "ca.pem"),
        }

    def credentials(self, ca: Authority) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            (ca.folder / "ca.pem").read_bytes(),
            (self.folder / "key.pem").read_bytes(),
            (self.folder / "cert.pem").read_bytes(),
        )


async def ask(channel: grpc.aio.Channel) -> pb.Answer:
    async with channel:
        call = channel.unary_unary(
            f"/{SERVICE}/Get", request_serializer=pb.Ask.SerializeToString, response_deserializer=pb.Answer.FromString
        )
        answer: pb.Answer = await call(pb.Ask(group="items", first=1, keys=["a"]), timeout=30)
        return answer


async def test_peers_talk_over_tls_and_only_with_each_other(tmp_path: Path) -> None:
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others")
    async with cluster("a", "b", **ours.settings()) as world:
        keys = world.owned_by("b", 20)
        found = await world.caches["a"]["items"].get_many(keys)
        assert found == dict.fromkeys(keys, b"a row")
        assert (world.caches["a"].stats.fetch_failures, world.caches["b"].stats.loads) == (0, 20)

        address = world.nodes["a"].address
        answer = await ask(grpc.aio.secure_channel(address, ours.credentials(ours)))
        assert list(answer.states) == [pb.FOUND]
        strangers = [
            grpc.aio.insecure_channel(address),
            grpc.aio.secure_channel(address, grpc.ssl_channel_credentials((ours.folder / "ca.pem").read_bytes())),
            grpc.aio.secure_channel(address, others.credentials(ours)),
            grpc.aio.secure_channel(address, ours.credentials(others)),
        ]
        for channel in strangers:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(channel)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    settings = Authority(tmp_path / "ours").settings() | {"read_cache_tls_key_file": str(tmp_path / "nowhere.pem")}
    with pytest.raises(ValueError, match=r"READ_CACHE_TLS_KEY_FILE.*nowhere\.pem"):
        async with cluster("a", **settings):
            pass


async def test_files_that_are_gone_later_cost_no_reader_an_error(tmp_path: Path) -> None:
    """A link to a node is opened at the first get, which may be days after the start."""
    ours = Authority(tmp_path / "ours")
    async with cluster("a", "b", **ours.settings()) as world:
        reader = await world.start(None)
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (ours.folder / name).unlink()
        (key,) = world.owned_by("b")
        assert await reader["items"].get(key) == b"a row"
        assert (reader.stats.fetches, reader.stats.loads) == (1, 0)
