"""The cursors of a shard: how far its outbox is given out, published and archived, and whose outbox it is.

A shard without ``epoch`` is lost or closed: every script refuses it, and nothing of it may be told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, Literal, NamedTuple, cast

from redis.asyncio import Redis

from shared.redis_layout.keys import cursors_key
from shared.redis_layout.outbox import EntryId


class Lineage(NamedTuple):
    """A shard's outbox in one epoch, in one run of Redis: within it each number is given out once.

    A number alone names no entry. After a failover to a replica that lacks the newest entries, their numbers are given
    out again, in the same epoch; after a rebuilding they begin at 1 again, in another epoch. So code that remembers an
    entry over an await remembers its lineage with it.

    ``run``: the ``run_id`` of the Redis server, '' where it is not known.
    """

    run: str
    epoch: int


class Cursors(NamedTuple):
    """The fields of the hash.

    Attributes:
        epoch: None where the shard is lost or closed.
        next: the last number that was given out.
        published: up to which entry JetStream has confirmed all.
        archived: up to which entry PostgreSQL has all; the entries before it are trimmed.
        run: the run of Redis that was last found to have all of the shard, '' where none was.
        stale: the former epoch, where the shard is closed because it is an older copy.
        stream_id: the creation time of the stream to which ``published`` refers.
        stream_seq: the stream's sequence number of the last published entry.
        republish: the archive misses entries that were published.
    """

    epoch: int | None
    next: int
    published: int
    archived: int
    run: str
    stale: int | None
    stream_id: str
    stream_seq: int
    republish: bool

    @property
    def newest(self) -> EntryId | None:
        """The last entry that was given out; None where the shard is lost or closed."""
        return None if self.epoch is None else EntryId(self.epoch, self.next)

    @property
    def lineage(self) -> Lineage | None:
        """The lineage to which the outbox belongs; None where the shard is lost or closed."""
        return None if self.epoch is None else Lineage(self.run, self.epoch)


FIELDS: Final = tuple(Cursors.__annotations__)
"""The fields of the hash, in the order of :class:`Cursors`."""


Field = Literal["epoch", "next", "published", "archived", "run", "stale", "evictions", "admission"]
"""The fields that may be asked for one by one. ``evictions``: how many items have left. ``admission``: a unique text
that tells by which run and when the shard was admitted."""


def ask_fields(pipeline: Any, shard: str, *fields: Field) -> None:
    """Put the question for some fields into a pipeline; the answer is their values, None where there is none."""
    pipeline.hmget(cursors_key(shard), fields)


def ask_cursors(pipeline: Any, shard: str) -> None:
    """Put the question for a shard's cursors into a pipeline; :func:`decode_cursors` reads the answer."""
    pipeline.hmget(cursors_key(shard), FIELDS)


def decode_cursors(answer: Sequence[bytes | None]) -> Cursors:
    """The answer to :func:`ask_cursors`."""
    epoch, last, published, archived, run, stale, stream_id, stream_seq, republish = answer
    return Cursors(
        None if epoch is None or last is None else int(epoch),
        int(last or 0),
        int(published or 0),
        int(archived or 0),
        (run or b"").decode(),
        None if stale is None else int(stale),
        (stream_id or b"").decode(),
        int(stream_seq or 0),
        republish is not None,
    )


async def read_cursors(redis: Redis, shards: Iterable[str]) -> dict[str, Cursors]:
    """The cursors of these shards, in one round trip.

    Raises:
        RedisError, OSError, TimeoutError: Redis cannot be asked.
    """
    shards = list(shards)
    if not shards:
        return {}
    pipeline = redis.pipeline(transaction=False)
    for shard in shards:
        ask_cursors(pipeline, shard)
    answers = cast("list[list[bytes | None]]", await pipeline.execute())
    return {shard: decode_cursors(answer) for shard, answer in zip(shards, answers, strict=True)}


def decode_lineage(answer: Sequence[bytes | None]) -> Lineage | None:
    """The lineage out of the values of ``run`` and ``epoch``; None where the shard is lost or closed."""
    run, epoch = answer
    return None if epoch is None else Lineage((run or b"").decode(), int(epoch))


def ask_epoch(pipeline: Any, shard: str) -> None:
    """Put the question for a shard's epoch into a pipeline; the answer is its digits, None where it is lost or
    closed."""
    pipeline.hget(cursors_key(shard), "epoch")


def ask_is_open(pipeline: Any, shard: str) -> None:
    """Put the question whether a shard is neither lost nor closed into a pipeline; the answer is 0 or 1."""
    pipeline.hexists(cursors_key(shard), "epoch")


async def read_epoch(redis: Redis, shard: str) -> int | None:
    """The epoch of a shard, None where it is lost or closed.

    Raises:
        RedisError, OSError, TimeoutError: Redis cannot be asked.
    """
    epoch = await cast("Awaitable[bytes | None]", redis.hget(cursors_key(shard), "epoch"))
    return None if epoch is None else int(epoch)


def ask_fence(pipeline: Any, shard: str) -> None:
    """Put the question for a shard's fence into a pipeline; :func:`decode_fence` reads the answer."""
    ask_fields(pipeline, shard, "epoch", "run", "evictions")


def decode_fence(answer: Sequence[bytes | None]) -> str | None:
    """The answer to :func:`ask_fence`; None where the shard is lost or closed.

    The fence changes whenever an item of the shard leaves Redis. Code that reads an item from the archive and then
    writes it to Redis first asks for the fence and gives it to the script, which refuses a fence that has changed.
    Without it:

    1. A gateway finds that nobody ever had the id `x`, and is suspended.
    2. Another one opens `x`, it is sold, archived, and leaves Redis.
    3. The first one goes on: Redis does not have `x`, and would open it a second time.

    The fence contains the run because a failover may undo an eviction: another run of Redis then gives out the same
    number of evictions again.
    """
    epoch, run, evictions = answer
    return None if epoch is None else f"{int(epoch)}|{(run or b'').decode()}|{int(evictions or 0)}"


def epoch_of_fence(fence: str) -> int:
    """The epoch in a fence that :func:`decode_fence` gave."""
    return int(fence.partition("|")[0])
