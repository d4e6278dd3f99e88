"""The scripts of bids and accounts on a real Redis with 64 open shards, to be called step by step."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from redis.asyncio import Redis

from api_gateway.engine.accounts.accounts import Accounts
from api_gateway.engine.accounts.scripts import AccountScripts
from api_gateway.engine.accounts.turns import VoidTurns
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.covered_voids import CoveredVoids
from api_gateway.engine.bids.scripts import BidScripts, Decided
from api_gateway.engine.bids.voids import Voids
from api_gateway.engine.creation.new_item import NewItem, created_members
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.domain.auction import Terms
from shared.redis_layout.accounts import Lease, name_of
from shared.redis_layout.item_hash import decode_item, item_fields
from shared.redis_layout.keys import account_key, credit_key, cursors_key, item_key

USD = "USD"
USERS = ("ann", "bob")
ITEMS = ("lot-1", "lot-2", "lot-3", "lot-5", "lot-6")
SHARDS = sorted({names.shard_of(item) for item in ITEMS})
assert len(SHARDS) > 2
TIMEOUT_S = 600
"""A run of hours may be suspended meanwhile."""
WHY = {"reason": "a test", "by": "olga"}


class Copy(NamedTuple):
    """What a replica had at some moment: all keys; and what :meth:`House.stands` told."""

    keys: dict[bytes, bytes]
    stands: list[Any]


class House:
    """The scripts on a real Redis, and what a gateway does with them, step by step."""

    def __init__(self, redis_url: str) -> None:
        self.redis: Any = Redis.from_url(redis_url, protocol=2, socket_timeout=TIMEOUT_S)
        limits = ScriptLimits()
        self.accounts_scripts = AccountScripts(self.redis, limits)
        self.gateways = [Accounts(self.accounts_scripts) for _ in range(2)]
        self.accounts = self.gateways[0]
        self.items = ItemScripts(self.redis, limits)
        nobody: Any = None  # nobody here has so many bids that the archive would be asked
        voids = Voids(self.redis, self.items, nobody)
        self.voids = CoveredVoids(voids, self.accounts.find_credit_at_once, VoidTurns(self.redis))
        self.bids = BidScripts(self.redis, limits, timeout_s=TIMEOUT_S)
        self.numbers = self.runs = 0

    async def begin(self) -> None:
        await self.redis.flushall()
        for shard in names.SHARDS:
            await self.redis.hset(cursors_key(shard), mapping={"epoch": 1, "next": 0, "published": 0, "archived": 0})
        for item in ITEMS:
            terms = Terms(item, 0, buy_now_price=5_000 if item == ITEMS[0] else None)
            await self.items.open_item(
                item,
                start_us=None,
                end_us=None,
                length_us=None,
                event_members=created_members(NewItem(terms, item)),
                fields=item_fields(terms, name=item, description=""),
            )

    async def place(self, item: str, user: str, amount: int | None, maximum: int | None) -> bytes:
        self.numbers += 1
        bid = PendingBid(item, user, f"b-{self.numbers}", amount, maximum, None, False, None)  # type: ignore[arg-type]
        [decided] = await self.bids.place([[bid]])
        assert isinstance(decided, Decided), decided
        return bytes(decided.verdicts[0])

    async def leads(self, user: str) -> int:
        """The sum of the maxima with which the bidder leads."""
        total = 0
        for item in ITEMS:
            state = decode_item(await self.redis.hgetall(item_key(item))).state
            if state.leader == user and not state.status.is_final:
                total += state.leader_max
        return total

    async def stands(self) -> list[Any]:
        """Everything but credit: each item's leader, maximum and status; and which limits there are."""
        found: list[Any] = [await self.redis.hmget(item_key(item), "leader", "leader_max", "status") for item in ITEMS]
        return [*found, *[await self.redis.hget(account_key(user, USD), "generation") for user in USERS]]

    async def copy(self) -> Copy:
        keys = await self.redis.keys("*")
        pipeline = self.redis.pipeline(transaction=True)
        for key in keys:
            pipeline.dump(key)
        return Copy(dict(zip(keys, await pipeline.execute(), strict=True)), await self.stands())

    async def fail_over(self, copy: Copy, shards: Collection[str]) -> None:
        """These shards go on with what the copy has of them, after a gateway has admitted it."""
        tags = tuple(f"{{{shard}}}".encode() for shard in shards)
        pipeline = self.redis.pipeline(transaction=True)
        for key in await self.redis.keys("*"):
            if key.startswith(tags):
                pipeline.delete(key)
        for key, value in copy.keys.items():
            if key.startswith(tags):
                pipeline.restore(key, 0, value)
        await pipeline.execute()
        self.runs += 1
        await ShardScripts(self.redis).admit_shards(dict.fromkeys(shards, (0, 0)), run=f"run-{self.runs}")

    async def rebuild(self, shard: str) -> None:
        """Rebuild the shard as `recover` does: in a new epoch, without a lease."""
        epoch = int(await self.redis.hget(cursors_key(shard), "epoch")) + 1
        for user in USERS:
            name = name_of(user, USD)
            generation = await self.redis.hget(account_key(user, USD), "generation")
            if generation is None:
                continue
            limit = await self.redis.hget(account_key(user, USD), "limit")
            used = 0
            for item in ITEMS:
                if names.shard_of(item) == shard:
                    state = decode_item(await self.redis.hgetall(item_key(item))).state
                    if state.leader == user and not state.status.is_final:
                        used += state.leader_max
                        await self.redis.hset(item_key(item), "charged", f"{user}|{state.leader_max}")
            lease = Lease(0 if limit else None, generation.decode(), 0)
            await self.redis.hset(credit_key(shard), mapping={f"u:{name}": used, f"l:{name}": lease.encode()})
            await self.redis.hdel(credit_key(shard), f"c:{name}")
            await self.redis.hset(cursors_key(shard), "rulings", "S")
        await self.redis.hset(cursors_key(shard), "epoch", epoch)
