"""The scripts on a real Redis, with the clock in a key, for driving them beside the reference rules."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.counting import Count
from api_gateway.engine.bids.scripts import BidScripts
from api_gateway.engine.creation.new_item import NewItem, created_members
from api_gateway.engine.item_scripts import LUA, ScriptLimits, item_keys
from shared import names
from shared.domain.auction import Terms
from shared.domain.lifecycle import MOVED_MAX_US
from shared.domain.voiding import Fate, LogEntry, Row, fate_of
from shared.messages import BidAccepted, BidVoided, Event, decode_event, frame_batch
from shared.redis_layout.accepted_log import decode_entry
from shared.redis_layout.end_moves import MOVE_REQUESTS_KEPT, move_request
from shared.redis_layout.item_hash import ItemState, decode_item, item_fields
from shared.redis_layout.keys import (
    accepted_key,
    cursors_key,
    deadlines_key,
    item_key,
    opened_key,
    outbox_key,
    recent_key,
    rulings_key,
    verdicts_key,
)
from shared.redis_layout.scripts import Script
from shared.redis_layout.verdicts import VerdictLine, parse_verdict
from tests.histories import KeyedBid, end_asked

ITEM = "equal-rules"
SHARD = names.shard_of(ITEM)
NEIGHBOUR = "neighbour"
NEIGHBOURS_SHARD = names.shard_of(NEIGHBOUR)
# Whatever an item may have: terms, a leader, a soft close, a reserve that is met.
_NEIGHBOURS_STATE: Any = {
    **{"id": NEIGHBOUR, "status": "open", "epoch": 7, "seq": 40, "price": 900_000, "leader": "neighbour-9"},
    **{"leader_max": 900_000, "runner_up": 800_000, "bid_count": 30, "bids_counted": 30, "accepted": 30, "voids": 2},
    **{"start_price": 5, "increment_kind": "ladder", "increment_value": 9, "increment_steps": "1000:3", "start_us": 1},
    **{"original_end_us": 2, "reserve_price": 7, "reserve_met": 1, "buy_now_price": 10**12, "seller_id": "sam"},
    **{"currency": "JPY", "soft_trigger_us": 10**13, "soft_extend_us": 10, "soft_mode": "from_end"},
    **{"soft_max_count": 0, "hard_end_us": 10**15, "extensions": 3, "paused_us": "", "updated_us": 1},
    "keeps_verdicts": 1,
}
CLOCK = f"{{{SHARD}}}:clock"
OPERATIONS = ("advance", "pause", "resume", "cancel", "extend")

# The scripts read Redis TIME. Here they read a key instead, so that a history can stand at the very edge of a window.
_TIME = "redis.call('TIME')"
PUBLIC = {
    *("type", "item_id", "epoch", "seq", "ts_us", "current_bid", "highest_bidder_id", "bid_count", "min_next_bid"),
    *("status", "end_us", "reserve_met", "currency", "bid_id", "user_id", "kind", "amount", "previous_bid"),
    *("previous_end_us", "original_end_us", "extensions", "winner_id", "reason", "by"),
    *("voided_seq", "offered_to", "bidder_id", "automatic_until", "previous_bid_count", "request"),
}


def _with_clock(name: str, *libraries: str) -> str:
    text = Script.read(LUA / f"{name}.lua", libraries=libraries).text
    assert text.count(_TIME) == 1
    return text.replace(_TIME, f"redis.call('HMGET', '{CLOCK}', 's', 'us')")


class Engine:
    """The scripts on a real Redis, with the clock in a key."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        place = _with_clock("place_bids", "item", "bidding")
        self._place = redis.register_script(place)
        self._has_neighbours = False
        self._neighbours_bids = 0
        self._moves = 0
        self._open = redis.register_script(_with_clock("open_item"))
        self._void = redis.register_script(_with_clock("void", "item", "bidding", "one_item"))
        self._operations = {name: redis.register_script(_with_clock(name, "item", "one_item")) for name in OPERATIONS}
        self._rule = redis.register_script(_with_clock("rule_on_item", "item", "one_item"))
        copying = Script.read(LUA.parent / "rulings" / "lua" / "copy_ruling.lua")
        self._copy = redis.register_script(copying.text)
        self._command = BidScripts(AsyncRedis(), ScriptLimits(), timeout_s=1)  # it only puts commands together

    def reset(self, item_terms: Terms, now_us: int) -> None:
        for key in self._redis.scan_iter(f"{{{SHARD}}}:*", count=1_000):
            self._redis.delete(key)
        self._redis.hset(cursors_key(SHARD), mapping={"epoch": 1, "next": 0, "published": 0, "archived": 0})
        self.set_clock(now_us)
        keys = [
            item_key(ITEM),
            recent_key(ITEM),
            outbox_key(SHARD),
            cursors_key(SHARD),
            deadlines_key(SHARD),
            opened_key(SHARD),
        ]
        fields = item_fields(item_terms, name="Item", description="")
        flat = [text for pair in fields.items() for text in pair]
        end = "" if item_terms.end_us is None else str(item_terms.end_us)
        members = created_members(NewItem(item_terms, name="Item"))
        answer: Any = self._open(keys=keys, args=[ITEM, "50000", str(item_terms.start_us), end, "", members, "", *flat])
        assert answer[0] == 0, answer
        self._redis.delete(*item_keys(NEIGHBOUR))
        self._redis.hset(cursors_key(NEIGHBOURS_SHARD), mapping={"epoch": 7, "next": 0, "published": 0, "archived": 0})
        self._redis.hset(item_key(NEIGHBOUR), mapping={**_NEIGHBOURS_STATE, "end_us": now_us + 10**12})

    def set_clock(self, now_us: int) -> None:
        self._redis.hset(CLOCK, mapping={"s": now_us // 1_000_000, "us": now_us % 1_000_000})

    def operate(self, name: str) -> bool:
        arguments = [ITEM, "50000", "512", '"because it \\"rains\\", 100 %"', '"op"']
        if name.startswith("extend"):
            self._moves += 1
            return self.extend(*end_asked(name), move_request("op", f"key-{self._moves}", name))[0] == 0
        answer: Any = self._operations[name](keys=item_keys(ITEM), args=arguments)
        assert answer[0] in (0, 4), answer
        return bool(answer[0] == 0)

    def extend(
        self, end_us: int | None, by_us: int | None, request: str = "", kept: int = MOVE_REQUESTS_KEPT
    ) -> list[int]:
        """Move the end. The script's reply, without the status that it may have."""
        asked = ["" if number is None else str(number) for number in (end_us, by_us)]
        head = [ITEM, "50000", "512", '"because it \\"rains\\", 100 %"', '"op"']
        arguments = [*head, *asked, str(MOVED_MAX_US), request, str(kept)]
        answer: Any = self._operations["extend"](keys=item_keys(ITEM), args=arguments)
        assert answer[0] in (0, *range(4, 10)), answer
        return [int(number) for number in answer if number not in (b"cancelled", b"closed", b"sold", b"unsold")]

    def rule(self, user_id: str, ruling: str, limit: int | None = None) -> int:
        """Rule on a bidder of the item. The script's reply."""
        head = [ITEM, "50000", "512", user_id, ruling, "" if limit is None else str(limit)]
        answer: Any = self._rule(keys=item_keys(ITEM), args=[*head, '"because, 100 %"', '"op"', "10000"])
        assert answer[0] in (0, 4), answer
        return int(answer[0])

    def copy_ruling(self, field: str, value: str) -> None:
        """A ruling for all items, as it comes from its home."""
        answer = self._copy(keys=[cursors_key(SHARD), rulings_key(SHARD)], args=[field, value, "0"])
        assert answer == 1, answer

    def void(self, bid_id: str, *, count_up_to: int | None = None) -> bool:
        """Strike a bid; False if not allowed.

        ``count_up_to``: count this many entries of the log as the gateway does it where the log has lost them.
        """
        status = self.void_with(bid_id, [""] if count_up_to is None else self.counted(bid_id, count_up_to))
        if status == 5:  # what came after the place matters for what was counted: count again, as the gateway does
            status = self.void_with(bid_id, self.counted(bid_id, len(self.log())))
        assert status in (0, 4, 7, 8)
        return status == 0

    def void_with(self, bid_id: str, count: list[str]) -> int:
        """Strike a bid; ``count`` are ``ARGV[7..]`` of the script. Its reply."""
        arguments = [ITEM, "50000", "512", '"a mistake"', '"op"', bid_id, *count]
        answer: Any = self._void(keys=item_keys(ITEM), args=arguments)
        return int(answer[0])

    def counted(self, bid_id: str, entries: int) -> list[str]:
        log = self.log()
        struck = next(entry for entry in log if entry.bid.bid_id == bid_id)
        count = Count(self.item().terms, struck)
        for entry in log[:entries]:
            count.add(entry)
        voids: Any = self._redis.hget(item_key(ITEM), "voids")
        return count.arguments(int(voids), self.item().state.epoch)

    def everything(self) -> dict[bytes, bytes]:
        """Every key of the shard, as it is now."""
        keys = [key for key in self._redis.scan_iter(f"{{{SHARD}}}:*", count=1_000) if key != CLOCK.encode()]
        dumps: dict[bytes, Any] = {key: self._redis.dump(key) for key in keys}
        return dumps

    def put_back(self, kept: dict[bytes, bytes], *, epoch: int) -> None:
        """The shard as it was: an older copy of it took over, or it was rebuilt."""
        for key in self.everything():
            self._redis.delete(key)
        for key, dump in kept.items():
            self._redis.restore(key, 0, dump)
        self._redis.hset(cursors_key(SHARD), "epoch", epoch)
        self._redis.hset(item_key(ITEM), "epoch", epoch)

    def log(self) -> list[LogEntry]:
        lines: Any = self._redis.lrange(accepted_key(ITEM), 0, -1)
        return [decode_entry(line) for line in lines]

    def forget(self, entries: int) -> None:
        """Trim the log, as if later bids had pushed these out."""
        self._redis.ltrim(accepted_key(ITEM), entries, -1)

    def kept(self) -> dict[bytes, bytes]:
        """The verdicts of accepted bids, as they are stored."""
        found: Any = self._redis.hgetall(verdicts_key(ITEM))
        return dict(found)

    def deadline(self) -> float | None:
        """When the closer would look at the item next."""
        score: Any = self._redis.zscore(deadlines_key(SHARD), ITEM)
        return None if score is None else float(score)

    def place(self, keyed_bids: tuple[KeyedBid, ...]) -> list[VerdictLine]:
        pending = [
            PendingBid(
                ITEM,
                keyed.bid.user_id,
                keyed.bid.bid_id,
                keyed.bid.amount,
                keyed.bid.maximum,
                keyed.key,
                keyed.key_is_bid_id,
                None,  # type: ignore[arg-type]
            )
            for keyed in keyed_bids
        ]
        # With bids on several items the gateway makes one call of many. In every other call here there is another item
        # before this one and after it: nothing of that one may be left where this one is decided.
        self._has_neighbours = not self._has_neighbours
        calls = [self._neighbours_call(), pending, self._neighbours_call()] if self._has_neighbours else [pending]
        _, _, key_count, *rest = self._command._command(calls)
        answers: Any = self._place(keys=rest[:key_count], args=rest[key_count:])
        assert [len(answer) - 4 for answer in answers] == [len(call) for call in calls]
        answer = answers[len(answers) // 2]
        assert answer[0] == 0
        return [parse_verdict(line) for line in answer[4:]]

    def _neighbours_call(self) -> list[PendingBid]:
        """A bid under a key, with a maximum, on the other item."""
        self._neighbours_bids += 1
        bid_id, amount = f"n-{self._neighbours_bids}", 1_000_000 + 10 * self._neighbours_bids
        user = f"neighbour-{self._neighbours_bids % 3}"
        return [PendingBid(NEIGHBOUR, user, bid_id, amount, amount + 5, bid_id, True, None)]  # type: ignore[arg-type]

    def item(self) -> ItemState:
        fields: Any = self._redis.hgetall(item_key(ITEM))
        return decode_item(fields)

    def messages(self) -> list[bytes]:
        """What the relay would publish: one message per outbox entry."""
        entries: Any = self._redis.xrange(outbox_key(SHARD))
        epoch: Any = self._redis.hget(cursors_key(SHARD), "epoch")
        return [
            frame_batch(SHARD, int(epoch), n, ITEM, fields[b"events"], fields.get(b"sealed"))
            for n, (_, fields) in enumerate(entries, start=1)
        ]

    def events(self) -> list[Event]:
        entries: Any = self._redis.xrange(outbox_key(SHARD))
        found = []
        for number, (entry_id, fields) in enumerate(entries, start=1):
            assert entry_id == b"%d-0" % number, "outbox entries are numbered without a gap"
            for event in json.loads(fields[b"events"]):
                if event["type"] != "created":
                    assert set(event) <= PUBLIC, "an event may carry public members only"
                    found.append(decode_event(json.dumps(event).encode()))
        return found


def rows_of(events: list[Event]) -> dict[str, tuple[Row, Fate | None]]:
    """Every visible bid by its id, and what the voids made of it."""
    rows: dict[str, tuple[Row, Fate | None]] = {}
    for event in events:
        if isinstance(event, BidAccepted):
            row = Row(event.bid_id, event.user_id, event.seq, event.amount, event.kind == "proxy")
            rows[event.bid_id] = (row, None)
        elif isinstance(event, BidVoided):
            for bid_id, (row, fate) in rows.items():
                rows[bid_id] = (row, "voided" if fate == "voided" else fate_of(event, row) or fate)
    return rows
