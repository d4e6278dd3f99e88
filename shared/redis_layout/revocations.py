"""Revoked tokens in Redis: one bounded hash, and an epoch in it that tells whether anything is new."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from redis.asyncio import Redis

from shared.identity.errors import TooManyRevocations
from shared.identity.revocations import KEPT_S, REVOCATIONS_MAX, Revocation
from shared.redis_layout.keys import REVOCATIONS_KEY
from shared.redis_layout.scripts import Script

_EPOCH: Final = "epoch"
_VALUE: Final = re.compile(r"(\d{1,12}):(\d{1,12})", re.ASCII)
_BACK_AT_ONCE: Final = 500


class RevocationStore:
    """The revocations that all processes share.

    Raises of every method:
        RedisError, OSError, TimeoutError: Redis cannot be asked; of :meth:`revoke` it is unknown whether it was done.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = Script.read(Path(__file__).parent / "lua" / "revoke.lua")

    async def revoke(self, name: str) -> Revocation:
        """Revoke what has this name, until now.

        Raises:
            TooManyRevocations: there are as many as there may be; nothing was changed.
        """
        at_s = int(await self._run([name]))
        return Revocation(at_s, at_s + KEPT_S)

    async def put_back(self, known: Mapping[str, Revocation]) -> None:
        """Write again what a Redis that was wiped does not know any more. What it knows stays as it is."""
        lines = [f"{name}={one.at_s}:{one.until_s}" for name, one in known.items()]
        for start in range(0, len(lines), _BACK_AT_ONCE):
            await self._run(lines[start : start + _BACK_AT_ONCE])

    async def epoch(self) -> str:
        """A text that is another one after each change; empty where there are no revocations."""
        found = await cast(Any, self._redis.hget(REVOCATIONS_KEY, _EPOCH))
        return _text(found) if found is not None else ""

    async def read(self) -> dict[str, Revocation]:
        """All of them, by name."""
        found = {}
        for name, value in (await cast(Any, self._redis.hgetall(REVOCATIONS_KEY))).items():
            match = _VALUE.fullmatch(_text(value))
            if match is not None:
                found[_text(name)] = Revocation(int(match[1]), int(match[2]))
        return found

    async def _run(self, arguments: Sequence[str]) -> str:
        # The epoch is a field too.
        told = await self._script.run(
            self._redis, [REVOCATIONS_KEY], [secrets.token_hex(8), KEPT_S, REVOCATIONS_MAX + 1, *arguments]
        )
        if (answer := _text(told)) == "FULL":
            raise TooManyRevocations(REVOCATIONS_MAX)
        return answer


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
