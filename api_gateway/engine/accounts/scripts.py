"""The scripts on accounts and on leases: each touches one shard's keys, or those of one account."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from uuid import uuid4

import msgspec
from redis.asyncio import Redis

from api_gateway.engine.item_scripts import LUA, NO_ITEM, OK, ScriptLimits, item_keys, refused_by_script
from shared import names
from shared.clients.cluster.search import every_key
from shared.domain.errors import ShardLost, TooManyRulings, Unavailable
from shared.redis_layout.accounts import Lease, entry_of_generation, name_of, number_of_record
from shared.redis_layout.cursors import ask_fields
from shared.redis_layout.keys import account_key, credit_key, cursors_key, outbox_key, spreading_key, turn_key
from shared.redis_layout.outbox import EntryId
from shared.redis_layout.rulings import RULED_MAX, home_of, house_of
from shared.redis_layout.scripts import Call, Script

_LUA: Final = Path(__file__).parent / "lua"
_TOO_MANY: Final = 9
_NOT_COUNTED: Final = 3
_LATER: Final = 4
_LACKING, _OTHER_GENERATION, _COUNTING, _OLD = 1, 4, 5, 6
_KEYS_PER_SCAN: Final = 1_000
_NO_BOUND: Final = str(2**53)
"""The outbox bound for scripts that write nothing to the outbox: it must never refuse them."""


class Account(NamedTuple):
    """An account as it is in its home. ``limit`` in minor units, None for none; ``is_archived``: the ruling that set
    it; ``counting``: the number of its last counting in this generation, and the admission of its home."""

    generation: str
    limit: int | None
    is_open: bool
    is_archived: bool
    counting: str


class InShard(NamedTuple):
    """A bidder's part of a shard. ``epoch``: of the shard, None where that is lost or closed; ``lease`` None where no
    limit was ever set; ``is_counted``: what the bidder led with when the shard was told of the limit. ``admission``: of
    the shard, which a lease that may be used has, too."""

    epoch: int | None
    used: int
    lease: Lease | None
    is_counted: bool
    admission: str


class Raise(NamedTuple):
    """The ``n``-th raise of a shard's lease."""

    n: int
    by: int


NoRaise = Literal["lacking", "other", "counting", "old"]
_NO_RAISE: Final[dict[int, NoRaise]] = {
    _LACKING: "lacking",
    _OTHER_GENERATION: "other",
    _COUNTING: "counting",
    _OLD: "old",
}


class Begun(NamedTuple):
    """``marks``: of each shard that has not counted what the bidder leads with. ``later``: a generation that a shard
    knows, and that is later than the account's."""

    marks: dict[str, str]
    later: str | None


Report = tuple[str, int, int, str]
"""What a shard has told: its name, epoch, n, and what is used of its lease, empty for any amount."""


