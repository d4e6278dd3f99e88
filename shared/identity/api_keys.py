"""API keys: a service proves itself with one, and gets a short-lived token in exchange. Pure.

A key reads ``bk_<id>_<secret>``. The id is public and finds the key's row; the secret ends with a tag that only the
platform can make, so that a made-up key costs no question to PostgreSQL. What is stored is an HMAC of the whole.
"""

from __future__ import annotations

import hmac
import re
import secrets
import string
from functools import cached_property
from hashlib import sha256
from typing import Final, NamedTuple, Self

from pydantic import SecretStr, model_validator

from shared.secret_pairs import LongSecret, SecretPair, pair_of
from shared.settings import EnvironmentSettings

KEY_ID_PATTERN: Final = r"[A-Za-z0-9]{12}"
KEYS_MAX: Final = 10_000
"""The most keys of one platform that are neither revoked nor expired."""

_ALPHABET: Final = string.ascii_letters + string.digits
_RANDOM_CHARACTERS: Final = 43
"""Characters of 256 random bits."""
_TAG_CHARACTERS: Final = 16
_KEY_ID: Final = re.compile(KEY_ID_PATTERN)
_KEY: Final = re.compile(rf"bk_({KEY_ID_PATTERN})_([A-Za-z0-9]{{{_RANDOM_CHARACTERS}}})([0-9a-f]{{{_TAG_CHARACTERS}}})")


class ApiKeySettings(EnvironmentSettings):
    """``api_key_secret``: the key of the HMACs of API keys, at least 32 bytes; empty: there are no API keys.
    ``api_key_secret_also``, ``api_key_secret_since``: the one that it replaces, and when (decision 0074)."""

    api_key_secret: LongSecret = SecretStr("")
    api_key_secret_also: LongSecret = SecretStr("")
    api_key_secret_since: str = ""

    @model_validator(mode="after")
    def _key_secrets_make_sense(self) -> Self:
        pair_of(self, "api_key_secret")
        return self

    @cached_property
    def api_key_secrets(self) -> SecretPair:
        """Both secrets, with a count of how often the one that is being replaced was needed."""
        return pair_of(self, "api_key_secret")


class NewKey(NamedTuple):
    """A key that was just made: its id, the text to show once, and the digest to store."""

    key_id: str
    text: str
    digest: bytes


def make_key(secret: str) -> NewKey:
    """A new key. ``secret``: ``API_KEY_SECRET``."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
    text = f"bk_{key_id}_{random}{_tag(secret, key_id, random)}"
    return NewKey(key_id, text, digest_of(secret, text))


def is_key_id(text: str) -> bool:
    """Whether it has the form of a key's id."""
    return _KEY_ID.fullmatch(text) is not None


def id_of(secret: str, text: str) -> str | None:
    """The id in a key that this platform has made; None in anything else."""
    found = _KEY.fullmatch(text)
    if found is None or not hmac.compare_digest(_tag(secret, found[1], found[2]), found[3]):
        return None
    return found[1]


def digest_of(secret: str, text: str) -> bytes:
    """The HMAC that is stored in place of a key."""
    return hmac.digest(secret.encode(), b"api key\0" + text.encode(), sha256)


def is_same(stored: bytes, secret: str, text: str) -> bool:
    """Whether this key is the one whose digest is stored."""
    return hmac.compare_digest(stored, digest_of(secret, text))


def _tag(secret: str, key_id: str, random: str) -> str:
    return hmac.digest(secret.encode(), f"tag of an api key\0{key_id}\0{random}".encode(), sha256).hex()[
        :_TAG_CHARACTERS
    ]
