"""Reads the rows from which items are rebuilt (:mod:`shared.archive_reads.rebuild`), for a whole shard or for one item.

Everything here holds hidden maxima. It goes into Redis, and never into anything that is shown.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from shared.archive_reads.items import Row, Turns
from shared.archive_reads.rebuild import Hidden, Rebuilt, maxima_after, maxima_of, rebuild, terms_or_default
from shared.archive_reads.statements import statements
from shared.archive_reads.verdicts import Answered, answered, sealed_answer
from shared.domain.auction import Terms
from shared.redis_layout.end_moves import MOVE_REQUESTS_KEPT
from shared.redis_layout.limits import ACCEPTED_KEPT, RECENT_EVENTS, VERDICT_KEEP_S

Connection = Any
"""A connection of asyncpg, in a transaction that sees one moment."""

_SQL: Final = statements("rebuild")
_ROWS_PER_STEP: Final = 1_000
"""An item may have hundreds of thousands of bidders, so they are read in steps, and other tasks run between two steps.
"""


class Read(NamedTuple):
    """Items, and the terms of each; default terms where they are not archived."""

    items: list[Rebuilt]
    terms: dict[str, Terms]


async def read_items(connection: Connection, item_ids: Sequence[str], epoch: int) -> Read:
    """The items as Redis must have them in this epoch of their shard, without their verdicts."""
    rows = {row["item_id"]: row for row in await connection.fetch(_SQL["read_items"], item_ids)}
    turns = {
        row["item_id"]: Turns(
            row["extensions"], row["shift_us"], row["paused_us"], row["moved_us"], tuple(row["requests"])
        )
        for row in await connection.fetch(_SQL["read_turns"], item_ids, MOVE_REQUESTS_KEPT)
    }
    log = _by_item(await connection.fetch(_SQL["read_log"], item_ids, RECENT_EVENTS))
    hidden = await _read_hidden(connection, item_ids)
    bidders: defaultdict[str, dict[str, int]] = defaultdict(dict)
    async for bidder in _stream(connection, "read_bidders", item_ids):
        bidders[bidder["item_id"]][bidder["user_id"]] = bidder["bids"]
    accepted = _by_item(await connection.fetch(_SQL["read_accepted"], item_ids, ACCEPTED_KEPT))
    rulings: defaultdict[str, list[Row]] = defaultdict(list)
    async for ruling in _stream(connection, "read_rulings", item_ids):
        rulings[ruling["item_id"]].append(ruling)
    items = [
        rebuild(
            row,
            turns[item],
            log[item],
            epoch,
            hidden=hidden[item],
            bidders=bidders[item],
            accepted=accepted[item],
            rulings=rulings[item],
        )
        for item, row in rows.items()
    ]
    # Items that come back without their terms get verdicts, too: their bid ids are taken.
    return Read(items, {item: terms_or_default(row)[0] for item, row in rows.items()})


async def read_verdicts(
    connection: Connection, item_ids: Sequence[str], terms: Mapping[str, Terms]
) -> AsyncIterator[Answered]:
    """The verdicts that must be kept, in the order in which they take their fields."""
    previous: Row | None = None
    keep_us = VERDICT_KEEP_S * 1_000_000
    async for bid in _and_none(_stream(connection, "read_answered_bids", item_ids, keep_us)):
        # A verdict depends on the bid and on the one after it.
        if previous is not None:
            found = answered(previous, bid, terms[previous["item_id"]])
            if found is not None:
                yield found
        previous = bid
    async for fact in _stream(connection, "read_sealed_answers", item_ids, keep_us):
        yield sealed_answer(fact)


def _stream(connection: Connection, query: str, *arguments: Any) -> AsyncIterator[Row]:
    return cast("AsyncIterator[Row]", connection.cursor(_SQL[query].rstrip(";"), *arguments, prefetch=_ROWS_PER_STEP))


async def _read_hidden(connection: Connection, item_ids: Sequence[str]) -> dict[str, Hidden]:
    """What no event tells: each item's newest sealed fact, and the plain bids since replayed on it."""
    facts = await connection.fetch(_SQL["read_standing"], item_ids)
    standing = {fact["item_id"]: maxima_of(fact) for fact in facts}
    places = [[fact[name] for fact in facts] for name in ("item_id", "epoch", "seq")]
    async for bid in _stream(connection, "read_bids_after", *places):
        item_id = bid["item_id"]
        standing[item_id] = maxima_after(standing[item_id], bid)
    maxima: defaultdict[str, dict[str, int]] = defaultdict(dict)
    async for row in _stream(connection, "read_maxima", item_ids):
        maxima[row["item_id"]][row["user_id"]] = row["max_amount"]
    return {item: Hidden(standing.get(item), maxima[item]) for item in item_ids}


def _by_item(rows: Sequence[Row]) -> defaultdict[str, list[Row]]:
    """Rows that are sorted by item, grouped."""
    groups = itertools.groupby(rows, key=lambda row: cast(str, row["item_id"]))
    return defaultdict(list, {item: list(group) for item, group in groups})


async def _and_none(rows: AsyncIterator[Row]) -> AsyncIterator[Row | None]:
    async for row in rows:
        yield row
    yield None