class AccountScripts:
    """One method per script. All of them may be repeated. They raise RedisError, OSError and TimeoutError where Redis
    cannot be asked."""

    _limit: Final = Script.read(_LUA / "limit_spending.lua")
    _begin: Final = Script.read(_LUA / "begin_credit.lua")
    _counted: Final = Script.read(_LUA / "counted_credit.lua")
    _collect: Final = Script.read(_LUA / "collect_credit.lua")
    _grant: Final = Script.read(_LUA / "grant_credit.lua")
    _lease: Final = Script.read(_LUA / "lease_credit.lua")
    _take_back: Final = Script.read(_LUA / "take_back_credit.lua")
    _recount: Final = Script.read(_LUA / "recount_account.lua")
    _renew: Final = Script.read(_LUA / "renew_account.lua")
    _charge: Final = Script.read(LUA / "charge_item.lua", libraries=["item", "one_item"])

    def __init__(self, redis: Redis, limits: ScriptLimits, *, accounts_max: int = RULED_MAX) -> None:
        self._redis: Any = redis
        self._limits = limits
        self._accounts_max = accounts_max

    async def limit_spending(self, user_id: str, currency: str, limit: int | None, *, reason: str, by: str) -> int:
        """Set a spending limit in minor units, or take it back; atomic in the bidder's home. Returns the outbox
        entry, 0 where it was so already. It is in force when the account is open.

        Raises:
            TooManyRulings, ShardLost, OutboxFull: nothing was changed.
        """
        shard = home_of(user_id)
        keys = [
            *(cursors_key(shard), outbox_key(shard), account_key(user_id, currency), spreading_key(shard)),
            credit_key(shard),
        ]
        arguments = [
            *(str(self._limits.outbox_entries_max), str(self._accounts_max), house_of(shard), user_id, currency),
            *("" if limit is None else str(limit), _json(reason), _json(by)),
        ]
        answer = await self._limit.run(self._redis, keys, arguments)
        status = int(answer[0])
        if status == _TOO_MANY:
            raise TooManyRulings(self._accounts_max)
        if status != OK:
            raise refused_by_script(status)
        return int(answer[1])

    async def account(self, user_id: str, currency: str) -> Account | None:
        """The account, None where no limit was ever set."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(account_key(user_id, currency), ["generation", "limit", "state", "counting"])
        ask_fields(pipeline, home_of(user_id), "epoch", "archived", "admission")
        (generation, limit, state, counting), (epoch, archived, admission) = await pipeline.execute()
        if generation is None:
            return None
        its_entry = entry_of_generation(generation.decode())
        is_archived = epoch is not None and its_entry <= EntryId(int(epoch), int(archived or 0))
        number = f"{(counting or b'0').decode()}|{(admission or b'').decode()}"
        return Account(generation.decode(), int(limit) if limit else None, state == b"open", is_archived, number)

    async def in_shards(self, user_id: str, currency: str, shards: Sequence[str]) -> list[InShard]:
        """A bidder's part of these shards; each of one moment."""
        pipeline = self._redis.pipeline(transaction=False)
        for shard in shards:
            _ask_shard(pipeline, shard, name_of(user_id, currency))
        answers = await pipeline.execute()
        return [_in_shard(*told) for told in zip(answers[::2], answers[1::2], strict=True)]

    async def in_shard(self, user_id: str, currency: str, shard: str) -> tuple[InShard, bool]:
        """A bidder's part of one shard, and whether a void has its turn at the account."""
        pipeline = self._redis.pipeline(transaction=False)
        _ask_shard(pipeline, shard, name_of(user_id, currency))
        pipeline.exists(turn_key(user_id, currency))
        of_bidder, of_shard, turns = await pipeline.execute()
        return _in_shard(of_bidder, of_shard), bool(turns)

    async def begin(self, user_id: str, currency: str, account: Account) -> Begun:
        """Tell all shards of the account's generation. :meth:`counted` takes the marks away, after
        :meth:`charge_what_is_led`.

        Raises:
            ShardLost: one of them is lost or closed.
        """
        arguments = [name_of(user_id, currency), account.generation, "0" if account.limit is None else "1", uuid4().hex]
        calls: list[Call] = [([cursors_key(shard), credit_key(shard)], arguments) for shard in names.SHARDS]
        answers = await self._begin.run_each(self._redis, calls)
        if not all(not isinstance(answer, Exception) and answer[0] in (1, 3, 4) for answer in answers):
            raise ShardLost("an account needs all shards; one is being rebuilt", retry_after_s=5)
        marks = {
            shard: answer[1].decode()
            for shard, answer in zip(names.SHARDS, answers, strict=True)
            if answer[0] == _NOT_COUNTED
        }
        later = [answer[1].decode() for answer in answers if answer[0] == _LATER]
        return Begun(marks, max(later, key=entry_of_generation, default=None))

    async def renew(self, user_id: str, currency: str, generation: str, later: str) -> None:
        """Give the account a generation above one that a shard knows, if it still has this one (empty for no account):
        its home lost the later one."""
        keys = [*_of_account(user_id, currency), spreading_key(home_of(user_id))]
        await self._renew.run(self._redis, keys, [name_of(user_id, currency), generation, later])

    async def counted(self, user_id: str, currency: str, marks: Mapping[str, str]) -> None:
        """Tell these shards that what the bidder led with is counted, since :meth:`begin` gave their marks. One that
        does not learn of it reports nothing."""
        name = name_of(user_id, currency)
        calls: list[Call] = [([credit_key(shard)], [name, mark]) for shard, mark in marks.items()]
        if calls:
            await self._counted.run_each(self._redis, calls)

    async def charge_what_is_led(self, bidders: Collection[tuple[str, str]]) -> int:
        """Count every item that one of these leads, each a user id and a currency, and that is not counted yet. Returns
        how many there were.

        It looks at all keys of Redis, a part at a time: no key says who leads what, since every bid would pay for that.

        Raises:
            Unavailable: an item could not be counted.
        """
        count = 0
        keys: list[bytes] = []
        async for key in every_key(self._redis, "{s??}:item:*", count=_KEYS_PER_SCAN):
            keys.append(key)
            if len(keys) == _KEYS_PER_SCAN:
                count += await self._charge_led(bidders, keys)
                keys.clear()
        return count + await self._charge_led(bidders, keys)

    async def _charge_led(self, bidders: Collection[tuple[str, str]], keys: Sequence[bytes]) -> int:
        led = await self._led_by(bidders, keys)
        calls: list[Call] = [(item_keys(item_id), [item_id, _NO_BOUND, "1"]) for item_id in led]
        if not calls:
            return 0
        for item_id, answer in zip(led, await self._charge.run_each(self._redis, calls), strict=True):
            # Nobody leads an item that is gone. After any other error it is unknown who leads, and the account must not
            # be opened.
            if isinstance(answer, Exception) or int(answer[0]) not in (OK, NO_ITEM):
                raise Unavailable(f"the item {item_id} cannot be counted for its leader now; try again")
        return len(led)

    async def _led_by(self, bidders: Collection[tuple[str, str]], keys: Sequence[bytes]) -> list[str]:
        if not keys:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hmget(key, ["leader", "currency", "id"])
        wanted = {(user_id.encode(), currency.encode()) for user_id, currency in bidders}
        return [item.decode() for leader, its, item in await pipeline.execute() if (leader, its) in wanted]

    async def collect(
        self, user_id: str, currency: str, generation: str, shards: Sequence[str], *, above: int = 0
    ) -> list[Report]:
        """Lower the leases of these shards to what is used, each under its next number, which is above this one. Leaves
        out those that are lost, of another generation, or not counted."""
        arguments = [name_of(user_id, currency), generation, str(above)]
        calls: list[Call] = [([cursors_key(shard), credit_key(shard)], arguments) for shard in shards]
        reports: list[Report] = []
        for shard, answer in zip(shards, await self._collect.run_each(self._redis, calls), strict=True):
            if not isinstance(answer, Exception) and answer[0] == 1:
                reports.append((shard, int(answer[1]), int(answer[2]), answer[3].decode()))
        return reports

    async def catch_up(self, user_id: str, currency: str, shard: str, generation: str) -> None:
        """Number a shard's lease above what the account knows of it, lower it to what is used, and tell the account:
        the shard has forgotten later numbers, and the account would take all that it says for old."""
        record = await self._redis.hget(account_key(user_id, currency), shard)
        known = 0 if record is None else number_of_record(record)
        reports = await self.collect(user_id, currency, generation, [shard], above=known)
        if reports:
            await self.take_back(user_id, currency, generation, reports)

    async def take_back(
        self, user_id: str, currency: str, generation: str, reports: Sequence[Report], *, opening: str = ""
    ) -> bool:
        """Tell the account of lowered leases. ``opening``: the number of the counting, as :meth:`account` gave it
        before they were collected of all shards: that opens the account."""
        arguments = [generation, opening, *(str(part) for report in reports for part in report)]
        return bool(await self._take_back.run(self._redis, _of_account(user_id, currency), arguments))

    async def lease(self, user_id: str, currency: str, shard: str, part: InShard, need: int) -> Raise | NoRaise:
        """Ask the account for more credit in a shard that has told this of itself."""
        assert part.lease is not None
        assert part.lease.granted is not None
        arguments = [
            *(shard, part.lease.generation, str(part.epoch), str(part.lease.n), str(part.lease.granted), str(need)),
            str(part.used),
        ]
        answer = await self._lease.run(self._redis, _of_account(user_id, currency), arguments)
        status = int(answer[0])
        return Raise(int(answer[1]), int(answer[2])) if status == OK else _NO_RAISE[status]

    async def grant(self, user_id: str, currency: str, shard: str, part: InShard, given: Raise) -> bool:
        """Raise the lease of a shard by what the account has given. False where it was raised already, or may not be
        any more."""
        assert part.lease is not None
        keys = [cursors_key(shard), credit_key(shard)]
        arguments = [name_of(user_id, currency), part.lease.generation, str(part.epoch), str(given.n), str(given.by)]
        return bool(await self._grant.run(self._redis, keys, arguments))

    async def note(
        self, user_id: str, currency: str, generation: str, what: Literal["recount", "again", "done"]
    ) -> None:
        """Note what is to be done with an account, if it is of this generation."""
        keys = [account_key(user_id, currency), spreading_key(home_of(user_id))]
        await self._recount.run(self._redis, keys, [name_of(user_id, currency), generation, what])


def _ask_shard(pipeline: Any, shard: str, name: str) -> None:
    pipeline.hmget(credit_key(shard), [f"u:{name}", f"l:{name}", f"c:{name}"])
    ask_fields(pipeline, shard, "epoch", "admission")


def _in_shard(of_bidder: Sequence[bytes | None], of_shard: Sequence[bytes | None]) -> InShard:
    (used, lease, mark), (epoch, admission) = of_bidder, of_shard
    known = None if lease is None else Lease.decode(lease)
    number = None if epoch is None else int(epoch)
    return InShard(number, int(used or 0), known, mark is None, (admission or b"").decode())


def _of_account(user_id: str, currency: str) -> list[str]:
    return [account_key(user_id, currency), cursors_key(home_of(user_id))]


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()
