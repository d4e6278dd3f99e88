"""Reading the verdicts that Redis keeps under keys, as ``place_bids.lua`` would find them."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from api_gateway.engine.bids.batcher import PendingBid
from shared import names
from shared.redis_layout.keys import older_refusals_key, refusals_key, verdicts_key
from shared.redis_layout.stored_verdicts import StoredVerdict, field_of_bid_id, fields_for, find_verdict
from shared.redis_layout.verdicts import KEY_REUSED_LINE


@dataclass(frozen=True, slots=True)
class Asked:
    """A bid as it was sent under its key."""

    user_id: str
    key: str
    is_bid_id: bool
    fingerprint: str

    @classmethod
    def by(cls, bid: PendingBid) -> Asked:
        """The bid, which came with a key."""
        assert bid.key is not None
        return cls(bid.user_id, bid.key, bid.key_is_bid_id, bid.fingerprint)


async def read_verdicts(redis: Redis, item_id: str, asked: Sequence[Asked]) -> list[bytes | None]:
    """The verdict line of each bid, None where none is stored.

    Raises:
        RedisError, OSError, TimeoutError: Redis cannot be asked.
    """
    fields = [field for each in asked for field in fields_for(each.user_id, each.key)]
    lines: list[bytes | None] = [None] * len(asked)
    is_taken = [False] * len(asked)
    for found in await _read(redis, item_id, fields):
        for at, each in enumerate(asked):
            if lines[at] is not None:
                continue
            stored = find_verdict(found, each.user_id, each.key)
            if stored is not None:
                lines[at] = stored.line if stored.fingerprint == each.fingerprint else KEY_REUSED_LINE
            elif each.is_bid_id and field_of_bid_id(each.key) in found:
                is_taken[at] = True
    return [KEY_REUSED_LINE if line is None and taken else line for line, taken in zip(lines, is_taken, strict=True)]


async def read_verdict(redis: Redis, item_id: str, user_id: str | None, key: str) -> StoredVerdict | None:
    """What is stored under a key: of this bidder, or without one of anybody, an accepted bid before a refused one.

    Raises:
        RedisError, OSError, TimeoutError: Redis cannot be asked.
    """
    for found in await _read(redis, item_id, fields_for(user_id, key)):
        stored = find_verdict(found, user_id, key)
        if stored is not None:
            return stored
    return await _read_string(redis, item_id, user_id, key)


async def _read(redis: Redis, item_id: str, fields: Sequence[str]) -> list[dict[str, bytes]]:
    """The fields of the three hashes, read in this order: a verdict that moves goes to a hash that is read later."""
    found = []
    for key in (verdicts_key(item_id), refusals_key(item_id), older_refusals_key(item_id)):
        values = await cast("Awaitable[list[bytes | None]]", redis.hmget(key, list(fields)))
        found.append({field: value for field, value in zip(fields, values, strict=True) if value is not None})
    return found


async def _read_string(redis: Redis, item_id: str, user_id: str | None, key: str) -> StoredVerdict | None:
    """A verdict that is older than the hashes: a string of its own, which expires."""
    tag = f"{{{names.shard_of(item_id)}}}"
    if user_id is None:
        owner = cast("bytes | None", await redis.get(f"{tag}:keyowner:{item_id}:{key}"))
        if owner is None:
            return None
        user_id = owner.decode()
    entry = cast("bytes | None", await redis.get(f"{tag}:idem:{item_id}:{user_id}:{key}"))
    if entry is None:
        return None
    fingerprint, _, line = entry.partition(b"\n")
    return StoredVerdict(user_id, fingerprint.decode(), line)
