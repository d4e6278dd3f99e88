"""The outbox of a shard: a stream of entries ``<n>-0``, each with the events of one step on one item.

An entry stays until PostgreSQL has it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from redis.asyncio import Redis

from shared.redis_layout.keys import outbox_key

PAGE: Final = 512
"""Entries read at once."""


class EntryId(NamedTuple):
    """The ``n``-th entry of a shard's outbox, counted from 1 within the shard's ``epoch``."""

    epoch: int
    n: int


class Entry(NamedTuple):
    """What one step has decided on one item.

    Attributes:
        n: its number.
        item_id: the item.
        events: a JSON array of events, which may be empty.
        sealed: a JSON array of what only the archive may know (:mod:`shared.sealed`), None where there is nothing.
    """

    n: int
    item_id: str
    events: bytes
    sealed: bytes | None


def ask_entries(pipeline: Any, shard: str, *, after: int, count: int) -> None:
    """Put the question for the next entries into a pipeline; :func:`decode_entries` reads the answer."""
    pipeline.xrange(outbox_key(shard), f"({after}-0", "+", count=count)


def decode_entries(answer: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
    """The answer to :func:`ask_entries`."""
    return [
        Entry(int(entry_id.partition(b"-")[0]), fields[b"item"].decode(), fields[b"events"], fields.get(b"sealed"))
        for entry_id, fields in answer
    ]


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
