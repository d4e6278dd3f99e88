"""Issuers of tests: keys of each kind, and tokens that are signed with them, good ones and others."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from shared.identity.settings import IdentitySettings

ISSUER, AUDIENCE = "https://issuer.example", "bidding"
SECRET = "s" * 32


@cache
def private_key(algorithm: str) -> Any:
    """One key of each kind, made once."""
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65_537, 2_048)


def jwk_of(key: Any, kid: str | None, /, **members: Any) -> dict[str, Any]:
    """The public half as a JWK."""
    kinds: Any = {ec.EllipticCurvePrivateKey: ECAlgorithm, rsa.RSAPrivateKey: RSAAlgorithm}
    kind = next((found for of, found in kinds.items() if isinstance(key, of)), OKPAlgorithm)
    made: dict[str, Any] = json.loads(kind.to_jwk(key.public_key()))
    return made | ({} if kid is None else {"kid": kid}) | members


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; None leaves one out."""
    good: dict[str, Any] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "exp": int(time.time()) + 600,
        "roles": ["bidder"],
    }
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(
    key: Any = SECRET, algorithm: str = "HS256", *, headers: dict[str, Any] | None = None, **changes: Any
) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm, headers=headers)


def headers_of(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"authorization", b"Bearer " + token.encode())]


def bearer(user_id: str, *roles: str) -> list[tuple[bytes, bytes]]:
    """The headers of somebody whose issuer has :data:`SECRET`."""
    return headers_of(signed(sub=user_id, roles=[str(role) for role in roles]))


def settings_of(**changes: Any) -> IdentitySettings:
    """``AUTH_MODE=jwt`` with :data:`SECRET`."""
    given: dict[str, Any] = {
        "auth_mode": "jwt",
        "auth_issuer": ISSUER,
        "auth_audience": AUDIENCE,
        "auth_hs256_secret": SECRET,
    }
    return IdentitySettings(**(given | changes))
