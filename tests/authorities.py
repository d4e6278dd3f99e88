"""Throw-away authorities, and certificates of servers that they have signed."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

_DAY = datetime.timedelta(days=1)


@dataclass
class Authority:
    """An authority in a folder of its own. Clients are to trust the `ca.pem` there."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(self.folder.name)
        names = x509.SubjectAlternativeName([x509.DNSName("authority.example")])
        (self.folder / "ca.pem").write_bytes(_pem(self._signed(self._name, self._key, names, is_ca=True)))

    @property
    def file(self) -> Path:
        return self.folder / "ca.pem"

    def certificate(self, *hosts: str) -> tuple[Path, Path]:
        """The certificate of a server with these names or addresses, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([_host(each) for each in hosts])
        cert, secret = self.folder / f"{hosts[0]}.pem", self.folder / f"{hosts[0]}.key"
        cert.write_bytes(_pem(self._signed(_named("a server"), key, names, is_ca=False)))
        plain = serialization.NoEncryption()
        secret.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain),
        )
        return cert, secret

    def _signed(self, name: x509.Name, key: Any, names: x509.SubjectAlternativeName, *, is_ca: bool) -> Any:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(certificate: Any) -> bytes:
    encoded: bytes = certificate.public_bytes(serialization.Encoding.PEM)
    return encoded
