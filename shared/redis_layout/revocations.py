"""Revoked tokens in Redis: one bounded hash, and an epoch in it that tells whether anything is new."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from shared.identity.errors import TooManyRevocations
from shared.identity.revocations import KEPT_S, REVOCATIONS_MAX, Revocation
from shared.names import SHARDS
from shared.redis_layout.keys import REVOCATIONS_KEY, cursors_key, outbox_key
from shared.redis_layout.rulings import house_of
from shared.redis_layout.scripts import Script

_EPOCH: Final = "epoch"
_VALUE: Final = re.compile(r"(\d{1,12}):(\d{1,12})", re.ASCII)
_BACK_AT_ONCE: Final = 500
_SHARD: Final = SHARDS[0]
"""The shard in whose slot the hash of revocations is."""

REVOKE_TOKENS: Final = "revoke_tokens"
REVOKE_TOKEN: Final = "revoke_token"


class Why(msgspec.Struct, frozen=True):
    """What the archive is told of a revocation, as it is in :class:`shared.sealed.Act`."""

    act: str
    target: str
    reason: str
    by: str


class Revoked(NamedTuple):
    """``is_recorded``: whether the archive is told. It is not told while the shard is lost, or while too much waits for
    the archive."""

    revocation: Revocation
    is_recorded: bool


class RevocationStore:
    """The revocations that all processes share.

    Raises of every method:
        RedisError, OSError, TimeoutError: Redis cannot be asked; of :meth:`revoke` it is unknown whether it was done.
    """

    def __init__(self, redis: Redis, *, outbox_entries_max: int = 50_000) -> None:
        self._redis = redis
        self._outbox_entries_max = outbox_entries_max
        self._script = Script.read(Path(__file__).parent / "lua" / "revoke.lua")

    async def revoke(self, name: str, why: Why | None = None, *, kept_s: int = KEPT_S) -> Revoked:
        """Revoke what has this name, until now, and tell the archive why in the same step. ``kept_s``: how long that
        holds.

        Raises:
            TooManyRevocations: there are as many as there may be; nothing was changed.
        """
        at_s, n = await self._run([name], why, kept_s)
        return Revoked(Revocation(int(at_s), int(at_s) + kept_s), n > 0)

    async def put_back(self, known: Mapping[str, Revocation]) -> None:
        """Write these again into a Redis that was wiped and has lost them. Those that it has stay as they are."""
        lines = [f"{name}={one.at_s}:{one.until_s}" for name, one in known.items()]
        for start in range(0, len(lines), _BACK_AT_ONCE):
            await self._run(lines[start : start + _BACK_AT_ONCE])

    async def epoch(self) -> str:
        """A text that changes with each revocation; empty where there are none."""
        found = await cast(Any, self._redis.hget(REVOCATIONS_KEY, _EPOCH))
        return _text(found) if found is not None else ""

    async def read(self) -> dict[str, Revocation]:
        """All revocations, by name."""
        found = {}
        for name, value in (await cast(Any, self._redis.hgetall(REVOCATIONS_KEY))).items():
            match = _VALUE.fullmatch(_text(value))
            if match is not None:
                found[_text(name)] = Revocation(int(match[1]), int(match[2]))
        return found

    async def _run(self, names: Sequence[str], why: Why | None = None, kept_s: int = KEPT_S) -> tuple[str, int]:
        told = "" if why is None else msgspec.json.encode(why).decode()
        # The epoch is a field too.
        bounds = (kept_s, REVOCATIONS_MAX + 1)
        arguments: list[str | int] = [
            secrets.token_hex(8),
            *bounds,
            told,
            house_of(_SHARD),
            self._outbox_entries_max,
            *names,
        ]
        keys = [REVOCATIONS_KEY, cursors_key(_SHARD), outbox_key(_SHARD)]
        answer = await self._script.run(self._redis, keys, arguments)
        if (at_s := _text(answer[0])) == "FULL":
            raise TooManyRevocations(REVOCATIONS_MAX)
        return at_s, int(answer[1])


def _text(value: str | bytes) -> str:
    # Names are ASCII. A damaged one must not end a service; replaced like this, it matches nothing.
    return value.decode(errors="replace") if isinstance(value, bytes) else value
