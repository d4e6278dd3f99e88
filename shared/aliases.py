"""Aliases, the public names of bidders: stable within an item, not linkable between items, not reversible without the
secret.

The secret is the environment's ``ALIAS_SECRET``, read once per process: all services must make the same alias, and the
pure functions that make public views and frames are called from many places.
"""

from __future__ import annotations

import os
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Final

DEFAULT_SECRET: Final = "local-development"
"""For local use and tests: aliases made with it can be guessed by trying user ids."""


@cache
def _key() -> bytes:
    return blake2b(os.environ.get("ALIAS_SECRET", DEFAULT_SECRET).encode(), digest_size=32).digest()


@lru_cache(maxsize=65_536)
def alias_of(item_id: str, user_id: str) -> str:
    """The bidder's public name on this item, for example ``bidder-3b901cb0``."""
    digest = blake2b(f"{item_id}\0{user_id}".encode(), key=_key(), digest_size=4).hexdigest()
    return f"bidder-{digest}"
