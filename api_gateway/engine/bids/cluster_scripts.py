"""``place_bids.lua`` on a cluster: one connection for the bids to each node, all nodes at once.

A node that hangs delays the bids of the others once, by the time-out of a round trip. After that bids on its shards are
refused until it answers again. Connecting, where it takes long, goes on in the background.

A bid follows its shard to another node only where the script was certainly not run: MOVED says so. ASK and TRYAGAIN do
too, but say that the keys of the shard are between two nodes. A script needs all of them in one place, those that do
not exist among them, so those bids are refused until the shard has arrived.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, MovedError, RedisError

from api_gateway.engine.bids.scripts import BidScripts, Decided, ItemBids, in_parts_of_one_shard
from api_gateway.engine.item_scripts import ScriptLimits
from shared import names
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import ClusterClient
from shared.domain.errors import OutcomeUnknown, Unavailable

logger = logging.getLogger(__name__)

WAIT_S: Final = 0.25
"""How long a flush waits, at most, for a new connection, and for a shard that has moved; then it goes on without."""
_ROUNDS: Final = 3


class _Way:
    """The way to one node."""

    def __init__(self, scripts: BidScripts) -> None:
        self.scripts = scripts
        self._connecting: asyncio.Task[None] | None = None
        self._is_late = False

    async def connect(self) -> None:
        """Make the connection, if there is none; in the background where that takes long.

        Raises:
            Unavailable: there is none yet.
        """
        if self.scripts.is_connected:
            return
        task = self._connecting
        if task is None:
            task = self._connecting = asyncio.create_task(self.scripts.connect(), name="connect-for-bids")
            task.add_done_callback(_heed)
        await asyncio.wait([task], timeout=0 if self._is_late else WAIT_S)
        self._is_late = not task.done()
        if self._is_late:
            raise Unavailable("a node of Redis does not answer; try again", retry_after_s=1)
        self._connecting = None
        if task.cancelled():
            raise Unavailable("the connection to a node of Redis was given up; try again", retry_after_s=1)
        task.result()

    async def close(self) -> None:
        """Close the connection, or stop making it."""
        if self._connecting is not None:
            self._connecting.cancel()
        await self.scripts.close()


class ClusterBidScripts:
    """As :class:`BidScripts`; a result is told for each item, whatever becomes of the others.

    A flush has one call of an item: of two, a shard that moves in between could refuse the first and take the second,
    and the bids of the first would come after those of the second.
    """

    calls_per_item: Final = 1

    def __init__(
        self,
        redis: ClusterClient,
        limits: ScriptLimits,
        *,
        timeout_s: float,
        run_of: Callable[[AbstractConnection], str],
    ) -> None:
        """``run_of`` tells which run of Redis a connection has reached (``Guard.run_of``)."""
        self._redis = redis
        self._limits = limits
        self._timeout_s = timeout_s
        self._run_of = run_of
        self._ways: dict[Address, tuple[Redis, _Way]] = {}
        self._following: set[asyncio.Task[None]] = set()

    async def place(self, calls: Sequence[ItemBids]) -> list[Decided | Exception]:
        """Decide the bids of several items; atomic per item. Never raises: each item has a result or an error."""
        results: list[Decided | Exception] = [_away()] * len(calls)
        left = list(range(len(calls)))
        for _ in range(_ROUNDS):
            sent_at_s = asyncio.get_running_loop().time()
            await self._place(calls, left, results)
            moved = {
                names.shard_of(calls[at][0].item_id): error
                for at in left
                if isinstance(error := results[at], MovedError)
            }
            if not moved:
                break
            await self._in_time(self._follow(moved, sent_at_s))
            left = [at for at in left if isinstance(results[at], MovedError)]
        return [_between() if isinstance(result, AskError) else result for result in results]

    async def _place(self, calls: Sequence[ItemBids], left: Sequence[int], results: list[Decided | Exception]) -> None:
        """Decide the bids of these items, and put what is decided, or what went wrong, in their places."""
        shards = {at: names.shard_of(calls[at][0].item_id) for at in left}
        if any(self._redis.placed(shard) is None for shard in shards.values()):
            await self._in_time(self._look_for(set(shards.values())))
        by_node: dict[Address, tuple[Redis, list[int]]] = {}
        for at in sorted(left, key=shards.__getitem__):
            placed = self._redis.placed(shards[at])
            if placed is None:
                results[at] = _away()
            else:
                by_node.setdefault(placed[0], (placed[1], []))[1].append(at)

        async def on_node(address: Address, node: Redis, places: Sequence[int]) -> None:
            found = await self._place_on(address, node, [calls[at] for at in places])
            for at, result in zip(places, found, strict=True):
                results[at] = result

        # All of them are awaited, whatever goes wrong with one: the next flush uses the same connections.
        ends = await asyncio.gather(
            *(on_node(address, node, places) for address, (node, places) in by_node.items()), return_exceptions=True
        )
        for (_, places), error in zip(by_node.values(), ends, strict=True):
            if error is not None:
                logger.error("bids: the flush to a node failed", exc_info=error)
                for at in places:
                    results[at] = OutcomeUnknown()

    async def _place_on(
        self, address: Address, node: Redis, calls: Sequence[ItemBids]
    ) -> Sequence[Decided | Exception]:
        way = await self._way(address, node)
        try:
            await way.connect()
            found = await way.scripts.place(calls)
            if any(type(result) is Unavailable for result in found):
                # For example, it answers CLUSTERDOWN because it is cut off from the others, which may have promoted a
                # replica.
                self._redis.suspect(node, None)
            return found
        except (Unavailable, OutcomeUnknown) as error:
            # Another node may have its shards by now.
            self._redis.suspect(node, error.__cause__)
            return [error] * len(calls)

    async def _way(self, address: Address, node: Redis) -> _Way:
        known = self._ways.get(address)
        if known is not None and known[0] is node:
            return known[1]
        for gone in [other for other in self._ways if other == address or not self._redis.has_node(other)]:
            await self._ways.pop(gone)[1].close()
        scripts = BidScripts(
            node, self._limits, timeout_s=self._timeout_s, run_of=self._run_of, in_parts=in_parts_of_one_shard
        )
        way = _Way(scripts)
        self._ways[address] = (node, way)
        return way

    async def _look_for(self, shards: Collection[str]) -> None:
        for shard in shards:
            with suppress(RedisError, OSError, TimeoutError):
                await self._redis.node_of(shard)

    async def _follow(self, moved: dict[str, MovedError], sent_at_s: float) -> None:
        for shard, error in moved.items():
            with suppress(RedisError, OSError, TimeoutError):
                await self._redis.moved(shard, error, sent_at_s)

    async def _in_time(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for this within a bound; it goes on by itself."""
        task = asyncio.create_task(work, name="follow-shards")
        self._following.add(task)
        task.add_done_callback(self._following.discard)
        await asyncio.wait([task], timeout=WAIT_S)

    async def leave(self, addresses: Collection[Address]) -> None:
        """Drop the connections to these nodes that were admitted: one that is still being made is checked anyway."""
        for address in addresses:
            known = self._ways.get(address)
            if known is not None:
                await known[1].scripts.leave()

    async def close(self) -> None:
        """Close all connections. The pools stay with their owner."""
        for task in self._following:
            task.cancel()
        for _, way in self._ways.values():
            await way.close()
        self._ways.clear()


AnyBidScripts: TypeAlias = BidScripts | ClusterBidScripts


def open_bid_scripts(
    redis: Redis, limits: ScriptLimits, *, timeout_s: float, run_of: Callable[[AbstractConnection], str]
) -> AnyBidScripts:
    """The scripts for a single Redis, or for a cluster."""
    if isinstance(redis, ClusterClient):
        return ClusterBidScripts(redis, limits, timeout_s=timeout_s, run_of=run_of)
    return BidScripts(redis, limits, timeout_s=timeout_s, run_of=run_of)


def _away() -> Unavailable:
    return Unavailable("no node of Redis has this item now; try again", retry_after_s=1)


def _between() -> Unavailable:
    return Unavailable("this item is on its way to another node of Redis; try again", retry_after_s=1)


def _heed(task: asyncio.Task[None]) -> None:
    """Take the error, which callers that wait see: perhaps nobody waits any more, and asyncio would complain."""
    if not task.cancelled():
        task.exception()
