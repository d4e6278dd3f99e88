"""Which node of a cluster has which shard: what is known, how it is asked for, and what a move of a shard leads to.

Several nodes are asked at once, and their answers are weighed (``views.py``): a node that is cut off from the others,
or has slept, knows only an older state.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ClusterDownError, MovedError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.clients.cluster.addresses import Address
from shared.clients.cluster.views import Claim, View, agreed, are_majority, newest
from shared.redis_layout.keys import cursors_key

logger = logging.getLogger(__name__)

_REFRESH_EVERY_S: Final = 0.25
_TOLD_S: Final = 2.0
"""How long a MOVED counts more than a map: nodes hear of a move within a second or so."""
_ASK_S: Final = 1.0
"""How long one node may take to say who has which slots."""
_GRACE_S: Final = 0.05
"""How long the rest may take once enough have answered."""

_PROBE_EVERY_S: Final = 0.5

OpenNode = Callable[[Address], Redis]


class NotPlaced(RedisConnectionError):
    """No node is known to have the shard now: its node has failed, or the shard is on its way to another one."""


class _NoCluster(RedisConnectionError):
    """A single Redis was asked who has which slots."""


class Node(NamedTuple):
    """A node, and the shards that it has of those that were asked about."""

    address: Address
    redis: Redis
    shards: list[str]


class ClusterMap:
    """The clients of the nodes, one for each, and which of them has which shard."""

    def __init__(
        self, seeds: Iterable[Address], open_node: OpenNode, open_asker: OpenNode, *, timeout_s: float
    ) -> None:
        """As :class:`shared.clients.cluster.client.ClusterClient`."""
        self._seeds = tuple(seeds)
        self._open_node = open_node
        self._open_asker = open_asker
        self._timeout_s = timeout_s
        self._nodes: dict[Address, Redis] = {}
        self._askers: dict[Address, Redis] = {}
        self._places: dict[str, Address] = {}
        self._arriving: dict[str, Address] = {}
        # What was agreed last, and all primaries of that time: they are asked first.
        self._claims: dict[str, Claim] = {}
        self._primaries: tuple[Address, ...] = ()
        # Where nodes have redirected us to, and until when that counts more than what other nodes say.
        self._told: dict[str, tuple[Address, float]] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._refreshed_at_s = float("-inf")
        # The last time that no node answered: when, and why.
        self._unanswered: tuple[float, RedisConnectionError] | None = None
        self._lock = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        # Nodes that took longer than they may, each with the task that waits until it answers again.
        self._hanging: dict[Address, asyncio.Task[None]] = {}

    def placed(self, shard: str) -> tuple[Address, Redis] | None:
        """The node that has the shard, as far as is known; None where nobody is known to have it, or it hangs."""
        address = self._places.get(shard)
        return None if address is None or address in self._hanging else (address, self._client(address))

    def has_node(self, address: Address) -> bool:
        """Whether a node there has shards, as far as is known."""
        return address in self._nodes

    async def node_of(self, shard: str) -> Redis:
        """The node that has the shard.

        Raises:
            NotPlaced: nobody is known to have it now, or its node hangs; the caller does not wait for that node.
            RedisError: no node answers.
        """
        if shard not in self._places:
            await self.refresh(since_s=asyncio.get_running_loop().time() - _REFRESH_EVERY_S)
            await self._arrived(shard)
        found = self.placed(shard)
        if found is None:
            raise NotPlaced(f"no node of the cluster has shard {shard} now; try again")
        return found[1]

    async def nodes(self, shards: Iterable[str], *, fresh: bool = False) -> tuple[list[Node], list[str]]:
        """Which node has which of these shards; and those that nobody is known to have now, or only a node that hangs.

        Args:
            fresh: ask the cluster, whatever is known.

        Raises:
            RedisError: no node answers.
        """
        shards = list(shards)
        if fresh or any(shard not in self._places for shard in shards):
            now_s = asyncio.get_running_loop().time()
            await self.refresh(since_s=now_s if fresh else now_s - _REFRESH_EVERY_S)
            for shard in shards:
                await self._arrived(shard)
        found: dict[Address, Node] = {}
        missing: list[str] = []
        for shard in shards:
            address = self._places.get(shard)
            if address is None or address in self._hanging:
                missing.append(shard)
            else:
                found.setdefault(address, Node(address, self._client(address), [])).shards.append(shard)
        return list(found.values()), missing

    async def refresh(self, *, since_s: float | None = None) -> None:
        """Ask the cluster who has what.

        Args:
            since_s: nothing is asked where somebody has asked after this time of the event loop.

        Raises:
            RedisError: no node answers.
        """
        clock = asyncio.get_running_loop().time
        came_at_s = clock()
        async with self._lock:
            if since_s is not None and self._refreshed_at_s > since_s:
                return
            asked_at_s = clock()
            if self._unanswered is not None and self._unanswered[0] >= came_at_s:
                # All who waited for this answer share the failure. If each asked again in turn, the last would wait for
                # the sum of all their time-outs.
                raise RedisConnectionError(str(self._unanswered[1]))
            try:
                places = await self._asked()
            except RedisConnectionError as error:
                self._unanswered = clock(), error
                raise
            self._told = {shard: told for shard, told in self._told.items() if told[1] > asked_at_s}
            self._take_over(places | {shard: address for shard, (address, _) in self._told.items()})
            self._refreshed_at_s = asked_at_s

    async def moved(self, shard: str, error: MovedError, sent_at_s: float) -> None:
        """A node has said that another one has the shard.

        Raises:
            RedisError: no node answers.
        """
        with suppress(RedisError, OSError, TimeoutError):
            await self.refresh(since_s=sent_at_s)
        told = Address(error.host, error.port)
        if error.host and self._places.get(shard) != told and self._arriving.get(shard) != told:
            # The node that was asked has not heard of it yet; the one that sent us on has.
            self._told[shard] = told, asyncio.get_running_loop().time() + _TOLD_S
            self._take_over({**self._places, **self._arriving, shard: told})
        await self._arrived(shard)

    def suspect(self, node: Redis, error: BaseException | None) -> None:
        """A node does not answer, or says that it takes nothing: look soon whether others have its shards now. One that
        is cut off from the others says CLUSTERDOWN as long as that lasts, also when they have promoted its replica.

        Where it hangs, nobody asks it anything until it answers again. Otherwise each question to several nodes would
        wait for the time-out of this one.
        """
        address = next((address for address, client in self._nodes.items() if client is node), None)
        hangs = isinstance(error, TimeoutError | RedisTimeoutError)
        if hangs and address is not None and address not in self._hanging:
            self._hanging[address] = asyncio.create_task(self._answers(address), name="wait-for-node")
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="look-at-cluster")

    async def _look(self) -> None:
        with suppress(RedisError, OSError, TimeoutError):
            await self.refresh(since_s=asyncio.get_running_loop().time() - _REFRESH_EVERY_S)

    async def _answers(self, address: Address) -> None:
        """Wait until a node answers again, or has no shard any more."""
        try:
            while address in self._nodes:
                try:
                    async with asyncio.timeout(min(_ASK_S, self._timeout_s)):
                        await self._asker(address).ping()
                    return
                except (RedisError, OSError, TimeoutError):
                    await asyncio.sleep(_PROBE_EVERY_S)
        finally:
            self._hanging.pop(address, None)

    def _asker(self, address: Address) -> Redis:
        asker = self._askers.get(address)
        if asker is None:
            asker = self._askers[address] = self._open_asker(address)
        return asker

    async def _asked(self) -> dict[str, Address]:
        """Where each shard is, by what the nodes say.

        Raises:
            RedisConnectionError: none answers.
        """
        views: list[View] = []
        errors: list[Exception] = []
        asked: set[Address] = set()
        # Ask the last known primaries first; if they are no majority, the seeds and the nodes that the answers name.
        more: Iterable[Address] = self._primaries or self._seeds
        for _ in range(3):
            addresses = [address for address in dict.fromkeys(more) if address not in asked]
            asked.update(addresses)
            await self._ask_all(addresses, views, errors)
            if are_majority(views):
                break
            more = [*self._seeds, *(newest(views).primaries.values() if views else ())]
        if not views:
            # An error that says what is wrong with the URL helps more than one of a node that does not answer.
            error = next((error for error in errors if isinstance(error, _NoCluster)), None)
            if error is not None:
                raise error
            raise RedisConnectionError(f"no node of the cluster answers: {errors[-1]}") from errors[-1]
        self._claims = agreed(views, self._claims)
        if are_majority(views) or not self._primaries:
            self._primaries = tuple(newest(views).primaries.values())
        return {shard: claim.address for shard, claim in self._claims.items()}

    async def _ask_all(self, addresses: Iterable[Address], views: list[View], errors: list[Exception]) -> None:
        """Ask these at once, and add what they say to the views. Nobody waits for the last ones where a majority has
        answered, nor for one that hangs where another one has."""
        tasks = {asyncio.create_task(self._view(address), name="ask-node"): address for address in addresses}
        pending = set(tasks)
        try:
            while pending:
                is_enough = are_majority(views) or (
                    bool(views) and all(tasks[task] in self._hanging for task in pending)
                )
                done, pending = await asyncio.wait(
                    pending, timeout=_GRACE_S if is_enough else None, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for task in done:
                    found = task.result()
                    if isinstance(found, View):
                        views.append(found)
                    else:
                        errors.append(found)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _view(self, address: Address) -> View | Exception:
        try:
            async with asyncio.timeout(min(_ASK_S, self._timeout_s)):
                pipeline: Any = self._asker(address).pipeline(transaction=False)
                # In two words, so that the library leaves the answers as they are.
                pipeline.execute_command("CLUSTER", "SLOTS")
                pipeline.execute_command("CLUSTER", "NODES")
                slots, nodes = await pipeline.execute()
            return View.read(slots, nodes, address)
        except ResponseError as said:
            if "cluster support disabled" not in str(said):
                return said
            return _NoCluster(f"{address} is no node of a cluster: REDIS_URL must begin with redis:// or rediss://")
        except (RedisError, OSError, TimeoutError) as away:
            return away

    def _take_over(self, places: Mapping[str, Address]) -> None:
        """Use this map from now on. Where a shard has come to a node that is in use already, the node is asked for that
        shard only after a new connection was admitted there: the check of the open connections did not cover that
        shard."""
        for shard in [shard for shard in self._places if shard not in places]:
            del self._places[shard]
        arrived: dict[Address, list[str]] = {}
        for shard, address in places.items():
            if self._places.get(shard) == address:
                self._arriving.pop(shard, None)
            elif address not in self._nodes:
                self._arriving.pop(shard, None)
                self._places[shard] = address
            elif self._arriving.get(shard) != address:
                self._places.pop(shard, None)
                self._arriving[shard] = address
                arrived.setdefault(address, []).append(shard)
        # Made together with the first shard, so that the next one finds the node in use.
        for address in set(places.values()):
            self._client(address)
        for address, shards in arrived.items():
            check = asyncio.create_task(self._check(address, shards), name="check-moved-shards")
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        self._forget_others(set(places.values()))

    async def _check(self, address: Address, shards: list[str]) -> None:
        """Place shards on a node that lets a new connection in."""
        admitted: set[str] = set()
        try:
            there = await self._there(address, shards)
            connection: Any = self._client(address).connection_pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                async with asyncio.timeout(self._timeout_s):
                    await connection.connect()
                admitted = there
            finally:
                await connection.disconnect(nowait=True)
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("shards %s, now on %s, cannot be used yet: %s", ", ".join(shards), address, error)
        finally:
            for shard in shards:
                if self._arriving.get(shard) == address:
                    del self._arriving[shard]
                    if shard in admitted:
                        self._places[shard] = address

    async def _there(self, address: Address, shards: list[str]) -> set[str]:
        """Those of the shards that the node itself says to have. A map may be older, or younger, than what the node
        knows; and the check of the new connection has not seen a shard that came after it.

        Raises:
            RedisError, OSError, TimeoutError: it does not say.
        """
        pipeline = self._asker(address).pipeline(transaction=False)
        for shard in shards:
            pipeline.exists(cursors_key(shard))
        async with asyncio.timeout(self._timeout_s):
            answers = await pipeline.execute(raise_on_error=False)
        return {
            shard
            for shard, answer in zip(shards, answers, strict=True)
            if not isinstance(answer, MovedError | ClusterDownError)
        }

    async def _arrived(self, shard: str) -> None:
        """Wait, within a bound, for a shard that is on its way."""
        if shard in self._arriving and self._checks:
            give_up_s = asyncio.get_running_loop().time() + self._timeout_s
            while shard in self._arriving and self._checks:
                left_s = give_up_s - asyncio.get_running_loop().time()
                if left_s <= 0:
                    return
                await asyncio.wait(self._checks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)

    def _client(self, address: Address) -> Redis:
        client = self._nodes.get(address)
        if client is None:
            client = self._nodes[address] = self._open_node(address)
        return client

    def _forget_others(self, addresses: set[Address]) -> None:
        """Close what led to nodes that have no shard any more."""
        for address in [address for address in self._nodes if address not in addresses]:
            self._close_later(self._nodes.pop(address))
        for address in [address for address in self._askers if address not in addresses | set(self._seeds)]:
            self._close_later(self._askers.pop(address))

    def _close_later(self, client: Redis) -> None:
        closing = asyncio.create_task(_closed(client), name="close-node")
        self._checks.add(closing)
        closing.add_done_callback(self._checks.discard)

    async def any_node(self) -> Redis:
        """A node that has shards.

        Raises:
            RedisError: no node answers.
        """
        if not self._places:
            await self.refresh(since_s=asyncio.get_running_loop().time() - _REFRESH_EVERY_S)
        if not self._places:
            raise NotPlaced("no node of the cluster has a shard")
        known = [address for address in self._places.values() if address not in self._hanging]
        if not known:
            raise NotPlaced("no node of the cluster answers")
        return self._client(random.choice(known))

    async def leave(self, addresses: Iterable[Address]) -> None:
        """Close all connections to these nodes, also those in use."""
        for address in addresses:
            client = self._nodes.get(address)
            if client is not None:
                with suppress(RedisError, OSError):
                    await client.connection_pool.disconnect()

    async def _close_nodes(self) -> None:
        """Close what leads to all nodes."""
        tasks = [*self._checks, *self._hanging.values(), *([] if self._looking is None else [self._looking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in [*self._nodes.values(), *self._askers.values()]:
            await client.aclose()
        self._nodes.clear()
        self._askers.clear()
        self._places.clear()


async def _closed(client: Redis) -> None:
    with suppress(RedisError, OSError):
        await client.aclose()
