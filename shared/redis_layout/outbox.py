"""The outbox of a shard: a stream of entries ``<n>-0``, each with the events of one step on one item.

An entry stays until PostgreSQL has it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis

from shared.redis_layout.keys import outbox_key

PAGE: Final = 512
"""The most entries that are read at once."""


class EntryId(NamedTuple):
    """The ``n``-th entry of a shard's outbox, counted from 1 within the shard's ``epoch``."""

    epoch: int
    n: int


class Entry(NamedTuple):
    """What one step has decided on one item, or on a bidder for all items; or what an operator did.

    Attributes:
        n: its number.
        item_id: the item, or what stands in its place (:func:`shared.redis_layout.rulings.house_of`).
        events: a JSON array of events, which may be empty.
        sealed: a JSON array of what only the archive may know (:mod:`shared.sealed`), None where there is nothing.
        rulings: a JSON array of what was ruled on bidders, None where nothing was.
        acts: a JSON array of what an operator did to the platform, with nothing else beside it; else None.
    """

    n: int
    item_id: str
    events: bytes
    sealed: bytes | None
    rulings: bytes | None = None
    acts: bytes | None = None


def decode_entries(answer: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
    """Entries as the client tells them."""
    return [_entry(entry_id, fields) for entry_id, fields in answer]


def decode_script_entries(answer: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[Entry]:
    """Entries as a script tells them: fields and values in turn."""
    return [_entry(entry_id, dict(zip(told[::2], told[1::2], strict=True))) for entry_id, told in answer]


def _entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    n = int(entry_id.partition(b"-")[0])
    hidden = (fields.get(b"sealed"), fields.get(b"rulings"), fields.get(b"acts"))
    return Entry(n, fields[b"item"].decode(), fields[b"events"], *hidden)


async def read_newest(redis: Redis, shard: str, *, count: int) -> list[Entry]:
    """The newest entries of a shard, newest first.

    Raises:
        RedisError, OSError, TimeoutError: Redis cannot be asked.
    """
    return decode_entries(await cast(Any, redis.xrevrange(outbox_key(shard), count=count)))


async def read_pages(redis: Redis, shard: str, *, after: int = 0) -> AsyncIterator[list[Entry]]:
    """The entries of a shard after number ``after``, oldest first, in pages that are not empty.

    Raises:
        RedisError, OSError, TimeoutError: Redis cannot be asked.
    """
    while True:
        answer = await cast(Any, redis.xrange(outbox_key(shard), f"({after}-0", "+", count=PAGE))
        entries = decode_entries(answer)
        if entries:
            yield entries
        if len(entries) < PAGE:
            return
        after = entries[-1].n


async def read_pages_back(redis: Redis, shard: str) -> AsyncIterator[list[Entry | None]]:
    """The entries of a shard, newest first, in pages that are not empty; None in the place of one that is not an entry.

    Raises:
        RedisError, OSError, TimeoutError: Redis cannot be asked.
    """
    below = "+"
    while True:
        answer = await cast(Any, redis.xrevrange(outbox_key(shard), below, "-", count=PAGE))
        if answer:
            yield [_entry_or_none(entry_id, fields) for entry_id, fields in answer]
        if len(answer) < PAGE:
            return
        below = f"({answer[-1][0].decode()}"


def _entry_or_none(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Entry | None:
    try:
        return _entry(entry_id, fields)
    except (KeyError, ValueError):
        return None
