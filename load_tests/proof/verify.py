"""The proof over real servers: wait for the archive, read all that Redis, JetStream and PostgreSQL hold,
compare.

Reads behind the services' back, straight from the stores, so that a service cannot vouch for itself. Run it
while nobody bids on the items in question; other items may be in full use.

    async with open_sources(redis_url=…, nats_url=…, postgres_url=…) as sources:
        await wait_until_archived(sources, ["lot-1"])
        verification = await verify_item("lot-1", ClientView(accepted), sources)
    assert verification.ok, str(verification)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from redis.asyncio import Redis

from load_tests.concurrency import map_bounded
from load_tests.proof.checks import AcceptedBid, Bid, Check, ClientView, Evidence, PriceState, Verification, compare
from shared.clients.nats import open_nats
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.messages import BidAccepted, decode_batch
from shared.names import STREAM, subject_of
from shared.redis_layout.keys import item_key

__all__ = [
    "AcceptedBid",
    "ArchiveProgress",
    "Bid",
    "Check",
    "ClientView",
    "Evidence",
    "PriceState",
    "Sources",
    "Verification",
    "collect",
    "compare",
    "item_versions",
    "missing_in_archive",
    "open_sources",
    "verify_item",
    "verify_items",
    "wait_until_archived",
]

_FETCH_MESSAGES = 256
_FETCH_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.2
_ITEMS_AT_ONCE = 8
# A temporary consumer that a cut connection leaves behind is removed by the server after this long.
_CONSUMER_IDLE_S = 60.0

_ROWS = """
SELECT epoch, seq, bid_id, user_id, amount, kind
  FROM bids
 WHERE item_id = $1
"""
_OTHER_EVENTS = """
SELECT epoch, seq
  FROM events
 WHERE item_id = $1
"""
_STORED = """
WITH wanted AS (SELECT * FROM unnest($1::text[], $2::bigint[]) AS wanted(item_id, seq))
SELECT (SELECT count(DISTINCT (b.item_id, b.seq)) FROM bids b JOIN wanted w USING (item_id) WHERE b.seq <= w.seq)
     + (SELECT count(DISTINCT (e.item_id, e.seq)) FROM events e JOIN wanted w USING (item_id) WHERE e.seq <= w.seq)
"""
_DEAD_LETTERS = """
SELECT count(*)
  FROM dead_letters
 WHERE subject = $1
"""
_ITEMS = """
SELECT item_id, current_bid, seq, epoch, bid_count
  FROM items
 WHERE item_id = ANY($1::text[])
