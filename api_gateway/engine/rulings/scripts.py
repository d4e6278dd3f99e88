"""The scripts that make rulings, copy them, and note how far they are copied; and what is read of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from api_gateway.engine.item_scripts import (
    CONFLICT,
    DUE,
    LUA,
    NO_ITEM,
    OK,
    ScriptLimits,
    is_refused_by_redis,
    item_keys,
    refused_by_script,
)
from api_gateway.engine.rulings.shares import SellersShares
from shared import names
from shared.domain.errors import ItemNotFound, StateConflict, TooManyRulings
from shared.redis_layout.accounts import account_of
from shared.redis_layout.cursors import FIELDS, decode_cursors
from shared.redis_layout.keys import cursors_key, item_key, item_rulings_key, outbox_key, rulings_key, spreading_key
from shared.redis_layout.rulings import (
    ARCHIVED_CURSORS,
    EVERYBODY,
    NEEDS_APPROVAL,
    RULED_BY_SELLER_MAX,
    RULED_MAX,
    RULED_PER_ITEM_MAX,
    HouseRuling,
    ItemRuling,
    bidder_of,
    field_of,
    home_of,
    house_of,
)
from shared.redis_layout.scripts import Call, Script

OnItem = Literal["approve", "unapprove", "block", "unblock", "limit", "unlimit"]
OnAll = Literal["approve", "unapprove", "block", "unblock"]
Settlement = Literal["again", "done", "taken_back", "forgotten"]

_LUA: Final = Path(__file__).parent / "lua"
_TOO_MANY: Final = 9
_COPIED: Final = 1
_LATER: Final = "!"
_ACCOUNT: Final = "$"
_SCANS_PER_PAGE: Final = 20


class Pending(NamedTuple):
    """A ruling that other shards may not have.

    ``value``: None where there is none any more. ``is_archived``: the archive has it. ``is_to_be_forgotten``: it was
    taken back an hour ago.
    """

    field: str
    value: str | None
    is_archived: bool
    is_to_be_forgotten: bool

    @property
    def account(self) -> tuple[str, str] | None:
        """The bidder and the currency, where it is no ruling but an account that all shards have to know."""
        if not self.field.startswith(_ACCOUNT):
            return None
        return account_of(self.field.removeprefix(_ACCOUNT))


class Made(NamedTuple):
    """A ruling for all items; ``entry`` 0 where it was so already, and ``value`` '' where there is none."""

    field: str
    value: str
    entry: int


class Ruled(NamedTuple):
    """The rulings on one bidder, read at one moment of the item's shard.

    ``on_seller``: for all items of the seller who was asked about. ``house_needs``: the house asks for approval.
    ``has_item``: Redis has the item; else ``on_item`` tells nothing.
    """

    on_item: ItemRuling
    on_all: HouseRuling
    on_seller: HouseRuling
    house_needs: bool
    has_item: bool = True


class RulingScripts:
    """One method per script. All of them may be repeated."""

    _on_item: Final = Script.read(LUA / "rule_on_item.lua", libraries=["item", "one_item"])
    _on_all: Final = Script.read(_LUA / "rule_on_all.lua")
    _copy: Final = Script.read(_LUA / "copy_ruling.lua")
    _settle: Final = Script.read(_LUA / "settle_ruling.lua")

    def __init__(
        self,
        redis: Redis,
        limits: ScriptLimits,
        *,
        per_item_max: int = RULED_PER_ITEM_MAX,
        all_max: int = RULED_MAX,
        seller_max: int = RULED_BY_SELLER_MAX,
    ) -> None:
        self._shares = SellersShares(redis, seller_max=seller_max)
        self._redis: Any = redis
        self._limits = limits
        self._per_item_max = per_item_max
        self._all_max = all_max

    async def rule_on_item(
        self, item_id: str, user_id: str, ruling: OnItem, *, limit: int | None = None, reason: str, by: str
    ) -> int:
        """Rule on a bidder of one item; atomic. Returns the outbox entry, 0 where it was so already.

        Raises:
            ItemNotFound, StateConflict, TooManyRulings, ShardLost, OutboxFull: nothing was changed.
            RedisError, OSError, TimeoutError: unknown whether it was done; a repetition is safe.
        """
        arguments = [
            *(item_id, str(self._limits.outbox_entries_max), str(self._limits.recent_events)),
            *(user_id, ruling, "" if limit is None else str(limit), _json(reason), _json(by), str(self._per_item_max)),
        ]
        answer = await self._on_item.run(self._redis, item_keys(item_id), arguments)
        match int(answer[0]):
            case status if status == OK:
                return int(answer[1])
            case status if status == NO_ITEM:
                raise ItemNotFound(item_id)
            case status if status == CONFLICT:
                raise StateConflict(item_id, answer[1].decode(), ruling)
            case status if status == _TOO_MANY:
                raise TooManyRulings(self._per_item_max)
            case status:
                raise refused_by_script(status)

    async def rule_on_all(self, user_id: str, seller_id: str | None, ruling: OnAll, *, reason: str, by: str) -> Made:
        """Rule on a bidder for all items, or for those of a seller, in the bidder's home; atomic there. Copy it then.

        Raises:
            TooManyRulings, ShardLost, OutboxFull: nothing was changed.
            RedisError, OSError, TimeoutError: unknown whether it was done; a repetition is safe.
        """
        shard, field = home_of(user_id), field_of(user_id, seller_id)
        # Sellers together have half of the room: what they rule never keeps the house from blocking somebody.
        most = self._all_max if seller_id is None else self._all_max // 2
        if seller_id is not None and ruling == "block":
            await self._shares.check(shard, field, seller_id)
        keys = [cursors_key(shard), outbox_key(shard), rulings_key(shard), spreading_key(shard)]
        arguments = [
            *(str(self._limits.outbox_entries_max), str(most), house_of(shard), field, user_id),
            *("null" if seller_id is None else _json(seller_id), ruling, _json(reason), _json(by)),
        ]
        answer = await self._on_all.run(self._redis, keys, [*arguments, "0"])
        if int(answer[0]) == OK and not answer[2] and await self._is_elsewhere(field):
            # The home was lost before the archive had the ruling; the copies outlived it.
            answer = await self._on_all.run(self._redis, keys, [*arguments, "1"])
        status = int(answer[0])
        if status == _TOO_MANY:
            raise TooManyRulings(most)
        if status != OK:
            raise refused_by_script(status)
        entry = int(answer[1])
        if seller_id is not None and ruling == "block" and entry:
            self._shares.note(seller_id)
        return Made(field, answer[2].decode(), entry)

    async def _is_elsewhere(self, field: str) -> bool:
        """Whether any shard has a ruling under this field."""
        pipeline = self._redis.pipeline(transaction=False)
        for shard in names.SHARDS:
            pipeline.hexists(rulings_key(shard), field)
        return any(await pipeline.execute())

    async def copy(self, home: str, values: Mapping[str, str], *, forget: bool = False) -> set[str]:
        """Bring these rulings of a home to all other shards. Returns the fields of those that all of them have now.

        Raises:
            RedisError, OSError, TimeoutError: unknown which shards have them; a repetition is safe.
        """
        calls: list[Call] = [
            ([cursors_key(shard), rulings_key(shard)], [field, value, "1" if forget else "0"])
            for field, value in values.items()
            for shard in names.SHARDS
            if shard != home
        ]
        answers = await self._copy.run_each(self._redis, calls)
        missing = {str(call[1][0]) for call, answer in zip(calls, answers, strict=True) if answer != _COPIED}
        return values.keys() - missing

    async def pending(self, shards: Sequence[str], *, count: int) -> dict[str, list[Pending]]:
        """What is to be spread of these shards now, at most ``count`` of each.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        told = await DUE.run_for_few(self._redis, [((spreading_key(shard),), ()) for shard in shards], [count])
        found: dict[str, list[Pending]] = {}
        for at, answer in told.items():
            if isinstance(answer, ResponseError):
                if is_refused_by_redis(answer):
                    raise answer
                continue
            # What is no text is no ruling's field: it has no value, so there is nothing to spread.
            members = [member.decode(errors="backslashreplace") for member in answer]
            found[shards[at]] = await self._read_pending(shards[at], members)
        return found

    async def _read_pending(self, shard: str, members: Sequence[str]) -> list[Pending]:
        fields = [member.removeprefix(_LATER) for member in members]
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(rulings_key(shard), fields)
        pipeline.hmget(cursors_key(shard), FIELDS)
        values, answer = await pipeline.execute()
        cursors = decode_cursors(answer)
        pending: list[Pending] = []
        for member, field, value in zip(members, fields, values, strict=True):
            ruling = HouseRuling.decode(value)
            # A ruling of a former epoch came out of the archive.
            is_archived = cursors.epoch is not None and (ruling.epoch, ruling.n) <= (cursors.epoch, cursors.archived)
            text = None if value is None else value.decode()
            pending.append(Pending(field, text, is_archived, member.startswith(_LATER)))
        return pending

    async def settle(self, shard: str, field: str, value: str, settlement: Settlement) -> None:
        """Note how far a ruling is spread. Raises RedisError, OSError, TimeoutError."""
        await self._settle.run(self._redis, [rulings_key(shard), spreading_key(shard)], [field, value, settlement])

    async def read(self, user_id: str, *, item_id: str | None = None, seller_id: str | None = None) -> Ruled:
        """The rulings on a bidder, at one moment of the shard of the item, or else of the bidder's home.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        shard = home_of(user_id) if item_id is None else names.shard_of(item_id)
        fields = [field_of(user_id), EVERYBODY, field_of(user_id, seller_id or "")]
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hmget(rulings_key(shard), fields)
        if item_id is not None:
            pipeline.exists(item_key(item_id))
            pipeline.hget(item_rulings_key(item_id), user_id)
        (on_all, everybody, on_seller), *of_item = await pipeline.execute()
        has_item, on_item = of_item or (True, None)
        return Ruled(
            ItemRuling.decode(on_item),
            HouseRuling.decode(on_all),
            HouseRuling.decode(on_seller),
            HouseRuling.decode(everybody).approved,
            bool(has_item),
        )

    async def house_needs_approval(self) -> bool:
        """Whether the house asks everybody for approval, as it is known where that is ruled. Raises as :meth:`read`."""
        marks = await cast(Any, self._redis.hget(cursors_key(home_of(EVERYBODY)), "rulings"))
        return NEEDS_APPROVAL in (marks or b"").decode()

    async def page_of_item(self, item_id: str, cursor: int, count: int) -> tuple[dict[str, ItemRuling], int] | None:
        """About ``count`` rulings of an item after a cursor (0: from the first), and the next cursor, 0 after the last.
        None where Redis does not have the item.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.exists(item_key(item_id))
        # The item may have come back since a page of the archive: then begin from the first.
        pipeline.hscan(item_rulings_key(item_id), cursor if cursor < ARCHIVED_CURSORS else 0, count=count)
        is_there, (cursor, found) = await pipeline.execute()
        if not is_there:
            return None
        return {user.decode(): ItemRuling.decode(value) for user, value in found.items()}, int(cursor)

    async def page_of_all(self, seller_id: str | None, cursor: int, count: int) -> tuple[dict[str, HouseRuling], int]:
        """The same for the rulings on all items, or on those of a seller; few or none where others are in between."""
        # Any shard has all of them. A cursor is good for the hash of one.
        key = rulings_key(home_of(EVERYBODY))
        page: dict[str, HouseRuling] = {}
        for _ in range(_SCANS_PER_PAGE):
            cursor, found = await self._redis.hscan(key, cursor, count=count)
            for field, value in found.items():
                user_id, of_seller = bidder_of(field.decode())
                ruling = HouseRuling.decode(value)
                is_one = user_id != EVERYBODY and of_seller == seller_id
                if is_one and (ruling.approved or ruling.blocked):
                    page[user_id] = ruling
            if not cursor or len(page) >= count:
                break
        return page, int(cursor)


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()
