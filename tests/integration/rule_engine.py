"""The scripts on a real Redis, with the clock in a key, for driving them beside the reference rules."""

from __future__ import annotations

import json
from typing import Any

from redis import Redis

from api_gateway.engine.batcher import PendingBid
from api_gateway.engine.items import NewItem, created_members
from api_gateway.engine.scripts import BidScripts, Script, ScriptLimits, item_keys
from api_gateway.engine.verdicts import Verdict, parse_verdict
from shared import names
from shared.domain.auction import Status, Terms
from shared.domain.voiding import StandingBid, answers, without
from shared.item_state import ItemState, decode_item, item_fields
from shared.messages import BidAccepted, BidVoided, Event, decode_event, frame_batch
from tests.histories import KeyedBid

ITEM = "equal-rules"
SHARD = names.shard_of(ITEM)
CLOCK = f"{{{SHARD}}}:clock"
OPERATIONS = ("advance", "pause", "resume", "cancel")

# The scripts read Redis TIME. Here they read a key instead, so that a history can stand at the very edge of a window.
_TIME = "redis.call('TIME')"
PUBLIC = {
    *("type", "item_id", "epoch", "seq", "ts_us", "current_bid", "highest_bidder_id", "bid_count", "min_next_bid"),
    *("status", "end_us", "reserve_met", "currency", "bid_id", "user_id", "kind", "amount", "previous_bid"),
    *("previous_end_us", "original_end_us", "extensions", "winner_id", "reason", "by"),
    *("voided_seq", "offered_to"),
}


def _with_clock(name: str, library: str | None = None) -> str:
    text = Script.read(name, library=library).text
    assert text.count(_TIME) == 1
    return text.replace(_TIME, f"redis.call('HMGET', '{CLOCK}', 's', 'us')")


class Engine:
    """The scripts on a real Redis, with the clock in a key."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._place = redis.register_script(_with_clock("place_bids", "item"))
        self._open = redis.register_script(_with_clock("open_item"))
        self._void = redis.register_script(_with_clock("void", "item"))
        self._operations = {name: redis.register_script(_with_clock(name, "item")) for name in OPERATIONS}
        self._command = BidScripts.__new__(BidScripts)
        limits = ScriptLimits()
        self._command._tail = (str(limits.outbox_entries_max), "512", str(limits.verdict_keep_s))

    def reset(self, item_terms: Terms, now_us: int) -> None:
        for key in self._redis.scan_iter(f"{{{SHARD}}}:*", count=1_000):
            self._redis.delete(key)
        self._redis.hset(names.cursors_key(SHARD), mapping={"epoch": 1, "next": 0, "published": 0, "archived": 0})
        self.set_clock(now_us)
        keys = [
            names.item_key(ITEM),
            names.recent_key(ITEM),
            names.outbox_key(SHARD),
            names.cursors_key(SHARD),
            names.deadlines_key(SHARD),
        ]
        fields = item_fields(item_terms, name="Item", description="")
        flat = [text for pair in fields.items() for text in pair]
        end = "" if item_terms.end_us is None else str(item_terms.end_us)
        members = created_members(NewItem(item_terms, name="Item"))
        answer: Any = self._open(keys=keys, args=[ITEM, "50000", str(item_terms.start_us), end, "", members, *flat])
        assert answer[0] == 0, answer

    def set_clock(self, now_us: int) -> None:
        self._redis.hset(CLOCK, mapping={"s": now_us // 1_000_000, "us": now_us % 1_000_000})

    def operate(self, name: str) -> bool:
        arguments = [ITEM, "50000", "512", '"because it \\"rains\\", 100 %"', '"op"']
        answer: Any = self._operations[name](keys=item_keys(ITEM), args=arguments)
        assert answer[0] in (0, 4), answer
        return bool(answer[0] == 0)

    def void(self, bid_id: str) -> bool:
        """Strike a bid as the gateway does, with what remains worked out from the history; False if not allowed."""
        item = self.item()
        standing = standing_bids(self.events())
        if bid_id not in standing or item.state.status is Status.CANCELLED:
            return False
        struck, after = standing[bid_id], without(item.terms, standing.values(), bid_id)
        remains: list[Any] = [after.price, after.leader or "", after.runner_up, after.struck_people]
        struck_bid: list[Any] = [bid_id, struck.seq, struck.user_id]
        arguments = [ITEM, "50000", "512", '"a mistake"', '"op"', item.state.seq, *struck_bid, *remains]
        answer: Any = self._void(keys=item_keys(ITEM), args=arguments)
        assert answer[0] == 0 or answer == [4, b"closing"], answer
        return bool(answer[0] == 0)

    def deadline(self) -> float | None:
        """When the closer would look at the item next."""
        score: Any = self._redis.zscore(names.deadlines_key(SHARD), ITEM)
        return None if score is None else float(score)

    def place(self, keyed_bids: tuple[KeyedBid, ...]) -> list[Verdict]:
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
        _, _, count, *rest = self._command._command("EVALSHA", "", pending)
        answer: Any = self._place(keys=rest[: int(count)], args=rest[int(count) :])
        assert answer[0] == 0
        return [parse_verdict(line) for line in answer[4:]]

    def item(self) -> ItemState:
        fields: Any = self._redis.hgetall(names.item_key(ITEM))
        return decode_item(fields)

    def messages(self) -> list[bytes]:
        """What the relay would publish: one message per outbox entry."""
        entries: Any = self._redis.xrange(names.outbox_key(SHARD))
        epoch: Any = self._redis.hget(names.cursors_key(SHARD), "epoch")
        return [
            frame_batch(SHARD, int(epoch), n, ITEM, fields[b"events"], fields.get(b"sealed"))
            for n, (_, fields) in enumerate(entries, start=1)
        ]

    def events(self) -> list[Event]:
        entries: Any = self._redis.xrange(names.outbox_key(SHARD))
        found = []
        for number, (entry_id, fields) in enumerate(entries, start=1):
            assert entry_id == b"%d-0" % number, "outbox entries are numbered without a gap"
            for event in json.loads(fields[b"events"]):
                if event["type"] != "created":
                    assert set(event) <= PUBLIC, "an event may carry public members only"
                    found.append(decode_event(json.dumps(event).encode()))
        return found


def standing_bids(events: list[Event]) -> dict[str, StandingBid]:
    """The bids that are not struck, by their ids."""
    bids: dict[str, StandingBid] = {}
    for event in events:
        if isinstance(event, BidAccepted):
            leader = event.highest_bidder_id or event.user_id
            is_automatic = event.kind == "proxy"
            bids[event.bid_id] = StandingBid(event.seq, event.bid_id, event.user_id, event.amount, leader, is_automatic)
        elif isinstance(event, BidVoided):
            bids.pop(event.bid_id, None)
            bids.pop(answers(event.bid_id), None)
    return bids
