"""An item of a Redis, and bids on it: as the gateway's scripts see them, without a gateway."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any, cast

from redis.asyncio import Redis

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import BidScripts, Decided
from api_gateway.engine.creation.new_item import NewItem, created_members
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.domain.auction import Terms
from shared.domain.increments import Increment
from shared.redis_layout.item_hash import item_fields
from shared.redis_layout.keys import (
    older_refusals_key,
    outbox_key,
    refusals_key,
)

_numbers = itertools.count(1)


@dataclass
class Lot:
    """One item on a Redis of its own, driven by the scripts alone."""

    redis: Redis
    item_id: str
    limits: ScriptLimits = field(default_factory=ScriptLimits)

    def __post_init__(self) -> None:
        self.shard = names.shard_of(self.item_id)
        self.items = ItemScripts(self.redis, self.limits)
        self.shards = ShardScripts(self.redis)
        self._bids = BidScripts(self.redis, self.limits, timeout_s=10)

    async def open(self, **terms: Any) -> None:
        length_us = terms.pop("length_us", None)
        item = Terms(self.item_id, 0, increment=Increment("flat", 1), end_us=length_us, **terms)
        await self.shards.init_shard(self.shard)
        answer = await self.items.open_item(
            self.item_id,
            start_us=None,
            end_us=None,
            length_us=length_us,
            event_members=created_members(NewItem(item, name="Lot")),
            fields=item_fields(item, name="Lot", description=""),
        )
        assert answer.created

    async def call(self, *bids: PendingBid) -> Decided | Exception:
        """One call of the script."""
        try:
            (result,) = await self._bids.place([list(bids)])
        finally:
            await self._bids.close()
        return result

    async def place(self, *bids: PendingBid) -> list[str]:
        result = await self.call(*bids)
        assert isinstance(result, Decided), result
        return [verdict.decode() for verdict in result.verdicts]

    def bid(self, user: str, amount: int, maximum: int | None = None, *, bid_id: str = "", key: str = "") -> PendingBid:
        """``bid_id`` from the body, or ``key`` from the header, or neither."""
        future = PendingVerdict()
        made = bid_id or f"~test-{next(_numbers):x}"
        return PendingBid(self.item_id, user, made, amount, maximum, bid_id or key or None, bool(bid_id), future)

    async def placed(self) -> dict[str, int]:
        """The bids of the outbox and their numbers: those of events, and those that were sealed without one."""
        found: dict[str, int] = {}
        entries: Any = await self.redis.xrange(outbox_key(self.shard))
        for _, fields in entries:
            if fields[b"item"] == self.item_id.encode():
                for event in json.loads(fields[b"events"]) + json.loads(fields.get(b"sealed", b"[]")):
                    found.setdefault(event.get("bid_id"), event["seq"])
        return found

    async def hash(self, key: str) -> dict[bytes, bytes]:
        return cast("dict[bytes, bytes]", await cast(Any, self.redis.hgetall(key)))

    async def refusals_kept(self) -> int:
        kept = 0
        for key in (refusals_key(self.item_id), older_refusals_key(self.item_id)):
            kept += sum(1 for name in await self.hash(key) if name.startswith((b"b:", b"h:", b"u:")))
        return kept


def new_lot(redis: Redis, limits: ScriptLimits | None = None) -> Lot:
    """One that no test has used; it is not open yet."""
    return Lot(redis, f"lot-{next(_numbers)}", limits or ScriptLimits())
