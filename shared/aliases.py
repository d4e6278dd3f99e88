"""Aliases, the public names of bidders: stable within an item, not linkable between items, not reversible without the
secret.

The secret is the setting ``ALIAS_SECRET``, read once per process: all services must make the same alias, and the pure
functions that make public views and frames are called from many places.
"""

from __future__ import annotations

from functools import cache, lru_cache
from hashlib import blake2b
from typing import Final

from pydantic import SecretStr

from shared.settings import EnvironmentSettings

DEFAULT_SECRET: Final = "local-development"
"""For local use and tests: aliases made with it can be guessed by trying user ids."""


class AliasSettings(EnvironmentSettings):
    """``alias_secret``: keys the aliases; the same for every gateway and broadcaster."""

    alias_secret: SecretStr = SecretStr(DEFAULT_SECRET)


@cache
def _key() -> bytes:
    return blake2b(AliasSettings().alias_secret.get_secret_value().encode(), digest_size=32).digest()


@lru_cache(maxsize=65_536)
def alias_of(item_id: str, user_id: str) -> str:
    """The bidder's public name on this item, for example ``bidder-3b901cb0``."""
    digest = blake2b(f"{item_id}\0{user_id}".encode(), key=_key(), digest_size=4).hexdigest()
    return f"bidder-{digest}"
