"""Several commands of a cluster: sent to each node that has some of them, all nodes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from typing_extensions import override

from shared.clients.cluster.bounds import MOVING_S, PAUSE_S, REDIRECTS_MAX
from shared.clients.cluster.redirects import Redirects
from shared.clients.cluster.slots import shard_of_words


class NodeAway(ResponseError):
    """Stands in the place of an answer: the node that has this command's shard cannot be asked now. The other nodes
    have answered. It is unknown whether the command was carried out."""


_AWAY = (ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError)
"""What a node answers to any command of a shard, or of all shards, that it cannot carry out now."""


class ClusterPipeline(Pipeline):
    """The commands are collected as in any pipeline. WATCH is not for this."""

    def __init__(self, cluster: Redirects, pool: Any, callbacks: Any, *, transaction: bool) -> None:
        """
        Args:
            pool, callbacks: what the library's pipeline wants; the pool is not used.
        """
        super().__init__(pool, callbacks, transaction, None)
        self._cluster = cluster

    @override
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Send what was collected; the answers, in order.

        Args:
            raise_on_error: raise the first error among the answers. Otherwise it stands in the place of its answer, as
                :class:`NodeAway` where only some of the nodes cannot be asked.

        Raises:
            RedisError, OSError, TimeoutError: no node can be asked; or one of a transaction, or ``raise_on_error``.
        """
        stack = list(self.command_stack)
        self.command_stack = []
        if not stack:
            return []
        if self.is_transaction:
            return await self._together(stack, raise_on_error)
        answers = await self._each(stack)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if raise_on_error and errors:
            raise errors[0]
        if errors and len(errors) == len(answers) and all(map(_is_away, errors)):
            raise errors[0]
        return [_in_its_place(answer) if isinstance(answer, Exception) else answer for answer in answers]

    async def _together(self, stack: Sequence[Any], raise_on_error: bool) -> list[Any]:
        shards = {shard_of_words(args) for args, _ in stack}
        if len(shards) != 1 or None in shards:
            raise ValueError("on a cluster, all commands of a transaction must have keys of one shard")
        (shard,) = shards
        assert shard is not None

        async def send(node: Redis) -> list[Any]:
            return await _sent(node, stack, transaction=True, raise_on_error=raise_on_error)

        async def ask(error: AskError) -> list[Any]:
            # ASKING opens the other node for one command, and this is several.
            raise TryAgainError("the shard is on its way to another node") from error

        return await self._cluster.following(shard, send, ask)

    async def _each(self, stack: Sequence[Any]) -> list[Any]:
        clock = asyncio.get_running_loop().time
        give_up_s = clock() + MOVING_S
        answers: list[Any] = [None] * len(stack)
        left = list(range(len(stack)))
        for _ in range(REDIRECTS_MAX):
            sent, sent_at_s = left, clock()
            await self._send(stack, sent, answers)
            if clock() > give_up_s:
                break
            left = await self._redirected(stack, sent, answers, sent_at_s)
            if not left:
                break
            if any(isinstance(answers[at], TryAgainError) for at in left):
                await asyncio.sleep(PAUSE_S)
        return answers

    async def _send(self, stack: Sequence[Any], left: Sequence[int], answers: list[Any]) -> None:
        """Send these commands, and put what comes back in their places."""
        groups: dict[Redis, list[int]] = {}
        nodes: dict[str | None, Redis | Exception] = {}
        for at in left:
            shard = shard_of_words(stack[at][0])
            if shard not in nodes:
                try:
                    nodes[shard] = await (self._cluster.any_node() if shard is None else self._cluster.node_of(shard))
                except (RedisError, OSError, TimeoutError) as error:
                    nodes[shard] = error
            node = nodes[shard]
            if isinstance(node, Redis):
                groups.setdefault(node, []).append(at)
            else:
                answers[at] = node

        async def of_node(node: Redis, places: Sequence[int]) -> None:
            try:
                found = await _sent(node, [stack[at] for at in places], transaction=False, raise_on_error=False)
            except (RedisError, OSError, TimeoutError) as error:
                self._cluster.suspect(node, error)
                found = [error] * len(places)
            down = next((answer for answer in found if isinstance(answer, ClusterDownError)), None)
            if down is not None:
                self._cluster.suspect(node, down)
            for at, answer in zip(places, found, strict=True):
                answers[at] = answer

        await asyncio.gather(*(of_node(node, places) for node, places in groups.items()))

    async def _redirected(
        self, stack: Sequence[Any], sent: Sequence[int], answers: list[Any], sent_at_s: float
    ) -> list[int]:
        """Go where these answers lead to. Returns the places of the commands that are to be sent again.

        The commands of a shard are carried out in their order. So none is sent again that was sent before one which was
        carried out, say because the keys of the shard are moved one after the other: its error stands.
        """
        by_shard: dict[str, list[int]] = {}
        for at in sent:
            shard = shard_of_words(stack[at][0])
            if shard is not None:
                by_shard.setdefault(shard, []).append(at)
        again: list[int] = []
        for shard, places in by_shard.items():
            refused = [at for at in places if isinstance(answers[at], AskError | TryAgainError)]
            if not refused or refused != places[-len(refused) :]:
                continue
            first = answers[refused[0]]
            if isinstance(first, MovedError):
                await self._cluster.moved(shard, first, sent_at_s)
                again += refused
            elif isinstance(first, AskError) and len(refused) == 1:
                again += await self._asked(stack, refused[0], answers, first)
            else:
                answers[refused[0]] = TryAgainError("the shard is on its way to another node")
                again += refused
        return sorted(again)

    async def _asked(self, stack: Sequence[Any], at: int, answers: list[Any], error: AskError) -> list[int]:
        try:
            answers[at] = await self._cluster.ask(error, *stack[at])
        except (AskError, TryAgainError):
            answers[at] = TryAgainError("the shard is on its way to another node")
            return [at]
        except (RedisError, OSError, TimeoutError) as away:
            answers[at] = away
        return []


async def _sent(node: Redis, stack: Sequence[Any], *, transaction: bool, raise_on_error: bool) -> list[Any]:
    pipeline: Any = node.pipeline(transaction=transaction)
    for args, options in stack:
        pipeline.execute_command(*args, **options)
    answers: list[Any] = await pipeline.execute(raise_on_error=raise_on_error)
    return answers


def _is_away(error: Exception) -> bool:
    return not isinstance(error, ResponseError) or isinstance(error, (*_AWAY, AskError))


def _in_its_place(error: Exception) -> Exception:
    return NodeAway(str(error) or type(error).__name__) if _is_away(error) else error
