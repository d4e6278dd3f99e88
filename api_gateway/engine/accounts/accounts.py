"""Keeps spending limits: opens accounts, and finds credit for bids whose shard has too little."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from redis.exceptions import RedisError

from api_gateway.engine.accounts.counts import Counts
from api_gateway.engine.accounts.scripts import AccountScripts, Raise
from shared import names
from shared.clients.redis import told_of
from shared.crash_points import crash_point
from shared.domain.errors import ShardLost, Unavailable

_ROUNDS: Final = 8
_OPENING_TRIES: Final = 4
AT_ONCE: Final = 8
"""Bids of one gateway for which credit is sought at one time."""
OPENING_S: Final = 25.0


class Spending(NamedTuple):
    """What a bidder may spend in a currency, in minor units; ``limit`` None for any amount. ``committed``: the sum of
    the maxima with which the bidder leads, as it is counted; None where there was never a limit."""

    limit: int | None
    committed: int | None

    @property
    def remaining(self) -> int | None:
        """What is left; None for any amount."""
        return None if self.limit is None else max(0, self.limit - (self.committed or 0))


class Accounts:
    """Several gateways may work on one account at any time: every step is safe by itself."""

    def __init__(self, scripts: AccountScripts) -> None:
        self._scripts = scripts
        self._counts = Counts(scripts.charge_what_is_led)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def open(self, user_id: str, currency: str, *, known: str | None = None) -> None:
        """Tell all shards of the account as it is, count what its bidder leads with, and open it.

        ``known``: the generation that a shard knows, if one was asked: where there is no account, its home lost it.

        Raises:
            ShardLost: a shard is lost or closed.
            Unavailable: it did not come to an end in time; it goes on with the next bid, or by itself.
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        for _ in range(_OPENING_TRIES):
            account = await self._scripts.account(user_id, currency)
            if account is None:
                if known is None:
                    return
                await self._scripts.renew(user_id, currency, "", known)
                continue
            not_counted, later = await self._scripts.begin(user_id, currency, account)
            if later is not None:
                # Another has set a limit since the account was read, or the home lost the ruling that all were told of.
                await self._scripts.renew(user_id, currency, account.generation, later)
                continue
            if account.is_open and not not_counted:
                return
            if account.is_open:
                # If this process dies before this, the marks stay: these shards report nothing, and the next attempt
                # counts again.
                await self._scripts.note(user_id, currency, account.generation, "recount")
                account = await self._scripts.account(user_id, currency) or account
            crash_point("accounts.begun")
            if not_counted:
                await self._counts.charge(user_id, currency)
            await self._scripts.counted(user_id, currency, not_counted)
            crash_point("accounts.charged")
            reports = await self._scripts.collect(user_id, currency, account.generation, names.SHARDS)
            if len(reports) == len(names.SHARDS):
                await self._scripts.take_back(user_id, currency, account.generation, reports, opening=account.counting)
            after = await self._scripts.account(user_id, currency)
            if after is not None and after.is_open and after.generation == account.generation:
                return
        raise Unavailable("the bidder's account is being counted; try again")

    async def look_after(self, user_id: str, currency: str) -> None:
        """Open an account that somebody may have left half-way, until the archive has what set its limit. Raises as
        :meth:`open`."""
        account = await self._scripts.account(user_id, currency)
        if account is None:
            return
        await self.open(user_id, currency)
        # Done, if this pass began after the ruling was archived: a shard that is rebuilt since then has the ruling.
        await self._scripts.note(user_id, currency, account.generation, "done" if account.is_archived else "again")

    async def find_credit(self, item_id: str, user_id: str, currency: str, need: int) -> bool:
        """Get ``need`` more minor units of the bidder's limit into the item's shard. Returns whether it is worth asking
        the shard again: there is credit, or no limit.

        Raises:
            Unavailable: it cannot be told now.
        """
        async with self._turns:
            return await self._found(item_id, user_id, currency, need, is_void=False)

    async def find_credit_at_once(self, item_id: str, user_id: str, currency: str, need: int) -> bool:
        """The same for a void: without waiting for bids that seek credit, and also in a turn of its own
        (:mod:`api_gateway.engine.accounts.turns`), in which they get none. Raises Unavailable."""
        return await self._found(item_id, user_id, currency, need, is_void=True)

    async def _found(self, item_id: str, user_id: str, currency: str, need: int, *, is_void: bool) -> bool:
        try:
            return await self._find_credit(names.shard_of(item_id), user_id, currency, need, is_void=is_void)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis cannot be asked: {told_of(error)}") from error

    async def _find_credit(self, shard: str, user_id: str, currency: str, need: int, *, is_void: bool = False) -> bool:
        others_asked = was_old = was_admitted = False
        for _ in range(_ROUNDS):
            part, is_turn_of_void = await self._scripts.in_shard(user_id, currency, shard)
            if part.epoch is None:
                raise ShardLost("this item is being rebuilt; try again later", retry_after_s=5)
            if part.lease is None or part.lease.granted is None:
                return True
            if is_turn_of_void and not is_void:
                # Asked in each round: who had looked before the void took its turn is in its way once, and no more.
                raise Unavailable("the bidder's account is needed for a bid that is being struck; try again")
            if not part.is_counted:
                await self.open(user_id, currency, known=part.lease.generation)
                continue
            if part.lease.admission != part.admission:
                # Another copy of the shard was admitted: its lease may be one that it has given back.
                await self._scripts.catch_up(user_id, currency, shard, part.lease.generation)
                if not was_admitted:
                    was_admitted = True
                    continue
            answer = await self._scripts.lease(user_id, currency, shard, part, need)
            if isinstance(answer, Raise):
                crash_point("accounts.leased")
                is_raised = await self._scripts.grant(user_id, currency, shard, part, answer)
                if is_raised and answer.by >= need:
                    return True
            elif answer == "lacking":
                if others_asked:
                    return False
                others_asked = True
                await self._ask_others(shard, user_id, currency, part.lease.generation)
            elif answer == "old":
                # Old once: another gateway was faster. Old twice: the shard's node failed over to an older copy.
                if was_old:
                    await self._scripts.catch_up(user_id, currency, shard, part.lease.generation)
                was_old = True
            else:
                await self.open(user_id, currency, known=part.lease.generation)
        raise Unavailable("the bidder's account is busy; try again")

    async def _ask_others(self, shard: str, user_id: str, currency: str, generation: str) -> None:
        """Have all other shards give back what they do not use."""
        others = [each for each in names.SHARDS if each != shard]
        # Also those that have none: the account may still count what they gave back.
        reports = await self._scripts.collect(user_id, currency, generation, others)
        crash_point("accounts.collected")
        if reports:
            await self._scripts.take_back(user_id, currency, generation, reports)

    async def spending(self, user_id: str, currency: str) -> Spending:
        """What the bidder may spend, read shard by shard. Raises RedisError, OSError, TimeoutError."""
        account = await self._scripts.account(user_id, currency)
        if account is None:
            return Spending(None, None)
        parts = await self._scripts.in_shards(user_id, currency, names.SHARDS)
        return Spending(account.limit, sum(part.used for part in parts))
