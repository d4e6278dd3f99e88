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
from shared.redis_layout.revocations import RevocationStore
from shared.seldom import Seldom

logger = logging.getLogger(__name__)
_cannot: Final = Seldom(logger)

LOOK_EVERY_S: Final = 1.0
"""One question for one field; all of them are read only where they have changed."""


class Revoked:
    """``run`` works until it is cancelled. What is known stays known while Redis is away."""

    def __init__(self, redis: Redis, *, leeway_s: int) -> None:
        """``leeway_s``: as the gateways' ``AUTH_LEEWAY_S``."""
        self._store = RevocationStore(redis)
        self._known = Revocations(leeway_s=leeway_s)
        self._epoch: str | None = None

    def has(self, identity: Identity) -> bool:
        """Whether what this identity was given for is revoked."""
        if self._known.cover_token(identity.user_id, identity.issued_s, identity.token_id, identity.api_key):
            return True
        # Of a gateway of the version before, neither is said.
        signer, given_s = identity.signer, identity.given_s
        return signer is not None and given_s is not None and self._known.cover_signer(signer, given_s)

    async def look(self) -> None:
        """Read what is new. Raises RedisError, OSError, TimeoutError."""
        # Before the revocations: what is written in between is read again.
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
