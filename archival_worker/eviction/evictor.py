"""Removes closed items from Redis, once they are archived and exported, and their time has come.

Redis holds what can still change; of a closed item the archive has all. Redis notes which closed items it has, by the
outbox entry of their last event (`{sNN}:closed`), so candidates are found without a search, and those whose last entry
is archived are a range. The archive says which of them are exported. What may go is decided inside ``evict.lua``, so
several archivers may do this, at any time, and each may be killed anywhere: nothing is written down before or after.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import asyncpg
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from archival_worker.errors import ArchiveUnavailable
from archival_worker.metrics import Metrics
from archival_worker.store.database import connection_of
from archival_worker.store.queries import load_eviction_queries
from shared import names
from shared.clients.cluster.client import Node, nodes_of
from shared.clients.cluster.pipeline import NodeAway
from shared.crash_points import crash_point
from shared.pacing.backoff import Backoff
from shared.redis_layout.cursors import ask_fields
from shared.redis_layout.keys import (
    closed_key,
    cursors_key,
    deadlines_key,
    keys_of_item,
    lost_key,
    opened_key,
)
from shared.redis_layout.limits import RETURNED_KEEP_S
from shared.redis_layout.scripts import Call, Script

logger = logging.getLogger(__name__)

_LUA: Final = Path(__file__).parent / "lua"
EVICT: Final = Script.read(_LUA / "evict.lua")
FIND_CLOSED: Final = Script.read(_LUA / "find_closed.lua")
NOTE_CLOSED: Final = Script.read(_LUA / "note_closed.lua")

REMOVED, GONE = 1, 0
"""Replies of ``evict.lua`` after which Redis has nothing of the item."""

_FAILING_MAX: Final = 100
_SEARCH_MISSED_S: Final = 60.0
_FINAL: Final = (b"sold", b"unsold", b"cancelled")


@dataclass(frozen=True, slots=True)
class EvictionOptions:
    """Bounds and intervals.

    Attributes:
        keep_s: how long a closed item stays after its last event; below 0 for ever.
        look_every_s: between two looks while nothing leaves.
        page_items: candidates per shard and look, where the ones before them were due.
        first_items: candidates per shard where nothing was due at the last look.
        items_per_call: items that are removed in one round trip.
        rest_s: between two looks while items leave: bids come first.
        search_every_s: how often all items are looked through for closed ones that nobody has noted.
        exports_every_s: how often the archive is asked whether there are any exports, until there are.
        search_keys: keys per step of that search, one step per look.
    """

    keep_s: float = 3_600.0
    look_every_s: float = 2.0
    page_items: int = 100
    first_items: int = 8
    items_per_call: int = 50
    rest_s: float = 0.05
    search_every_s: float = 6 * 3_600.0
    search_keys: int = 1_000
    exports_every_s: float = 5.0


@dataclass(frozen=True, slots=True)
class _Candidate:
    item_id: str
    shard: str
    epoch: str
    was_struck: bool = False
    """True also if the item came back for a void."""


class Evictor:
    """Several may run, in as many processes."""

    def __init__(
        self, pool: asyncpg.Pool, redis: Redis, metrics: Metrics, options: EvictionOptions = EvictionOptions()
    ) -> None:
        self._pool = pool
        self._redis: Any = redis
        self._metrics = metrics
        self._options = options
        self._sql = load_eviction_queries()
        # For each shard where more may be due, how many candidates at the beginning could not go.
        self._passed: dict[str, int] = {}
        self._search_cursor = 0
        # The servers still to be searched, the one at hand first; below, the shards that could not be searched.
        self._to_search: list[Node] = []
        self._missed: set[str] = set()
        self._search_at_s = 0.0
        self._has_exports = False
        self._exports_at_s = 0.0
        # Items that cannot be removed, each with the error. Bounded.
        self._failing: dict[str, str] = {}
        # Keys that are not what they should be, each of which is told once. Bounded.
        self._told: set[str] = set()
        self._closed_of: dict[str, int] = {}
        self.closed_in_redis = 0
        """Closed items that Redis had at the last look; of a node that is away, at the one before."""

    @property
    def alarms(self) -> dict[str, str]:
        """What an operator must look at."""
        if not self._failing:
            return {}
        item_id, error = next(iter(self._failing.items()))
        return {"eviction": f"{len(self._failing)} closed items cannot be removed from Redis, say {item_id}: {error}"}

    async def run(self) -> None:
        """Look until cancelled; while a server is away, look again later."""
        if self._options.keep_s < 0:
            logger.info("CLOSED_KEEP_S is below 0: closed items stay in Redis")
            return
        backoff = Backoff(most_s=30.0)
        while True:
            try:
                evicted = await self.look()
                is_searching = await self._search()
                backoff.succeeded()
            except (RedisError, OSError, TimeoutError, ArchiveUnavailable) as error:
                self._metrics.failures_by["eviction"] += 1
                logger.warning("closed items stay in Redis for now: %s: %s", type(error).__name__, error)
                await asyncio.sleep(backoff.failed())
                continue
            await asyncio.sleep(self._options.rest_s if evicted or is_searching else self._options.look_every_s)

    async def look(self) -> int:
        """Look over all shards once. Returns how many items have left.

        Raises:
            RedisError, OSError, TimeoutError, ArchiveUnavailable: a server cannot be asked now; some may have left.
        """
        await self._forget_removed()
        pages = await self._pages()
        if not pages or not await self._exports_exist():
            return 0
        due = await self._due(pages)
        seqs = await self._exported(due)
        if seqs:
            crash_point("evict.asked")
        chosen = [candidate for candidate in due if candidate.item_id in seqs]
        left: set[str] = set()
        for at in range(0, len(chosen), self._options.items_per_call):
            left |= await self._evict(chosen[at : at + self._options.items_per_call], seqs)
            crash_point("evict.removed")
        self._go_on(pages, due, left)
        if left:
            self._metrics.evicted += len(left)
            self.closed_in_redis = max(0, self.closed_in_redis - len(left))
            logger.info("%d closed items have left Redis, which has %d more", len(left), self.closed_in_redis)
        return len(left)

    async def _pages(self) -> dict[str, list[_Candidate]]:
        """By shard, the next candidates: closed items whose last entry is archived, as far as Redis knows."""
        shards = await self._with_closed_items()
        if not shards:
            self.closed_in_redis = 0
            return {}
        pipeline = self._redis.pipeline(transaction=False)
        for shard in shards:
            ask_fields(pipeline, shard, "epoch", "archived")
            pipeline.zcard(closed_key(shard))
        keys = [key for shard in shards for key in (cursors_key(shard), closed_key(shard))]
        answers = self._there(keys, await pipeline.execute(raise_on_error=False))
        epochs: dict[str, str] = {}
        pipeline = self._redis.pipeline(transaction=False)
        for shard, cursors, count in zip(shards, answers[::2], answers[1::2], strict=True):
            if cursors is None or count is None:
                continue  # its node is away, or it is damaged; the others go on
            self._closed_of[shard] = count
            epoch, archived = cursors
            text = None if epoch is None else self._text(epoch, cursors_key(shard))
            if count and text is not None:
                epochs[shard] = text
                pipeline.zrangebyscore(
                    closed_key(shard),
                    "-inf",
                    archived or b"0",
                    start=self._passed.get(shard, 0),
                    num=self._page_of(shard),
                )
        self.closed_in_redis = sum(self._closed_of.values())
        keys = [closed_key(shard) for shard in epochs]
        pages = self._there(keys, await pipeline.execute(raise_on_error=False)) if epochs else []
        return {
            shard: [
                _Candidate(item_id, shard, epoch)
                for item_id in (self._text(member, closed_key(shard)) for member in page)
                if item_id is not None
            ]
            for (shard, epoch), page in zip(epochs.items(), pages, strict=True)
            if page is not None
        }

    async def _with_closed_items(self) -> list[str]:
        """The shards that have some, and those that cannot be asked."""
        told = await FIND_CLOSED.run_for_few(self._redis, [((closed_key(shard),), ()) for shard in names.SHARDS])
        shards = [names.SHARDS[at] for at in sorted(told)]
        self._closed_of = {shard: self._closed_of.get(shard, 0) for shard in shards}
        self._passed = {shard: count for shard, count in self._passed.items() if shard in shards}
        return shards

    def _there(self, keys: Sequence[str], answers: Sequence[Any]) -> list[Any]:
        """These answers, None in the place of those whose node is away, or whose key is not what it should be.

        Raises:
            Exception: the first of another kind among them.
        """
        found: list[Any] = []
        for key, answer in zip(keys, answers, strict=True):
            if type(answer) is ResponseError:
                self._pass_over(key, answer)
            elif isinstance(answer, Exception) and not isinstance(answer, NodeAway):
                raise answer
            found.append(None if isinstance(answer, Exception) else answer)
        return found

    async def _exports_exist(self) -> bool:
        """Whether anything was ever exported. If not, nothing can leave, and a look need not ask for items."""
        now_s = asyncio.get_running_loop().time()
        if not self._has_exports and now_s >= self._exports_at_s:
            self._exports_at_s = now_s + self._options.exports_every_s
            async with connection_of(self._pool) as connection:
                self._has_exports = await connection.fetchval(self._sql.has_exports)
        return self._has_exports

    def _page_of(self, shard: str) -> int:
        """How many candidates to ask for. Few while nothing is due, so that a look at many items costs Redis little."""
        return self._options.page_items if shard in self._passed else self._options.first_items

    async def _due(self, pages: Mapping[str, list[_Candidate]]) -> list[_Candidate]:
        """Candidates whose time has come: the archive need not be asked about the others. The script checks again."""
        candidates = [candidate for page in pages.values() for candidate in page]
        if not candidates:
            return []
        now_us = await self._clocks({candidate.shard for candidate in candidates})
        candidates = [candidate for candidate in candidates if candidate.shard in now_us]
        pipeline = self._redis.pipeline(transaction=False)
        for candidate in candidates:
            pipeline.hmget(keys_of_item(candidate.item_id)[0], ["updated_us", "returned_us"])
        # Of a key that is no hash the answer is an error; the script says so.
        instants = await pipeline.execute(raise_on_error=False)
        return [
            replace(candidate, was_struck=_instant(answer, 1) > 0)
            for candidate, answer in zip(candidates, instants, strict=True)
            if not isinstance(answer, NodeAway)
            and _instant(answer, 0) + self._options.keep_s * 1_000_000 <= now_us[candidate.shard]
            and _instant(answer, 1) + RETURNED_KEEP_S * 1_000_000 <= now_us[candidate.shard]
        ]

    async def _clocks(self, shards: Collection[str]) -> dict[str, int]:
        """The time of the node that has each shard, in microseconds; without those whose node does not answer.

        Raises:
            RedisError, OSError, TimeoutError: none does.
        """
        nodes, _ = await nodes_of(self._redis, sorted(shards))
        answers = await asyncio.gather(*(node.redis.time() for node in nodes), return_exceptions=True)
        found: dict[str, int] = {}
        for node, answer in zip(nodes, answers, strict=True):
            if not isinstance(answer, BaseException):
                found.update(dict.fromkeys(node.shards, answer[0] * 1_000_000 + answer[1]))
        error = next((answer for answer in answers if isinstance(answer, BaseException)), None)
        if error is not None and not found:
            raise error
        return found

    async def _exported(self, due: Sequence[_Candidate]) -> dict[str, int]:
        """Candidates that are exported in their present state, each with the seq of its last event."""
        if not due:
            return {}
        item_ids = [candidate.item_id for candidate in due]
        struck = [candidate.item_id for candidate in due if candidate.was_struck]
        async with connection_of(self._pool) as connection:
            rows = await connection.fetch(self._sql.read_exported, item_ids, struck, RETURNED_KEEP_S)
        return {row["item_id"]: row["seq"] for row in rows}

    async def _evict(self, candidates: Collection[_Candidate], seqs: Mapping[str, int]) -> set[str]:
        """Remove these, in one round trip. Returns the ids of those that were removed now."""
        calls: list[Call] = [
            (
                [
                    cursors_key(candidate.shard),
                    closed_key(candidate.shard),
                    deadlines_key(candidate.shard),
                    opened_key(candidate.shard),
                    lost_key(candidate.shard),
                    *keys_of_item(candidate.item_id),
                ],
                [
                    candidate.item_id,
                    candidate.epoch,
                    seqs[candidate.item_id],
                    self._options.keep_s,
                    int(candidate.was_struck),
                ],
            )
            for candidate in candidates
        ]
        left: set[str] = set()
        for candidate, reply in zip(candidates, await EVICT.run_each(self._redis, calls), strict=True):
            if isinstance(reply, NodeAway):
                continue  # whether the item has left is seen at another look
            if type(reply) is ResponseError:
                self._failed(candidate.item_id, reply)
                continue
            if isinstance(reply, Exception):
                raise reply
            self._failing.pop(candidate.item_id, None)
            if reply == REMOVED:
                left.add(candidate.item_id)
        return left

    def _failed(self, item_id: str, error: ResponseError) -> None:
        """The script cannot read what Redis has of the item: the others go on."""
        self._metrics.failures_by["eviction"] += 1
        if item_id not in self._failing:
            logger.error("item %s cannot be removed from Redis: %s", item_id, error)
        if len(self._failing) < _FAILING_MAX:
            self._failing[item_id] = str(error)

    async def _forget_removed(self) -> None:
        """Forget the failures of items that another archiver has removed since: this one sees them no more."""
        failing = list(self._failing)
        if not failing:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for item_id in failing:
            pipeline.zscore(closed_key(names.shard_of(item_id)), item_id)
        for item_id, entry in zip(failing, await pipeline.execute(raise_on_error=False), strict=True):
            if entry is None:
                self._failing.pop(item_id, None)

    def _go_on(self, pages: Mapping[str, list[_Candidate]], due: Collection[_Candidate], left: Collection[str]) -> None:
        """Where each shard's next page begins: behind the items that could not go, say because their export fails. Once
        a page has items whose time has not come, or is the last one, it begins anew: those behind them are younger."""
        were_due = {candidate.item_id for candidate in due}
        for shard, page in pages.items():
            if len(page) < self._page_of(shard) or not were_due.issuperset(each.item_id for each in page):
                self._passed.pop(shard, None)
            else:
                stay = sum(candidate.item_id not in left for candidate in page)
                self._passed[shard] = self._passed.get(shard, 0) + stay

    async def _search(self) -> bool:
        """One step of the search for closed items that gateways of an older version did not note. Returns whether there
        is more to search.

        A node that cannot be asked is searched a minute later."""
        now_s = asyncio.get_running_loop().time()
        if not self._to_search:
            if now_s < self._search_at_s:
                return False
            nodes, missing = await nodes_of(self._redis, sorted(self._missed) or names.SHARDS, fresh=True)
            self._to_search, self._search_cursor, self._missed = nodes, 0, set(missing)
        if self._to_search:
            await self._search_a_page(self._to_search[0])
        if not self._to_search:
            wait_s = (
                min(_SEARCH_MISSED_S, self._options.search_every_s) if self._missed else self._options.search_every_s
            )
            self._search_at_s = now_s + wait_s
        return bool(self._to_search)

    async def _search_a_page(self, node: Node) -> None:
        try:
            self._search_cursor, keys = cast(
                "tuple[int, list[bytes]]",
                await cast(Any, node.redis).scan(
                    self._search_cursor, match="{s??}:item:*", count=self._options.search_keys
                ),
            )
            if keys:
                await self._note_closed(keys)
        except (RedisError, OSError, TimeoutError) as error:
            # The node may have left the cluster, or be away: the next search begins with the nodes of that moment.
            logger.info("closed items that nobody noted: %d shards cannot be searched: %s", len(node.shards), error)
            self._missed.update(node.shards)
            self._search_cursor = 0
        if not self._search_cursor:
            self._to_search.pop(0)

    async def _note_closed(self, keys: Sequence[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(key, "status")
        statuses = self._readable(keys, await pipeline.execute(raise_on_error=False))
        closed = [key for key, status in statuses.items() if status in _FINAL]
        calls: list[Call] = []
        noted: list[bytes] = []
        for key in closed:
            item_id = self._text(key.split(b":item:", 1)[1], "an item's key")
            if item_id is None:
                continue
            noted.append(key)
            shard = names.shard_of(item_id)
            calls.append(([cursors_key(shard), closed_key(shard), key], [item_id]))
        if calls:
            self._readable(noted, await NOTE_CLOSED.run_each(self._redis, calls))

    def _readable(self, keys: Sequence[bytes], answers: Sequence[Any]) -> dict[bytes, Any]:
        """The answers by key, without those of keys that are not what they should be: these are told, and the search
        goes on.

        Raises:
            RedisError, OSError, TimeoutError: the node of one of them cannot be asked.
        """
        found: dict[bytes, Any] = {}
        for key, answer in zip(keys, answers, strict=True):
            if type(answer) is ResponseError:
                self._pass_over(key.decode(errors="backslashreplace"), answer)
            elif isinstance(answer, Exception):
                raise answer
            else:
                found[key] = answer
        return found

    def _text(self, told: bytes, key: str) -> str | None:
        """What Redis has told of this key, as a text; None if it is none."""
        try:
            return told.decode()
        except UnicodeDecodeError as error:
            self._pass_over(key, error)
            return None

    def _pass_over(self, key: str, error: ResponseError | UnicodeDecodeError) -> None:
        """A look or the search goes on without this key."""
        self._metrics.failures_by["eviction"] += 1
        if key not in self._told and len(self._told) < _FAILING_MAX:
            self._told.add(key)
            logger.error("%s is not what it should be, so closed items that need it stay in Redis: %s", key, error)


def _instant(answer: Any, place: int) -> int:
    """An instant in microseconds, from an answer to HMGET; 0 if there is none."""
    try:
        return int(answer[place] or 0)
    except (TypeError, ValueError):
        return 0