"""


@dataclass(frozen=True, slots=True)
class Sources:
    """Open connections to the three stores."""

    redis: Redis
    jetstream: JetStreamContext
    postgres: asyncpg.Pool


@dataclass(frozen=True, slots=True)
class ArchiveProgress:
    """How far the archive is, in events over all items that are waited for. Times in seconds."""

    archived: int
    expected: int
    waited_s: float

    @property
    def caught_up(self) -> bool:
        """Whether the archive holds everything that Redis had when it was asked last."""
        return self.archived >= self.expected


@asynccontextmanager
async def open_sources(*, redis_url: str, nats_url: str, postgres_url: str) -> AsyncIterator[Sources]:
    """Connect to the three stores, and let go of them at the end.

    Raises:
        OSError, nats.errors.Error: NATS cannot be reached. Redis and PostgreSQL connect on first use.
    """
    redis = open_redis(redis_url, timeout_s=10.0)
    try:
        postgres = await open_postgres(postgres_url, name="load-tests", timeout_s=30.0)
        try:
            nats = await open_nats(nats_url, name="load-tests")
            try:
                yield Sources(redis, nats.jetstream(timeout=10.0), postgres)
            finally:
                await nats.close()
        finally:
            await postgres.close()
    finally:
        await redis.aclose()


async def wait_until_archived(
    sources: Sources,
    item_ids: Sequence[str],
    *,
    stall_timeout_s: float = 30.0,
    timeout_s: float = 600.0,
    progress: Callable[[ArchiveProgress], None] | None = None,
) -> ArchiveProgress:
    """Wait until PostgreSQL has every event of these items that Redis has.

    Args:
        stall_timeout_s: give up when the archive made no progress for this long.
        timeout_s: give up in any case after this long.
        progress: called with every look, five times a second.

    Returns:
        The last look; ``caught_up`` tells whether the wait succeeded. Not raising leaves the judgement to the
        comparison, which can say *what* is missing.
    """
    clock = asyncio.get_running_loop().time
    start = moved = clock()
    best = -1
    while True:
        live = await _redis_states(sources.redis, item_ids)
        archived = await _archived_states(sources.postgres, item_ids)
        look = ArchiveProgress(
            archived=sum(archived[item_id].seq for item_id in archived if item_id in live),
            expected=sum(state.seq for state in live.values()),
            waited_s=clock() - start,
        )
        if progress is not None:
            progress(look)
        if look.archived > best:
            best, moved = look.archived, clock()
        if look.caught_up or clock() - moved > stall_timeout_s or look.waited_s > timeout_s:
            return look
        await asyncio.sleep(_POLL_INTERVAL_S)


async def item_versions(
    sources: Sources, item_ids: Sequence[str]
) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """``(epoch, seq)`` of these items in Redis, and in PostgreSQL; without those that are not there."""
    live = await _redis_states(sources.redis, item_ids)
    archived = await _archived_states(sources.postgres, item_ids)
    return (
        {item_id: (state.epoch, state.seq) for item_id, state in live.items()},
        {item_id: (state.epoch, state.seq) for item_id, state in archived.items()},
    )


async def missing_in_archive(sources: Sources, versions: Mapping[str, tuple[int, int]]) -> int:
    """How many events of these items, up to these versions, PostgreSQL does not have.

    An item's row there is as new as its newest event. After the death of an archival worker older ones may come later:
    JetStream delivers what the dead one had taken again, once its time to acknowledge has passed.
    """
    wanted = sum(seq + 1 for _, seq in versions.values())
    stored = await sources.postgres.fetchval(
        _STORED, list(versions), [seq for _, seq in versions.values()], timeout=30.0
    )
    return max(0, wanted - int(stored))


async def verify_item(
    item_id: str,
    clients: ClientView,
    sources: Sources,
    *,
    viewer_prices: Mapping[str, int] | None = None,
    exponent: int = 2,
    redelivery_allowed: bool = False,
) -> Verification:
    """Read everything about an item and judge it; see :func:`load_tests.proof.checks.compare` for the checks.

    Args:
        clients: what the bidders know.
        viewer_prices: the last price shown to each viewer in minor units, by any name; None where nobody
            watched.
        exponent: decimals of the item's currency.
        redelivery_allowed: whether events may stand in the stream twice, as after a fault.
    """
    evidence = await collect(
        item_id,
        clients,
        sources,
        viewer_prices=viewer_prices,
        exponent=exponent,
        redelivery_allowed=redelivery_allowed,
    )
    return compare(evidence)


async def verify_items(
    clients: Mapping[str, ClientView],
    sources: Sources,
    *,
    exponent: int = 2,
    redelivery_allowed: bool = False,
) -> list[Verification]:
    """:func:`verify_item` for many items, a few at a time; in the order of ``clients``."""

    async def one(item_id: str) -> Verification:
        return await verify_item(
            item_id, clients[item_id], sources, exponent=exponent, redelivery_allowed=redelivery_allowed
        )

    return await map_bounded(one, clients, at_once=_ITEMS_AT_ONCE)


async def collect(
    item_id: str,
    clients: ClientView,
    sources: Sources,
    *,
    viewer_prices: Mapping[str, int] | None = None,
    exponent: int = 2,
    redelivery_allowed: bool = False,
) -> Evidence:
    """Read what the three stores hold of one item."""
    live = await _redis_states(sources.redis, [item_id])
    archived = await _archived_states(sources.postgres, [item_id])
    rows = [_bid_of_row(row) for row in await sources.postgres.fetch(_ROWS, item_id)]
    others = [(row["epoch"], row["seq"]) for row in await sources.postgres.fetch(_OTHER_EVENTS, item_id)]
    events, versions = await _stream_events(sources.jetstream, item_id)
    return Evidence(
        item_id=item_id,
        clients=clients,
        redis=live.get(item_id),
        archived_item=archived.get(item_id),
        rows=rows,
        events=events,
        versions=versions,
        archived_versions=[*((bid.epoch, bid.seq) for bid in rows), *others],
        dead_letters=await sources.postgres.fetchval(_DEAD_LETTERS, subject_of(item_id)),
        viewer_prices=viewer_prices,
        exponent=exponent,
        redelivery_allowed=redelivery_allowed,
    )


async def _redis_states(redis: Redis, item_ids: Sequence[str]) -> dict[str, PriceState]:
    pipeline = redis.pipeline(transaction=False)
    for item_id in item_ids:
        pipeline.hmget(item_key(item_id), ["price", "seq", "epoch", "bid_count"])
    answers = await pipeline.execute()
    return {
        item_id: PriceState(*(int(value) for value in answer))
        for item_id, answer in zip(item_ids, answers, strict=True)
        if None not in answer
    }


async def _archived_states(postgres: asyncpg.Pool, item_ids: Sequence[str]) -> dict[str, PriceState]:
    rows = await postgres.fetch(_ITEMS, list(item_ids))
    return {row["item_id"]: PriceState(row["current_bid"], row["seq"], row["epoch"], row["bid_count"]) for row in rows}


def _bid_of_row(row: Any) -> Bid:
    return Bid(row["epoch"], row["seq"], row["bid_id"], row["user_id"], row["amount"], row["kind"])


async def _stream_events(jetstream: JetStreamContext, item_id: str) -> tuple[list[Bid], list[tuple[int, int]]]:
    """Every event of the item that stands in the stream: its bids, and the versions of all of them."""
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.ALL,
        inactive_threshold=_CONSUMER_IDLE_S,
        mem_storage=True,
    )
    subscription = await jetstream.pull_subscribe(subject_of(item_id), stream=STREAM, config=config)
    bids: list[Bid] = []
    versions: list[tuple[int, int]] = []
    try:
        pending = (await subscription.consumer_info()).num_pending or 0
        while pending > 0:
            messages = await subscription.fetch(min(pending, _FETCH_MESSAGES), timeout=_FETCH_TIMEOUT_S)
            for message in messages:
                for event in decode_batch(message.data).events:
                    versions.append(event.version)
                    if isinstance(event, BidAccepted):
                        bids.append(Bid(event.epoch, event.seq, event.bid_id, event.user_id, event.amount, event.kind))
            pending = messages[-1].metadata.num_pending
    except NatsTimeoutError as error:
        raise TimeoutError(f"JetStream did not deliver the events of {item_id} in {_FETCH_TIMEOUT_S} s") from error
    finally:
        await subscription.unsubscribe()
    return bids, versions
