"""Signs tokens of the platform's own: those that are given for API keys."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

import jwt
from jwt.algorithms import ECAlgorithm, has_crypto

from shared.identity.jwks import NO_CRYPTO, KeySet
from shared.identity.keys import Keys
from shared.identity.tokens import CLIENT_CLAIM

_ES256: Final = "ES256"


class SigningKeyInvalid(ValueError):
    """The key is not a private key of the kind that is needed."""


class Signer:
    """Signs with one key, whose tokens the gateways believe."""

    def __init__(self, key: Callable[[], Any], algorithm: str, kid: str | None, *, issuer: str, audience: str) -> None:
        """``key``: the one with which to sign now."""
        self._key = key
        self._algorithm = algorithm
        self._headers = None if kid is None else {"kid": kid}
        self._issuer = issuer
        self._audience = audience

    def sign(self, user_id: str, roles: Iterable[str], *, ttl_s: int, api_key: str = "") -> str:
        """A token that says for ``ttl_s`` seconds that its bearer is this user, of these roles. ``api_key``: the id of
        the key for which it is given; empty for none."""
        now_s = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": user_id,
            "roles": list(roles),
            "iat": now_s,
            "exp": now_s + ttl_s,
            "jti": secrets.token_urlsafe(12),
        }
        if api_key:
            claims[CLIENT_CLAIM] = api_key
        return jwt.encode(claims, self._key(), algorithm=self._algorithm, headers=self._headers)


class SigningKey:
    """An EC key on P-256, of which others know the public half by its id."""

    def __init__(self, pem: bytes) -> None:
        """
        Raises:
            SigningKeyInvalid: it is another kind of key, or none.
        """
        if not has_crypto:
            raise SigningKeyInvalid(NO_CRYPTO)
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SigningKeyInvalid(
                "must be a private key on P-256 in PEM, as `openssl ecparam -name prime256v1` makes"
            )
        self._key = key
        jwk: dict[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
        self.kid = sha256(f"{jwk['x']}.{jwk['y']}".encode()).hexdigest()[:16]

    def signer(self, *, issuer: str, audience: str) -> Signer:
        """A signer that signs with this key."""
        return Signer(lambda: self._key, _ES256, self.kid, issuer=issuer, audience=audience)

    @property
    def public(self) -> KeySet:
        """Its public half, as one of an issuer's keys."""
        return KeySet({(self.kid, _ES256): self._key.public_key()})


class WithOwnKey:
    """The keys of an issuer, and beside them that with which the platform signs. Implements :class:`Keys`."""

    def __init__(self, own: KeySet, others: Keys) -> None:
        self._own = own
        self._others = others

    @property
    def version(self) -> int:
        """See :class:`Keys`."""
        return self._others.version

    def find(self, kid: str | None, algorithm: str) -> Sequence[Any]:
        """See :class:`Keys`. Only by its id: a token that names none is the issuer's."""
        found = None if kid is None else self._own.find(kid, algorithm)
        return self._others.find(kid, algorithm) if found is None else (found,)

    def note(self, key: Any) -> None:
        """See :class:`Keys`: there is no choice."""
