"""A client of a cluster: it looks like the one of a single Redis, and asks the node that has the shard of each command.

One client of redis-py per node, and beside them the map of the shards. Nothing that may have run is repeated: a command
is sent again only where its answer says that it was not carried out (MOVED, ASK, TRYAGAIN). The cluster client of
redis-py repeats commands after lost connections, closes all of its connections when one breaks, and does not know that
a run must be admitted before it is used (decision 0067).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar

from redis.asyncio import Redis
from typing_extensions import override

from shared.clients.cluster.addresses import Address
from shared.clients.cluster.map import Node, NotPlaced, OpenNode
from shared.clients.cluster.pipeline import ClusterPipeline
from shared.clients.cluster.redirects import Redirects
from shared.clients.cluster.slots import shard_of_words

__all__ = ["ClusterClient", "Node", "NotPlaced", "nodes_of"]

T = TypeVar("T")


class ClusterClient(Redirects, Redis):  # type: ignore[misc]  # what the library's own bases clash in
    """All commands whose keys are of one shard, and pipelines of such commands.

    A command without a key goes to any node; for those that are about a whole server there is :func:`nodes_of`.
    """

    def __init__(
        self,
        seeds: Iterable[Address],
        open_node: OpenNode,
        open_asker: OpenNode,
        *,
        timeout_s: float,
    ) -> None:
        """
        Args:
            seeds: where to ask first which nodes there are.
            open_node: makes the client of a node; its pool makes sure that each connection may be used.
            open_asker: makes a client that only asks for slots: any node may answer that.
            timeout_s: bounds the check of a node that has got a shard.
        """
        Redirects.__init__(self, seeds, open_node, open_asker, timeout_s=timeout_s)
        # The library's client wants a pool. None of its own methods uses it here.
        Redis.__init__(self, connection_pool=self._asker(self._seeds[0]).connection_pool)

    @override
    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """One command, on the node that has its shard."""
        shard = shard_of_words(args)
        if shard is None:
            node: Any = await self.any_node()
            return await node.execute_command(*args, **options)

        async def send(node: Any) -> Any:
            return await node.execute_command(*args, **options)

        return await self.following(shard, send, lambda error: self.ask(error, args, options))

    @override
    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        """Several commands together. In a transaction all of them must be of one shard."""
        return ClusterPipeline(self, self.connection_pool, self.response_callbacks, transaction=transaction)

    @override
    async def ping(self, **kwargs: Any) -> bool:
        """Whether a node answers.

        Raises:
            RedisError: none does.
        """
        nodes, _ = await self.nodes(list(self._places))
        if not nodes:
            return bool(await (await self.any_node()).ping(**kwargs))
        answers = await asyncio.gather(*(node.redis.ping(**kwargs) for node in nodes), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if len(errors) == len(answers):
            raise errors[0]
        return True

    @override
    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close what leads to all nodes."""
        await self._close_nodes()
        await super().aclose(close_connection_pool)


async def nodes_of(redis: Redis, shards: Iterable[str], *, fresh: bool = False) -> tuple[list[Node], list[str]]:
    """The servers that have these shards, each with its shards (a single Redis has them all), and the shards that no
    server is known to have now.

    Args:
        fresh: ask the cluster, whatever is known.

    Raises:
        RedisError: no node answers.
    """
    if isinstance(redis, ClusterClient):
        return await redis.nodes(shards, fresh=fresh)
    return [Node(Address("", 0), redis, list(shards))], []
