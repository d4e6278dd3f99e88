"""The public keys in a JSON Web Key Set (RFC 7517), each with the one algorithm that is believed of it.

A token names an algorithm and a key. Were the algorithm believed, a public key could be used as the secret of an HMAC.
So each kind of key has its algorithm here, and a token of another one finds no key.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, Final

import jwt
from jwt.algorithms import has_crypto
from typing_extensions import override

_PINNED: Final = {("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA", ("RSA", None): "RS256"}
"""The one algorithm for each kind of key, which is its ``kty``, and its ``crv`` where it has one."""

ALGORITHMS: Final = frozenset(_PINNED.values())
KEYS_MAX: Final = 64
RSA_BITS_MIN: Final = 2048
"""As RFC 7518, section 3.3, demands."""
RSA_BITS_MAX: Final = 8192
KID_CHARACTERS_MAX: Final = 256
NO_CRYPTO: Final = "needs the package cryptography, which is not installed here: pip install 'pyjwt[crypto]'"


class JwksInvalid(ValueError):
    """The document has no key that can be used, or has a key that it must not have."""


class KeySet:
    """Keys, found by the id that a token names."""

    def __init__(self, keys: dict[tuple[str | None, str], Any]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeySet) and self._keys == other._keys

    __hash__ = None  # type: ignore[assignment]

    def names(self) -> frozenset[str]:
        """Of each key what it is called here; see :func:`name_of_key`."""
        return frozenset(name_of_key(key) for key in self._keys.values())

    def find(self, kid: str | None, algorithm: str) -> Any | None:
        """The key of this id and algorithm. Where the token names no id, the only key of the algorithm, if it is."""
        if kid is not None:
            return self._keys.get((kid, algorithm))
        of_algorithm = [key for (_, pinned), key in self._keys.items() if pinned == algorithm]
        return of_algorithm[0] if len(of_algorithm) == 1 else None


def name_of_key(key: Any) -> str:
    """What a public key is called where others are told that it is believed no longer. It follows from the key, and not
    from its id, which an issuer may give to another one. Empty for a secret: no digest of one leaves the process."""
    if not has_crypto or not hasattr(key, "public_bytes"):
        return ""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:32]


def parse_jwks(document: bytes) -> KeySet:
    """The keys of a document. Those of other kinds, uses or algorithms are left out: they are for others.

    Raises:
        JwksInvalid: it is no JWKS, has no key for signatures of a kind that is supported, or holds a private key.
    """
    keys, trouble = published_keys(document)
    if trouble is not None:
        raise JwksInvalid(trouble)
    return keys


def published_keys(document: bytes) -> tuple[KeySet, str | None]:
    """The keys that an issuer publishes now, perhaps none, and what is wrong with the document. A private key is none
    of them: whoever reads the document can sign with it.

    Raises:
        JwksInvalid: it is no JWKS, so it says nothing about any key.
    """
    if not has_crypto:
        raise JwksInvalid(NO_CRYPTO)
    try:
        listed = json.loads(document)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise JwksInvalid('must be a JSON Web Key Set: {"keys": […]}') from None
    if not isinstance(listed, list):
        raise JwksInvalid("must have a list of keys")
    trouble: str | None = None
    if len(listed) > KEYS_MAX:
        trouble = f"must have at most {KEYS_MAX} keys"
    found: dict[tuple[str | None, str], Any] = {}
    for each in listed[:KEYS_MAX]:
        if not isinstance(each, dict):
            continue
        if "d" in each or "k" in each:
            trouble = "must hold public keys alone, and holds a private or a secret one"
            continue
        usable = _read(each)
        if usable is not None:
            place, key = usable
            found.setdefault(place, key)
    if not found and trouble is None:
        kinds = f"EC P-256, Ed25519, or RSA of {RSA_BITS_MIN} bits and more"
        trouble = f"must have a public key for signatures: {kinds}"
    return KeySet(found), trouble


def _read(jwk: dict[str, Any]) -> tuple[tuple[str | None, str], Any] | None:
    kty, crv, kid = jwk.get("kty"), jwk.get("crv"), jwk.get("kid")
    if not isinstance(kty, str) or not (crv is None or isinstance(crv, str)):
        return None
    algorithm = _PINNED.get((kty, crv))
    if algorithm is None or jwk.get("alg", algorithm) != algorithm or jwk.get("use", "sig") != "sig":
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if kid is not None and not (isinstance(kid, str) and len(kid) <= KID_CHARACTERS_MAX):
        return None
    try:
        key = jwt.PyJWK(jwk, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if algorithm == "RS256" and not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        return None
    return (kid, algorithm), key
