"""The origin of closed items: answers keys out of PostgreSQL. Caches stand before it, or nothing does.

What it answers is what the gateway answers while Redis has the item: the same members, the same values, the same bytes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from shared import names
from shared.archive_reads.asking import Asking, Fetch
from shared.archive_reads.catalogue import catalogue_page
from shared.archive_reads.history import archived_bids, cut, parse_cursor, public_history
from shared.archive_reads.items import closed_item, without_reserve
from shared.archive_reads.keys import CatalogueKey, HistoryKey, ItemKey, parse_key
from shared.archive_reads.retired import encode_retired, retired_item
from shared.archive_reads.statements import statements
from shared.domain.errors import TermsInvalid
from shared.redis_layout.item_hash import ItemState, public_item

logger = logging.getLogger(__name__)

_SQL: Final = statements("closed")
_state_decoder: Final = msgspec.json.Decoder(ItemState)


class ClosedReads(Protocol):
    """Answers keys (:mod:`shared.archive_reads.keys`). Reads only, so a question may be repeated.

    An answer may be older than the newest void of the item, by as long as the archive lags and a cache keeps it. Ask
    Redis first where that matters: what Redis has is newer.
    """

    async def get(self, key: str) -> bytes | None:
        """JSON; None where there is no such closed item. A page of the catalogue is always there. In place of a page of
        a history it may tell that the item is retired (:func:`shared.archive_reads.retired.decode_retired`).

        Raises:
            InvalidInput: no key, or a cursor that no page gave out.
            Unavailable: it cannot be told now.
        """


class ArchiveReads(ClosedReads, Protocol):
    """:class:`ClosedReads` that tell of many items in one question, too."""

    async def states(self, item_ids: Sequence[str]) -> dict[str, bytes]:
        """What is under ``states/<item>``, by item, of those of these items that are closed.

        Raises:
            Unavailable: it cannot be told now.
        """


class ArchiveOrigin:
    """:class:`ArchiveReads` out of PostgreSQL. Bounds on connections, time and questions are those of ``asking``."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def get(self, key: str) -> bytes | None:
        """See :class:`ClosedReads`."""
        match parse_key(key):
            case ItemKey(form, item_id):
                item = (await closed_items(self._asking.fetch, [item_id])).get(item_id)
                if item is None:
                    return None
                return encode_state(item) if form == "states" else msgspec.json.encode(public_item(item))
            case HistoryKey(item_id, limit, cursor):
                return await self._history(item_id, limit, cursor)
            case CatalogueKey(sort, status, limit, cursor):
                page = await catalogue_page(self._asking, status=status, sort=sort, cursor=cursor, limit=limit)
                return msgspec.json.encode({"ids": page.ids, "next_cursor": page.next_cursor})

    async def states(self, item_ids: Sequence[str]) -> dict[str, bytes]:
        """See :class:`ArchiveReads`."""
        found = await closed_items(self._asking.fetch, item_ids)
        return {item_id: encode_state(item) for item_id, item in found.items()}

    async def _history(self, item_id: str, limit: int, cursor: str | None) -> bytes | None:
        before = parse_cursor(cursor) if cursor else None
        # The item first: a closed one only changes by a void, which changes the status of bids and adds none.
        item = (await closed_items(self._asking.fetch, [item_id])).get(item_id)
        if item is None:
            return None
        bids = await archived_bids(self._asking.fetch, item_id, before=before, limit=limit + 1)
        # Asked after the bids: while it is not retired, they are all there.
        retired = await retired_item(self._asking.fetch, item_id)
        if retired is not None:
            return encode_retired(retired)
        shown, next_cursor = cut(bids, limit)
        return msgspec.json.encode(public_history(item, shown, next_cursor, partial=False))


async def closed_items(fetch: Fetch, item_ids: Sequence[str]) -> dict[str, ItemState]:
    """Those of these items that are closed, by id, without their maxima.

    Raises:
        Unavailable: PostgreSQL cannot be asked.
    """
    rows = await fetch(_SQL["read_closed"], list(item_ids), [names.shard_of(item_id) for item_id in item_ids])
    found: dict[str, ItemState] = {}
    for row in rows:
        try:
            found[row["item_id"]] = closed_item(row)
        except (TermsInvalid, ValueError, TypeError, msgspec.DecodeError) as error:
            logger.error("item %s: its terms in the archive cannot be read: %s", row["item_id"], error)
    return found


def encode_state(item: ItemState) -> bytes:
    """The value under ``states/<item>``."""
    return msgspec.json.encode(without_reserve(item))


def decode_state(value: bytes) -> ItemState:
    """The inverse.

    Raises:
        msgspec.DecodeError: it is no such value.
    """
    return _state_decoder.decode(value)
