"""One closed item as Redis and the archive have it, while it leaves, comes back, and is struck; and a gateway that
reads it, whose every question is answered when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from api_gateway.engine.closed.closed_items import ClosedItems
from api_gateway.engine.closed.reads import Reads
from shared.archive_reads.keys import HistoryKey, item_of, parse_key
from shared.archive_reads.origin import encode_state
from shared.domain.auction import State, Status, Terms
from shared.domain.errors import ShardLost
from shared.redis_layout.item_hash import ItemState
from shared.redis_layout.limits import RETURNED_KEEP_S

ITEM = "lot"


def state(seq: int, item_id: str = ITEM) -> bytes:
    """A closed item as the archive tells it after so many events."""
    return encode_state(
        ItemState(
            terms=Terms(item_id=item_id, start_us=0),
            state=State(status=Status.UNSOLD, seq=seq),
            name="a lot",
            description="",
            original_end_us=None,
            created_us=0,
            updated_us=0,
        )
    )


@dataclass
class World:
    """``decided``: the seq of the item's last event; ``archived``: of the last one that PostgreSQL has."""

    now_s: float = 1_000.0
    decided: int = 5
    archived: int = 5
    epoch: int | None = 1
    is_back: bool = False
    struck_s: float = 0.0
    holds: bool = False
    """Whether questions wait for :meth:`let_go`."""
    questions: list[str] = field(default_factory=list)
    """Asked of the archive."""
    _points: list[asyncio.Future[None]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    # What happens

    def strike(self) -> None:
        """A void comes through: the item comes back for it, where it has left."""
        if self.epoch is not None:
            self.is_back = True
            self.decided += 1
            self.struck_s = self.now_s

    def archive(self) -> None:
        self.archived = self.decided

    def leave(self) -> None:
        """The item leaves Redis, if ``evict.lua`` would allow it."""
        if self.archived == self.decided and self.now_s >= self.struck_s + RETURNED_KEEP_S:
            self.is_back = False

    def strike_and_leave(self) -> None:
        """All of it, as fast as it can be."""
        self.strike()
        self.archive()
        self.now_s += RETURNED_KEEP_S
        self.leave()

    def lose(self) -> None:
        """Redis is wiped."""
        self.epoch, self.is_back = None, False

    def recover(self) -> None:
        """The stream is archived, and the item left out of Redis."""
        if self.epoch is None:
            self.archive()
            self.epoch = self._epochs()

    def strike_and_recover(self) -> None:
        """A void, and all of Redis is lost and rebuilt right after it."""
        self.strike()
        self.lose()
        self.recover()

    _last_epoch: int = 1

    def _epochs(self) -> int:
        self._last_epoch += 1
        return self._last_epoch

    # Questions

    @property
    def waiting(self) -> int:
        """Questions that are on their way, or whose answers are."""
        return len(self._points)

    def let_go(self, which: int) -> None:
        """One of the questions is answered, or its answer comes."""
        if self._points:
            self._points.pop(which % len(self._points)).set_result(None)

    async def answered(self, answer: Callable[[], Any]) -> Any:
        """The answer to one question, as of some moment after it was asked and before it is told."""
        await self._point()
        told = answer()
        await self._point()
        return told

    async def _point(self) -> None:
        if self.holds:
            point = asyncio.get_running_loop().create_future()
            self._points.append(point)
            await point


class FakeRedis:
    """What a gateway asks of one shard and one item."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: list[Callable[[], Any]] = []

    def pipeline(self, *, transaction: bool = True) -> FakeRedis:
        return FakeRedis(self._world)

    def hget(self, key: str, field: str) -> None:
        self._asked.append(lambda: None if self._world.epoch is None else b"%d" % self._world.epoch)

    def sismember(self, key: str, item_id: str) -> None:
        self._asked.append(lambda: False)

    def exists(self, key: str) -> None:
        self._asked.append(lambda: int(self._world.is_back))

    async def execute(self) -> list[Any]:
        return cast("list[Any]", await self._world.answered(lambda: [answer() for answer in self._asked]))


class FakeArchive:
    """PostgreSQL, as :class:`shared.archive_reads.origin.ArchiveReads`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def get(self, key: str) -> bytes | None:
        self._world.questions.append(key)
        is_page = isinstance(parse_key(key), HistoryKey)

        def answer() -> bytes | None:
            if item_of(key) == "none":
                return None
            return b"page %d" % self._world.archived if is_page else state(self._world.archived)

        return cast("bytes | None", await self._world.answered(answer))

    async def states(self, item_ids: Sequence[str]) -> dict[str, bytes]:
        self._world.questions.append(",".join(item_ids))
        found = await self._world.answered(
            lambda: {item_id: state(self._world.archived, item_id) for item_id in item_ids if item_id != "none"}
        )
        return cast("dict[str, bytes]", found)


class Gateway:
    """Reads as the routes do: Redis first."""

    def __init__(self, world: World, reads: Reads) -> None:
        self._world = world
        self._redis = FakeRedis(world)
        self.closed = ClosedItems(cast(Any, self._redis), reads.archive, cast(Any, None), on_rebuilt=reads.drop)

    async def _from_redis(self) -> int | None:
        def answer() -> int | None:
            return self._world.decided if self._world.is_back else None

        return cast("int | None", await self._world.answered(answer))

    async def item(self) -> int | None:
        """The seq that is told of the item; None where the reader is told to come again."""
        seq, _ = await self._find()
        return seq

    async def _find(self) -> tuple[int | None, bool]:
        """Likewise, and whether the item has left."""
        seq = await self._from_redis()
        if seq is not None:
            return seq, False
        try:
            found = await self.closed.find(ITEM)
        except ShardLost:
            return None, False
        assert found is not None
        return found.state.seq, True

    async def history(self) -> int | None:
        """The seq of the events that a page of the history shows."""
        seq, has_left = await self._find()
        if not has_left:
            return seq
        page = await self.closed.history(ITEM, cursor=None, limit=50)
        return int(str(page, "ascii").removeprefix("page ")) if page is not None else None

    async def listed(self) -> int | None:
        """The seq that a page of the catalogue shows."""
        seq = await self._from_redis()
        if seq is not None:
            return seq
        found = await self.closed.find_many([ITEM])
        return found[ITEM].state.seq if ITEM in found else None
