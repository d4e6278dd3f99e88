"""Warns that Redis comes near its memory bound, well before it refuses bids."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import names
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import nodes_of

logger = logging.getLogger(__name__)

ALARM_SHARE: Final = 0.8
"""The share of ``maxmemory`` from which to warn; the alert in infrastructure/docker/alerts.yml has the same. At 1 Redis
refuses bids."""
_EVERY_S: Final = 5.0


class MemoryWatch:
    """Asks Redis every few seconds. ``used_bytes`` and ``max_bytes`` are of the last answer; ``max_bytes`` 0 means no
    bound. On a cluster they are those of the node that is nearest to its bound.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        # The last answer of each node.
        self._sizes: dict[Address, tuple[int, int]] = {}
        self.used_bytes = 0
        self.max_bytes = 0
        self._was_short = False

    @property
    def shortage(self) -> str | None:
        """The warning, None while there is room."""
        if not self.max_bytes or self.used_bytes < ALARM_SHARE * self.max_bytes:
            return None
        return (
            f"Redis uses {self.used_bytes * 100 // self.max_bytes} % of its maxmemory of {self.max_bytes} bytes; "
            "past it bids are refused"
        )

    async def run(self) -> None:
        """Look every few seconds, until cancelled. While Redis is away, what was seen last stands."""
        while True:
            try:
                await self.look()
            except (RedisError, OSError, TimeoutError) as error:
                logger.debug("memory: Redis cannot be asked: %s", error)
            await asyncio.sleep(_EVERY_S * random.uniform(0.75, 1.25))

    async def look(self) -> None:
        """Look once. Of a node of a cluster that does not answer, what was seen last stands while it has shards.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked; of a cluster, none of its nodes.
        """
        nodes, missing = await nodes_of(self._redis, names.SHARDS)
        answers = await asyncio.gather(*(node.redis.info("memory") for node in nodes), return_exceptions=True)
        sizes: dict[Address, tuple[int, int]] = {}
        errors: list[BaseException] = []
        for node, found in zip(nodes, answers, strict=True):
            if isinstance(found, RedisError | OSError | TimeoutError):
                errors.append(found)
                if node.address in self._sizes:
                    sizes[node.address] = self._sizes[node.address]
            elif isinstance(found, BaseException):
                raise found
            else:
                sizes[node.address] = int(found.get("used_memory", 0)), int(found.get("maxmemory", 0))
        if missing:
            # A node that hangs is not among them; it is as full as before.
            sizes = self._sizes | sizes
        if errors and len(errors) == len(nodes):
            raise errors[0]
        for error in errors:
            logger.debug("memory: a node cannot be asked: %s", error)
        self._sizes = sizes
        self.used_bytes, self.max_bytes = max(sizes.values(), key=_share, default=(0, 0))
        shortage = self.shortage
        if shortage is not None and not self._was_short:
            logger.error("memory: %s", shortage)
        elif shortage is None and self._was_short:
            logger.warning("memory: Redis has room again: %d of %d bytes are used", self.used_bytes, self.max_bytes)
        self._was_short = shortage is not None


def _share(size: tuple[int, int]) -> tuple[float, int]:
    used_bytes, max_bytes = size
    return used_bytes / max_bytes if max_bytes else 0.0, used_bytes
