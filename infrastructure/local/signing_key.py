"""The issuer of the embedded stack: with `AUTH_MODE=jwt` it signs tokens with a key of the data directory.

The services are given the public half. The key is for one's own machine; elsewhere an identity provider issues tokens.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import jwt

from infrastructure.local.errors import StackError

ALGORITHM: Final = "ES256"
ISSUER: Final = "bidding-local"
AUDIENCE: Final = "bidding"

API_KEY_SECRET: Final = "API_KEY_SECRET"
"""The environment name of the secret with which the hashes of API keys are keyed."""

_FILE: Final = "auth-signing-key"


def identity_environment(data_dir: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What the services need beside `AUTH_MODE=jwt` to believe the tokens of this issuer.

    Raises:
        StackError: there is no key and none can be made.
    """
    issuer, audience = _names(environment)
    jwks = json.dumps({"keys": [_public_jwk(signing_key(data_dir))]})
    return {
        "AUTH_ISSUER": issuer,
        "AUTH_AUDIENCE": audience,
        "AUTH_JWKS": jwks,
        "AUTH_SIGNING_KEY_FILE": str((data_dir / _FILE).absolute()),
        API_KEY_SECRET: environment.get(API_KEY_SECRET) or api_key_secret(data_dir),
    }


def api_key_secret(data_dir: Path) -> str:
    """The secret that keys the hashes of API keys. It is derived from the signing key: its owner can be anybody anyway.

    Raises:
        StackError: as of :func:`signing_key`.
    """
    signing_key(data_dir)
    try:
        return hmac.new((data_dir / _FILE).read_bytes(), b"api keys", sha256).hexdigest()
    except OSError as error:
        raise StackError(f"Cannot use the key in {data_dir / _FILE}: {error}.") from error


def signed_token(key: Any, user_id: str, roles: Iterable[str], *, ttl_s: int, environment: Mapping[str, str]) -> str:
    """A token that says for ``ttl_s`` seconds that its bearer is this user, of these roles."""
    issuer, audience = _names(environment)
    now_s = int(time.time())
    claims = {
        "iss": issuer,
        "aud": audience,
        "sub": user_id,
        "roles": list(roles),
        "iat": now_s,
        "exp": now_s + ttl_s,
        # The id by which this token alone can be revoked.
        "jti": secrets.token_urlsafe(12),
    }
    return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": _public_jwk(key)["kid"]})


def signing_key(data_dir: Path) -> Any:
    """The private key of the data directory, made if there is none yet. It is kept, so that tokens outlive a restart.

    Raises:
        StackError: the file can be neither read nor written, or holds no such key; or cryptography is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import (
            Encoding,
            NoEncryption,
            PrivateFormat,
            load_pem_private_key,
        )
    except ImportError as error:
        raise StackError("AUTH_MODE=jwt needs the package cryptography: pip install 'pyjwt[crypto]'.") from error
    path = data_dir / _FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # First written whole under another name: if two processes do this at once, both use the file of one of them.
        scratch = data_dir / f"{_FILE}.{os.getpid()}.tmp"
        if not path.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            scratch.touch(mode=0o600)
            scratch.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            with contextlib.suppress(FileExistsError):
                os.link(scratch, path)
            scratch.unlink()
        if path.stat().st_mode & 0o077:
            raise StackError(f"Others may read the key in {path}. Run: chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise StackError(f"Cannot use the key in {path}: {error}.") from error
    except (ValueError, TypeError) as error:
        raise StackError(f"The key in {path} cannot be read. Remove the file to have a new one made.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise StackError(f"The key in {path} is of another kind. Remove the file to have a new one made.")
    return key


def _names(environment: Mapping[str, str]) -> tuple[str, str]:
    """Issuer and audience."""
    return environment.get("AUTH_ISSUER") or ISSUER, environment.get("AUTH_AUDIENCE") or AUDIENCE


def _public_jwk(key: Any) -> dict[str, Any]:
    from jwt.algorithms import ECAlgorithm

    jwk: dict[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    # Derived from the key, so that a key that replaces this one has another id.
    kid = sha256(f"{jwk['x']}.{jwk['y']}".encode()).hexdigest()[:16]
    return jwk | {"kid": kid, "alg": ALGORITHM, "use": "sig"}
