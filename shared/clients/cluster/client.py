"""A client of a cluster: it looks like the one of a single Redis, and asks the node that has the shard of each command.

One client of redis-py per node, and beside them the map of the shards. Nothing that may have run is repeated: a command
is sent again only where its answer says that it was not carried out (MOVED, ASK, TRYAGAIN). The cluster client of
redis-py repeats commands after lost connections, closes all of its connections when one breaks, and knows nothing of
who must be admitted before it is used (decision 0067).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from typing_extensions import override

from shared.clients.cluster.addresses import Address
from shared.clients.cluster.bounds import MOVING_S, PAUSE_S, REDIRECTS_MAX
from shared.clients.cluster.map import ClusterMap, Node, NotPlaced, OpenNode
from shared.clients.cluster.pipeline import ClusterPipeline
from shared.clients.cluster.slots import shard_of_words

__all__ = ["ClusterClient", "Node", "NotPlaced", "nodes_of"]

T = TypeVar("T")


class ClusterClient(ClusterMap, Redis):  # type: ignore[misc]  # what the library's own bases clash in
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
        ClusterMap.__init__(self, seeds, open_node, open_asker, timeout_s=timeout_s)
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

    async def following(
        self, shard: str, send: Callable[[Redis], Awaitable[T]], ask: Callable[[AskError], Awaitable[T]]
    ) -> T:
        """What ``send`` returns of the node that has the shard, wherever that is.

        Args:
            ask: does the same on a node that gets the shard, where its present node sends us there for once.

        Raises:
            NotPlaced: nobody has the shard now.
            TryAgainError: it is on its way for longer than this may wait.
            RedisError, OSError, TimeoutError: as ``send``; it is unknown whether it was carried out.
        """
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + MOVING_S
        for is_last in [*[False] * (REDIRECTS_MAX - 1), True]:
            node, sent_at_s = await self.node_of(shard), clock()
            try:
                return await send(node)
            except MovedError as error:
                if is_last:
                    raise
                await self.moved(shard, error, sent_at_s)
            except AskError as error:
                try:
                    return await ask(error)
                except (AskError, TryAgainError):
                    if is_last or clock() > give_up_s:
                        raise TryAgainError("the shard is on its way to another node") from error
                await asyncio.sleep(PAUSE_S)
            except TryAgainError:
                if is_last or clock() > give_up_s:
                    raise
                await asyncio.sleep(PAUSE_S)
            except (RedisConnectionError, RedisTimeoutError, ClusterDownError, OSError, TimeoutError) as error:
                self.suspect(node, error)
                raise
        raise AssertionError("the last try returns or raises")

    async def ask(self, error: AskError, args: Any, options: Mapping[str, Any]) -> Any:
        """A command on the node that is getting its slot: ASKING opens it for one command."""
        address = Address(error.host, error.port)
        pipeline: Any = self._client(address).pipeline(transaction=False)
        pipeline.execute_command("ASKING")
        pipeline.execute_command(*args, **options)
        _, answer = await pipeline.execute(raise_on_error=False)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @override
    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        """Several commands together. In a transaction all of them must be of one shard."""
        return ClusterPipeline(self, transaction=transaction)

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
    """The servers that have these shards, each with its own: of a single Redis that one. And the shards that nobody is
    known to have now.

    Args:
        fresh: ask the cluster, whatever is known.

    Raises:
        RedisError: no node answers.
    """
    if isinstance(redis, ClusterClient):
        return await redis.nodes(shards, fresh=fresh)
    return [Node(Address("", 0), redis, list(shards))], []
