"""Commands of one shard, followed to the node that has it now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.clients.cluster.addresses import Address
from shared.clients.cluster.bounds import MOVING_S, PAUSE_S, REDIRECTS_MAX
from shared.clients.cluster.map import ClusterMap

T = TypeVar("T")


class Redirects(ClusterMap):
    """The map of a cluster, and what to do where a node sends us to another one."""

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
