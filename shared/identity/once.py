"""Secrets that are good once: the first to present one takes what is kept under it, and nobody can take it again.

They are kept in Redis, which all services reach: the gateway puts, the gateway or a broadcaster takes. A secret has 128
random bits, and Redis has only its hash: whoever reads the keys of Redis learns no secret. Each expires by itself; how
many a process may make is bounded by a rate, so that all of them take a bounded room.
"""

from __future__ import annotations

import re
import secrets
from hashlib import blake2b
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.names import shard_of
from shared.pacing.buckets import Bucket, Rate

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{22}\Z")
_BYTES: Final = 16

RATE_OF_ALL: Final = Rate(per_s=500, burst=2_000)
"""How fast one process makes secrets. Of those that are good for 30 s it keeps at most 17,000, which take 5 MB."""
RATE_OF_ONE: Final = Rate(per_s=2, burst=40)
"""How fast one process makes secrets for one user."""
USERS_MAX: Final = 10_000


def is_secret(text: str) -> bool:
    """Whether it has the form of a secret."""
    return _SECRET.match(text) is not None


def once_key(kind: str, secret: str) -> str:
    """The key under which the value is kept. It is in a shard, like every key, so that a cluster has a place for it. No
    script uses it."""
    digest = blake2b(secret.encode(), digest_size=16).hexdigest()
    return f"{{{shard_of(digest)}}}:once:{kind}:{digest}"


async def put_once(redis: Redis, kind: str, value: bytes, *, ttl_ms: int) -> str:
    """Keep a value, and return the new secret under which it is taken.

    Args:
        kind: what it is for; a secret is good for nothing else.
        ttl_ms: how long it is kept, in milliseconds.

    Raises:
        redis.RedisError, OSError, TimeoutError: Redis could not be asked.
    """
    secret = secrets.token_urlsafe(_BYTES)
    await redis.set(once_key(kind, secret), value, px=ttl_ms)
    return secret


async def take_once(redis: Redis, kind: str, secrets_said: list[str]) -> list[bytes | RedisError | OSError | None]:
    """What is kept under each of these secrets, in their order; None where nothing is, or where it was taken; the error
    where its node of a cluster could not be asked: the values of the other secrets are taken by then, and must reach
    their owners.

    Raises:
        redis.RedisError, OSError, TimeoutError: Redis could not be asked, and what it has may be taken all the same.
    """
    pipeline: Any = redis.pipeline(transaction=False)
    for secret in secrets_said:
        pipeline.getdel(once_key(kind, secret))
    return cast("list[bytes | RedisError | OSError | None]", await pipeline.execute(raise_on_error=False))


class Ration:
    """How many secrets one process makes, in all and for one user."""

    def __init__(self, *, of_all: Rate = RATE_OF_ALL, of_one: Rate = RATE_OF_ONE, users_max: int = USERS_MAX) -> None:
        self._all = Bucket(of_all)
        self._of_one = of_one
        self._users_max = users_max
        self._users: dict[str, Bucket] = {}

    def spend(self, user_id: str, now_s: float) -> bool:
        """Count one more for this user; False, and nothing is counted, where it is too many. ``now_s``: any monotonic
        clock."""
        # Keep the users who asked last: the bucket of one who has not asked for long is full again.
        mine = self._users.pop(user_id, None) or Bucket(self._of_one)
        self._users[user_id] = mine
        if len(self._users) > self._users_max:
            del self._users[next(iter(self._users))]
        if mine.left(now_s) < 1 or self._all.left(now_s) < 1:
            return False
        mine.take(now_s, 1)
        self._all.take(now_s, 1)
        return True
