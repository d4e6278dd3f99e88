"""What the servers hold of an item in the end, read behind the services' back, and the pages of its history."""

from __future__ import annotations

import json
from collections.abc import Awaitable
from decimal import Decimal
from typing import Any, cast

import asyncpg
import httpx2 as httpx
import msgspec
from redis.asyncio import Redis

from shared.domain.auction import State, Terms
from shared.domain.increments import Increment, decode_steps
from shared.domain.soft_close import SoftClose
from shared.names import shard_of, subject_of
from shared.redis_layout.item_hash import decode_item
from shared.redis_layout.keys import cursors_key, item_key
from tests.faults.clients.answers import minor
from tests.faults.rig.history import History, Listed, LogEvent, Public, Row, Sealed
from tests.waiting import eventually

_ROWS = """
SELECT epoch, seq, bid_id, user_id, amount, kind, previous_bid, leader_id, status = 'voided', us_of(placed_at)
FROM bids WHERE item_id = $1
"""
_EVENTS = "SELECT epoch, seq, type, us_of(at), body::text FROM events WHERE item_id = $1"
_SEALED = """
SELECT epoch, n, at, seq, bid_id, user_id, amount, max_amount, key, verdict LIKE 'M|%', us_of(decided_at)
FROM sealed WHERE item_id = $1 AND bid_id IS NOT NULL AND verdict IS NOT NULL
"""
_ITEM = """
SELECT *, us_of(start_at) AS start_us, us_of(original_end_at) AS original_end_us, us_of(end_at) AS end_us
FROM items WHERE item_id = $1
"""
# What arrives after its item was rebuilt without it belongs there. If it was acknowledged, it is missing in `bids`.
_DEAD = "SELECT count(*) FROM dead_letters WHERE subject = $1 AND reason <> 'former_epoch'"
_STORED = """
SELECT (SELECT count(*) FROM bids WHERE item_id = $1) + (SELECT count(*) FROM events WHERE item_id = $1)
"""

_PAGE = 200
_PAGES_WITHIN_S = 20.0


async def is_archived(redis: Redis, postgres: asyncpg.Connection, item_id: str) -> bool:
    """Whether PostgreSQL has as many events of the item as Redis, and all that its shard wanted to tell."""
    seq = await cast("Awaitable[Any]", redis.hget(item_key(item_id), "seq"))
    if seq is not None and await postgres.fetchval(_STORED, item_id) < int(seq) + 1:
        return False
    # A maximum that was raised has no event: it is known by its entry alone.
    newest, archived = await cast(
        "Awaitable[list[Any]]", redis.hmget(cursors_key(shard_of(item_id)), ["next", "archived"])
    )
    return newest is None or archived is None or int(archived) >= int(newest)


async def evidence(redis: Redis, postgres: asyncpg.Connection, gateway: str, item_id: str) -> History:
    """The servers' part of a history; that of the clients is for the caller to add."""
    held = await _redis_state(redis, item_id)
    events = [
        LogEvent(epoch, seq, kind, at_us, json.loads(body))
        for epoch, seq, kind, at_us, body in await postgres.fetch(_EVENTS, item_id)
    ]
    item = await postgres.fetchrow(_ITEM, item_id)
    return History(
        item_id=item_id,
        requests=(),
        rows=[Row(*row) for row in await postgres.fetch(_ROWS, item_id)],
        other_seqs=[event.seq for event in events],
        redis_price=None if held is None else held.price,
        redis_seq=None if held is None else held.seq,
        archived_price=None if item is None else item["current_bid"],
        dead_letters=await postgres.fetchval(_DEAD, subject_of(item_id)),
        terms=None if item is None or item["increment_kind"] is None else _terms(item),
        events=events,
        sealed=[Sealed(*row) for row in await postgres.fetch(_SEALED, item_id)],
        redis_state=held,
        archived=None if item is None else _archived(item),
        listed=await _listed(gateway, item_id),
    )


async def _redis_state(redis: Redis, item_id: str) -> State | None:
    fields = await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(item_key(item_id)))
    return decode_item(fields).state if fields else None


def _terms(item: asyncpg.Record) -> Terms:
    soft_close = item["soft_close"]
    return Terms(
        item_id=item["item_id"],
        start_us=item["start_us"],
        currency=item["currency"],
        seller_id=item["seller_id"],
        start_price=item["start_price"],
        reserve_price=item["reserve_price"],
        buy_now_price=item["buy_now_price"],
        increment=Increment(item["increment_kind"], item["increment_value"], decode_steps(item["increment_steps"])),
        end_us=item["original_end_us"],
        soft_close=msgspec.json.decode(soft_close, type=SoftClose) if soft_close else None,
    )


def _archived(item: asyncpg.Record) -> Public:
    return Public(
        item["current_bid"],
        item["highest_bidder_id"],
        item["bid_count"],
        item["min_next_bid"],
        item["status"],
        item["reserve_met"],
        item["end_us"],
    )


async def _listed(gateway: str, item_id: str) -> list[Listed] | None:
    """All pages of the item's history, None where they cannot be had: the platform may be meant to be unwell then."""

    async def pages() -> list[Listed] | None:
        found: list[Listed] = []
        cursor = ""
        async with httpx.AsyncClient(base_url=gateway, timeout=5) as http:
            while True:
                answer = await http.get(f"/api/v1/items/{item_id}/bids?limit={_PAGE}{cursor}")
                page = json.loads(answer.text, parse_float=Decimal)
                if answer.status_code != 200 or page["partial"]:
                    return None
                found += [
                    Listed(bid["seq"], bid["bid_id"], minor(bid["amount"]), bid["kind"], bid["status"] == "voided")
                    for bid in page["bids"]
                ]
                if page["next_cursor"] is None:
                    return found
                cursor = f"&cursor={page['next_cursor']}"

    found: list[list[Listed]] = []

    async def had() -> bool:
        try:
            listed = await pages()
        except httpx.HTTPError:
            return False
        if listed is not None:
            found.append(listed)
        return listed is not None

    try:
        await eventually(had, seconds=_PAGES_WITHIN_S)
    except TimeoutError:
        return None
    return found[-1]
