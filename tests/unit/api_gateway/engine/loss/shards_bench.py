"""The shards of a Redis, and what is known of them elsewhere, without a network: all as a test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.shards import Shards
from api_gateway.engine.loss.witnesses import Known, Witnesses
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.redis_layout.keys import cursors_key
from shared.redis_layout.outbox import EntryId


class FakeRedis:
    """The cursors of all shards, as a pipeline finds them, and that none has lost an item; also that pipeline, and the
    pool."""

    def __init__(self) -> None:
        self.run, self.history = "a", "h"
        self.places: dict[str, EntryId | None] = {shard: EntryId(1, 0) for shard in names.SHARDS}
        self.marks = dict.fromkeys(names.SHARDS, "a")
        self.archived: dict[str, int] = {}
        self.stale: set[str] = set()
        self.disconnected = 0
        self._asked: list[tuple[Sequence[str], Sequence[str]]] = []

    @property
    def connection_pool(self) -> FakeRedis:
        return self

    async def disconnect(self, *, inuse_connections: bool) -> None:
        self.disconnected += 1

    def pipeline(self, *, transaction: bool) -> FakeRedis:
        self._asked.clear()
        return self

    def info(self, section: str) -> None:
        return

    def evalsha(self, sha: str, key_count: int, *told: str) -> None:
        """Asks for fields of cursors, whose keys each stand before the key of what the shard has lost."""
        self._asked.append((told[:key_count:2], told[key_count:]))

    async def execute(self) -> list[Any]:
        def cursors(shard: str, wanted: Sequence[str]) -> list[Any]:
            place = self.places[shard]
            fields: dict[str, bytes] = {}
            if place is not None:
                fields = {"epoch": b"%d" % place.epoch, "next": b"%d" % place.n}
                fields["archived"] = b"%d" % self.archived.get(shard, 0)
                fields |= {"run": self.marks[shard].encode()} if self.marks[shard] else {}
            elif shard in self.stale:
                fields = {"stale": b"1"}
            return [*map(fields.get, wanted), 0]

        shards = {cursors_key(shard): shard for shard in self.places}
        answers = [[cursors(shards[key], wanted) for key in keys] for keys, wanted in self._asked]
        return [{"run_id": self.run}, {"master_replid": self.history}, *answers]


class FakeScripts:
    """Notes what is closed, made and admitted; ``moves`` happens before each."""

    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self.closed: dict[str, EntryId] = {}
        self.made: list[str] = []
        self.has_left_overs: set[str] = set()
        self.moves: Callable[[], None] = lambda: None

    async def close_shard(self, shard: str, *, epoch: int, n: int) -> bool:
        self.moves()
        self.closed[shard] = EntryId(epoch, n)
        return True

    async def admit_shards(self, places: Mapping[str, EntryId], *, run: str) -> None:
        self.moves()
        for shard in places:
            self._redis.marks[shard] = run

    async def init_shard(self, shard: str, *, run: str) -> bool:
        if shard in self.has_left_overs | self._redis.stale:
            return False
        self.made.append(shard)
        self._redis.places[shard] = EntryId(1, 0)
        return True


class FakePast:
    """What a test wants to be known."""

    def __init__(self) -> None:
        self.known = Known({}, archive_asked=True, stream_asked=True)
        self.looks_back: list[bool] = []
        self.on_look_back: Callable[[], None] = lambda: None

    async def shards(self, *, look_back: bool = False) -> Known:
        self.looks_back.append(look_back)
        if look_back:
            self.on_look_back()
        return self.known


class Bench:
    def __init__(self) -> None:
        self.redis, self.past = FakeRedis(), FakePast()
        self.scripts = FakeScripts(self.redis)
        self.initialised = 0
        self.shards = Shards(
            cast(Any, self.redis),
            cast(ShardScripts, self.scripts),
            cast(Witnesses, self.past),
            LostItems(cast(Any, self.redis)),
            on_initialised=self._note,
            outbox_alarm_entries=10,
        )

    def _note(self) -> None:
        self.initialised += 1

    def knows(self, places: dict[str, EntryId] | None = None, *, archive: bool, stream: bool) -> None:
        self.past.known = Known(places or {}, archive_asked=archive, stream_asked=stream)
