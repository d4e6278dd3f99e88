"""The cursors of all shards, and which Redis has them: a single one, or the nodes of a cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import AskError, NoScriptError, RedisError, TryAgainError

from shared import names
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import ClusterClient, Node, NotPlaced, nodes_of
from shared.redis_layout.cursors import Field
from shared.redis_layout.keys import cursors_key, lost_key
from shared.redis_layout.outbox import EntryId
from shared.redis_layout.scripts import CALLS_TOGETHER_MAX, Call, Script, beside

logger = logging.getLogger(__name__)

_READ_SHARDS: Final = Script.read(Path(__file__).parent / "lua" / "read_shards.lua")

_FIELDS: Final[tuple[Field, ...]] = ("epoch", "next", "archived", "run", "stale")

_TRIES: Final = 3
_NODE_S: Final = 2.0
"""How long one node of a cluster may take: the others must not wait for it."""


class ShardCursors(NamedTuple):
    """A shard's cursors as this Redis has them.

    ``stale``: the shard was closed because it went back. ``run``: the run of Redis that was last admitted with this
    shard, '' where none was since it was made. ``items_lost``: how many of its items are noted as lost.
    """

    place: EntryId | None
    archived: int
    stale: bool
    run: str
    items_lost: int


class Server(NamedTuple):
    """What one Redis has: all shards, or those of a node of a cluster. ``history``: the replication id of its data
    (``guard.py``)."""

    address: Address
    run: str
    history: str
    cursors: Mapping[str, ShardCursors]

    @property
    def open(self) -> dict[str, ShardCursors]:
        """The shards that take bids."""
        return {shard: found for shard, found in self.cursors.items() if found.place is not None}

    @property
    def runs(self) -> set[str]:
        """The runs with which open shards are marked."""
        return {found.run for found in self.open.values()}

    @property
    def is_marked_by_others(self) -> bool:
        """Whether an open shard is not marked with this run."""
        return bool(self.runs - {self.run})


class Found(NamedTuple):
    """All cursors that could be read: those of a single Redis, or of the nodes of a cluster that answered.

    ``unread``: the shards of the others.
    """

    servers: Sequence[Server]
    unread: frozenset[str]

    @property
    def cursors(self) -> dict[str, ShardCursors]:
        """The cursors of all servers."""
        return {shard: cursors for server in self.servers for shard, cursors in server.cursors.items()}

    def run_of(self, shard: str) -> str:
        """The run that has the shard."""
        return next(server.run for server in self.servers if shard in server.cursors)

    def has(self, run: str) -> bool:
        """Whether this run was read."""
        return any(server.run == run for server in self.servers)


async def read_servers(redis: Redis) -> Found:
    """Ask all servers at once. A shard that moves meanwhile is asked for again.

    Raises:
        RedisError, OSError, TimeoutError: they cannot be asked; of a cluster, none of its nodes.
    """
    for _ in range(_TRIES):
        nodes, missing = await nodes_of(redis, names.SHARDS, fresh=True)
        # On a cluster a command is about one shard.
        together_max, within_s = (1, _NODE_S) if isinstance(redis, ClusterClient) else (CALLS_TOGETHER_MAX, None)
        answers = await asyncio.gather(*(_read(node, together_max, within_s) for node in nodes), return_exceptions=True)
        if not any(isinstance(answer, AskError | TryAgainError) for answer in answers):
            break
    servers: list[Server] = []
    unread = set(missing)
    error: BaseException | None = None
    for node, answer in zip(nodes, answers, strict=True):
        if isinstance(answer, Server):
            servers.append(answer)
        elif isinstance(answer, RedisError | OSError | TimeoutError):
            if isinstance(redis, ClusterClient):
                # A node that hangs is not asked again before it answers: otherwise each admission of another node would
                # wait for it.
                redis.suspect(node.redis, answer)
            error = answer
            unread.update(node.shards)
        else:
            raise answer
    if not servers:
        raise error or NotPlaced("no node of the cluster has a shard")
    if error is not None:
        logger.warning("shards: %d of %d nodes cannot be asked: %s", len(nodes) - len(servers), len(nodes), error)
    return Found(servers, frozenset(unread))


async def _read(node: Node, together_max: int, within_s: float | None) -> Server:
    """Read one server.

    Raises:
        RedisError, OSError, TimeoutError: it cannot be asked; AskError or TryAgainError where one of the shards moves.
    """
    calls: list[Call] = [((cursors_key(shard), lost_key(shard)), ()) for shard in node.shards]
    commands = [beside(calls[at : at + together_max], _FIELDS) for at in range(0, len(calls), together_max)]
    async with asyncio.timeout(within_s):
        try:
            server, replication, *answers = await _asked(node.redis, commands)
        except NoScriptError:
            server, replication, *answers = await _asked(node.redis, commands, with_text=True)
    found: dict[str, ShardCursors] = {}
    for shard, answer in zip(node.shards, chain.from_iterable(answers), strict=True):
        epoch, last, archived, run, stale, items_lost = answer
        place = None if epoch is None or last is None else EntryId(int(epoch), int(last))
        found[shard] = ShardCursors(place, int(archived or 0), stale is not None, (run or b"").decode(), items_lost)
    return Server(node.address, str(server["run_id"]), str(replication.get("master_replid", "")), found)


async def _asked(redis: Redis, commands: Sequence[Call], *, with_text: bool = False) -> list[Any]:
    """Who the server is, and its shards, by one connection: another one may lead to another server by now."""
    pipeline: Any = redis.pipeline(transaction=False)
    pipeline.info("server")
    pipeline.info("replication")
    for keys, arguments in commands:
        if with_text:
            pipeline.eval(_READ_SHARDS.text, len(keys), *keys, *arguments)
        else:
            pipeline.evalsha(_READ_SHARDS.sha, len(keys), *keys, *arguments)
    answers: list[Any] = await pipeline.execute()
    return answers
