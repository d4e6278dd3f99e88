"""Giving shards their cursors, once per shard, and closing those that went back in time.

Every script refuses a shard without cursors. A fresh deployment gets them here; a Redis that was wiped must not,
because its items would start again at zero. The archive and the stream tell the two apart: a shard that one of them has
entries of is not new. They also expose an older copy of Redis: it has not given out yet what they have.

A run of Redis is admitted only after the stream was asked, since only the stream has what was published a moment ago.
Then each shard's cursors are marked with that run's id. So while the stream cannot be asked, an admitted run goes on,
whichever gateway asks. A run that was started or promoted since has another id than the mark in its data, and waits.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.servers import Found, Server, read_servers
from api_gateway.engine.loss.witnesses import Known, Witnesses
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import ClusterClient
from shared.domain.errors import Unavailable
from shared.redis_layout.outbox import EntryId
from shared.supervision import heed_cancellation

logger = logging.getLogger(__name__)

_PAUSE_S = 2.0
_PAUSE_FAILED_S = 0.5
_COMPARE_EVERY_S = 15.0

_NOT_ADMITTED = (
    "Redis was started or replaced, and may be an older copy of what it was; "
    "bids are taken again once NATS, which can tell, is reachable"
)
_BEING_REPLACED = "Redis is being replaced by another one; try again"


@dataclass(slots=True)
class ShardHealth:
    """``missing`` shards have no cursors yet; ``lost`` ones must be rebuilt from the archive, and of these the
    ``stale`` ones are an older copy of what they were.

    ``items_lost``: items that Redis has lost while their shards live, counted once somebody has asked for them.
    ``backlog``: outbox entries that are not known to be archived, over all shards and in the longest one.
    ``not_admitted``: why this run of Redis takes no bids, None where it does; of a cluster, why nodes of it do not.
    ``unread``: shards on nodes of a cluster that did not answer at the last look.
    ``others_are_admitted``: of a cluster, the other nodes do. ``in_doubt``: where those are that do not;
    ``runs_in_doubt``: their runs.
    """

    missing: set[str] = field(default_factory=lambda: set(names.SHARDS))
    lost: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    items_lost: int = 0
    backlog_total: int = 0
    backlog_longest: int = 0
    archive_is_behind: bool = False
    not_admitted: str | None = None
    unread: int = 0
    others_are_admitted: bool = False
    in_doubt: frozenset[Address] = frozenset()
    runs_in_doubt: frozenset[str] = frozenset()

    @property
    def ready(self) -> bool:
        """Whether bids can be taken on every shard."""
        return not self.missing


_NOWHERE = EntryId(0, 0)


class Shards:
    """Watches that every shard has its cursors, and that none is behind what is known of it elsewhere."""

    def __init__(
        self,
        redis: Redis,
        scripts: ShardScripts,
        witnesses: Witnesses,
        lost_items: LostItems,
        *,
        on_initialised: Callable[[], None],
        outbox_alarm_entries: int,
    ) -> None:
        """
        Args:
            redis: a client of one connection (to each node), also used by ``scripts`` and ``lost_items``. It has no
                guard, because the guard asks this object.
            on_initialised: told when shards got their cursors, or another run of Redis.
        """
        self._lost_items = lost_items
        self._outbox_alarm_entries = outbox_alarm_entries
        self._admitted: set[str] = set()
        self._histories: set[tuple[str, str]] = set()
        self._redis = redis
        self._scripts = scripts
        self._witnesses = witnesses
        self._on_initialised = on_initialised
        self._seen: dict[str, EntryId] = {}
        self._compare_at_s = 0.0
        self.health = ShardHealth()

    async def run(self, on_not_admitted: Callable[[], Awaitable[None]]) -> None:
        """Look every few seconds, until cancelled. While a server is away, look again later.

        Args:
            on_not_admitted: awaited when the present run may be an older copy, and nobody can tell yet. No connection
                to it may be used then, not even one that was made before.
        """
        while True:
            pause_s = _PAUSE_S
            # Each step fails for itself. A look fails for as long as a shard is missing and a witness is away;
            # meanwhile another shard may turn out to be an older copy.
            for step in (self.look, self._compare_if_due):
                try:
                    await step()
                except (RedisError, Unavailable, OSError, TimeoutError) as error:
                    heed_cancellation()
                    logger.warning("shards: cannot be checked: %s: %s", type(error).__name__, error)
                    pause_s = _PAUSE_FAILED_S
            if self.health.not_admitted is not None:
                await on_not_admitted()
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))

    async def _compare_if_due(self) -> None:
        if asyncio.get_running_loop().time() >= self._compare_at_s:
            await self.compare()

    def given_out(self, shard: str, epoch: int, n: int) -> None:
        """Note that a script has given out this entry. A Redis that has not is an older copy, even if nobody else knows
        it."""
        place = EntryId(epoch, n)
        if place > self._seen.get(shard, _NOWHERE):
            self._seen[shard] = place

    async def look(self) -> None:
        """Look once: initialise new shards, report lost ones.

        Raises:
            RedisError, Unavailable, OSError: nothing is known; look again.
        """
        look = await self._cursors()
        cursors = look.cursors
        self.health.items_lost = await self._lost_items.review(
            [shard for shard, found in cursors.items() if found.place is not None and found.items_lost]
        )
        missing = {shard for shard, found in cursors.items() if found.place is None}
        self._note_backlog([found.place.n - found.archived for found in cursors.values() if found.place is not None])
        histories = {(server.run, server.history) for server in look.servers}
        if any(server.is_marked_by_others for server in look.servers) or not histories <= self._histories:
            # Another run of Redis, or shards made since it was admitted, or a Redis that was a replica meanwhile.
            self._compare_at_s = 0.0
        self._histories = histories
        # Of shards whose node does not answer, nothing new is known.
        was_missing, was_lost = self.health.missing, self.health.lost & look.unread
        self.health.missing, self.health.unread = set(missing), len(look.unread)
        lost: set[str] = set()
        if missing:
            known = await self._witnesses.shards()
            if not known.is_complete:
                raise Unavailable(f"whether {len(missing)} shards are new or lost is not known before both were asked")
            # While any shard is lost or closed, no missing one may begin anew: it may have had bids that are
            # acknowledged but not archived yet, and others on their way. Recovery rebuilds all of them.
            closed = {shard for shard in missing if cursors[shard].stale}
            lost = missing if missing & known.places.keys() or closed else set()
            if lost - self.health.lost:
                logger.critical(
                    "Redis has lost %d shards; their items take no bids until they are rebuilt",
                    len(lost),
                )
            if look.unread and missing - lost:
                raise Unavailable(f"{len(missing)} shards are new, unless the nodes that do not answer have lost some")
            made = {shard: await self._scripts.init_shard(shard, run=look.run_of(shard)) for shard in missing - lost}
            missing = set(lost)
            if not all(made.values()):
                # Another gateway was faster; or their keys hold something without an epoch, and nobody opens them.
                cursors = {**cursors, **(await self._cursors()).cursors}
                missing |= {shard for shard, is_made in made.items() if not is_made and cursors[shard].place is None}
        if missing or was_missing:
            self._on_initialised()
        self.health.missing = set(missing)
        self.health.lost = lost | was_lost
        self.health.stale = {shard for shard in missing if cursors[shard].stale} | (self.health.stale & was_lost)

    async def compare(self, run: str | None = None) -> None:
        """Close the shards of which more is known elsewhere than this Redis has given out, and admit the others.

        "Elsewhere" is the archive, the stream, and what this process has seen. Of a cluster all nodes that answer are
        compared, each as one Redis.

        Args:
            run: which run of Redis it is about, where the caller has just reached one.

        Raises:
            RedisError, OSError: the cursors cannot be read.
            Unavailable: the stream cannot be asked, and this run of Redis was not admitted before; or Redis is being
                replaced.
        """
        # First what is known, then the cursors. Cursors only rise, so those of a sound Redis have passed what was
        # known.
        known = await self._witnesses.shards(look_back=run is not None)
        found = await self._cursors()
        if run is None and any(server.is_marked_by_others for server in found.servers):
            # This run is about to be admitted. The second look costs more, and finds more.
            known = await self._witnesses.shards(look_back=True)
            found = await self._cursors()
        places = _highest(known.places, self._seen)
        if run is not None and not found.has(run):
            await self._leave()
            raise Unavailable(_BEING_REPLACED, retry_after_s=1)
        doubtful = [server for server in found.servers if not (known.stream_asked or self._was_admitted(server))]
        changed = False
        failed: dict[str, RedisError | OSError | Unavailable] = {}
        for server in found.servers:
            if server not in doubtful:
                try:
                    changed |= await self._compare_server(server, places, is_asked=run in (None, server.run))
                except (RedisError, OSError, Unavailable) as error:
                    # For example, its disk is full, so that it cannot be marked. The other nodes do not wait for that.
                    if len(found.servers) == 1:
                        raise
                    failed[server.run] = error
        self._admitted = {server.run for server in found.servers if server not in doubtful} - failed.keys()
        self.health.not_admitted = _NOT_ADMITTED if doubtful else None
        self.health.others_are_admitted = 0 < len(doubtful) < len(found.servers)
        self.health.in_doubt = frozenset(server.address for server in doubtful)
        self.health.runs_in_doubt = frozenset(server.run for server in doubtful)
        if changed:
            self._on_initialised()
        if any(run in (None, server.run) for server in doubtful):
            raise Unavailable(_NOT_ADMITTED, retry_after_s=2)
        for failed_run, failure in failed.items():
            if run in (None, failed_run):
                raise failure
            logger.warning("shards: a node of the cluster cannot be compared: %s: %s", type(failure).__name__, failure)
        self._note_comparison(known)

    async def _compare_server(self, found: Server, places: Mapping[str, EntryId], *, is_asked: bool) -> bool:
        """Close the shards of one Redis that are behind, and mark the others with its run. Returns whether some were
        marked.

        Args:
            is_asked: the caller wants to know of this one.

        Raises:
            RedisError, OSError: it cannot be asked.
            Unavailable: it is being replaced, and the caller wants to know of it.
        """
        behind: list[str] = []
        unmarked: dict[str, EntryId] = {}
        for shard, cursors in found.open.items():
            place = places.get(shard, _NOWHERE)
            assert cursors.place is not None
            if cursors.place < place and await self._scripts.close_shard(shard, epoch=place.epoch, n=place.n):
                behind.append(f"{shard} at {cursors.place.epoch}:{cursors.place.n}, known {place.epoch}:{place.n}")
            elif cursors.run != found.run:
                unmarked[shard] = place
        if unmarked:
            await self._scripts.admit_shards(unmarked, run=found.run)
        if (behind or unmarked) and is_asked and not (await self._cursors()).has(found.run):
            raise Unavailable(_BEING_REPLACED, retry_after_s=1)
        if behind:
            logger.critical(
                "Redis went back: %d shards are an older copy and are closed until they are rebuilt (%s)",
                len(behind),
                "; ".join(behind[:5]),
            )
        return bool(unmarked)

    async def _leave(self) -> None:
        """Close the connections: the next one reaches what is there now."""
        if not isinstance(self._redis, ClusterClient):
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    def _was_admitted(self, found: Server) -> bool:
        """Whether this run of Redis was admitted before, with the data that it has.

        A mark of another run: the data is a copy of what that run had, at some time. No mark: the shard was made after
        the run was admitted, by somebody who does not know of runs; where no shard has a mark, this process must have
        admitted the run itself.
        """
        if not found.open:
            return True  # nothing that could be given out twice
        is_known = found.run in found.runs or found.run in self._admitted
        return is_known and found.runs <= {found.run, ""}

    def _note_comparison(self, known: Known) -> None:
        """Plan the next comparison: soon, where a witness could not be asked."""
        every_s = _COMPARE_EVERY_S if known.is_complete else _PAUSE_S
        self._compare_at_s = asyncio.get_running_loop().time() + every_s * random.uniform(0.75, 1.25)

    async def _cursors(self) -> Found:
        """The cursors of all shards; what was seen is remembered for as long as this process lives.

        Raises:
            RedisError, OSError, TimeoutError: they cannot be read; of a cluster, those of no node.
        """
        found = await read_servers(self._redis)
        for shard, cursors in found.cursors.items():
            if cursors.place is None:
                self._seen.pop(shard, None)
            elif cursors.place.n > 0:
                self._seen[shard] = max(cursors.place, self._seen.get(shard, cursors.place))
        return found

    def _note_backlog(self, backlogs: list[int]) -> None:
        health = self.health
        health.backlog_total = sum(backlogs)
        health.backlog_longest = max(backlogs, default=0)
        is_behind = health.backlog_longest >= self._outbox_alarm_entries
        if is_behind and not health.archive_is_behind:
            logger.error(
                "the archive is behind: %d entries wait in the longest outbox; bids are refused past the bound",
                health.backlog_longest,
            )
        elif health.archive_is_behind and not is_behind:
            logger.warning("the archive is catching up: %d entries wait in all", health.backlog_total)
        health.archive_is_behind = is_behind


def _highest(*many: Mapping[str, EntryId]) -> dict[str, EntryId]:
    """The highest place of each shard."""
    places: dict[str, EntryId] = {}
    for one in many:
        for shard, place in one.items():
            places[shard] = max(place, places.get(shard, place))
    return places
