"""Which tokens are revoked, read from Redis as the gateways keep it (:mod:`shared.redis_layout.revocations`).

A broadcaster only reads: gateways write revocations, and give them back to a Redis that has lost them.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.feed_tokens import Identity
from shared.identity.revocations import Revocations
from shared.pacing.seldom import Seldom
from shared.redis_layout.revocations import RevocationStore

logger = logging.getLogger(__name__)
_cannot: Final = Seldom(logger)

LOOK_EVERY_S: Final = 1.0
"""How often to look. A look reads one field, and reads all revocations only if that has changed."""


class Revoked:
    """``run`` works until it is cancelled. What is known stays known while Redis is away."""

    def __init__(self, redis: Redis, *, leeway_s: int) -> None:
        """``leeway_s``: as the gateways' ``AUTH_LEEWAY_S``."""
        self._store = RevocationStore(redis)
        self._known = Revocations(leeway_s=leeway_s)
        self._epoch: str | None = None

    def has(self, identity: Identity) -> bool:
        """Whether the token or ticket of this identity is revoked, or the key behind it."""
        if self._known.cover_token(identity.user_id, identity.issued_s, identity.token_id, identity.api_key):
            return True
        # A gateway of the version before says neither.
        signer, given_s = identity.signer, identity.given_s
        return signer is not None and given_s is not None and self._known.cover_signer(signer, given_s)

    async def look(self) -> None:
        """Read what is new. Raises RedisError, OSError, TimeoutError."""
        # The epoch first: a revocation that is written between the two reads is then read again at the next look.
        epoch = await self._store.epoch()
        if epoch != self._epoch:
            self._known.add(await self._store.read())
            self._epoch = epoch

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except (RedisError, OSError, TimeoutError) as error:
                _cannot.warning("revoked tokens cannot be read: %s: %s", type(error).__name__, error)
            await asyncio.sleep(LOOK_EVERY_S)
