"""Tokens of the demo's people, for a platform that demands some: signed with the key of its data directory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from infrastructure.local.signing_key import signed_token

TTL_S: Final = 3_600
RENEWED_AFTER_S: Final = 1_800


class Tokens:
    """Keeps a token for each of the demo's people, whose number bounds it."""

    def __init__(self, key: Any, environment: Mapping[str, str]) -> None:
        """``key``: the signing key; ``environment``: where other names of issuer and audience may be."""
        self._key = key
        self._environment = environment
        self._made: dict[tuple[str, str], tuple[str, float]] = {}

    def of(self, user_id: str, role: str) -> str:
        """A token that is valid for at least another half an hour."""
        now_s = time.monotonic()
        token, made_s = self._made.get((user_id, role), ("", 0.0))
        if not token or now_s - made_s > RENEWED_AFTER_S:
            token = signed_token(self._key, user_id, [role], ttl_s=TTL_S, environment=self._environment)
            self._made[user_id, role] = token, now_s
        return token
