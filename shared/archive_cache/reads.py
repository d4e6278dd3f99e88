"""The archive's answers about closed items, through a cache.

Three groups. ``items`` has what is read most, under keys that can be told from an item's id alone: the item in both
forms, and the first page of its history. ``pages`` has the other pages; nobody knows which pages of an item are kept,
so a void after the close forgets the whole group, in constant time. Such voids are rare, and so are readers of older
pages.

``catalogue`` has which items a page of the catalogue names, in which order, and nothing else of them. Any event may
change that, so no event makes a page forgotten. A page is kept for a moment, and only the first one of a list. Anybody
can make up a cursor, so a page after a cursor is shared with those who ask for it at the same moment, and not kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from shared.aliases import naming
from shared.archive_cache.packing import pack, unpack
from shared.archive_reads.catalogue import check_cursor
from shared.archive_reads.history import parse_cursor
from shared.archive_reads.keys import CatalogueKey, HistoryKey, history_key, item_key, item_of, parse_key, state_key
from shared.archive_reads.origin import ClosedReads
from shared.domain.errors import Unavailable
from shared.read_cache.cache import GroupSpec, ReadCache
from shared.read_cache.errors import OriginSlow, Overloaded
from shared.read_cache.groups.group import GroupLimits, LoadMany

logger = logging.getLogger(__name__)

FORMAT: Final = 4
"""The version of the JSON that is kept. Raise it where a reader of the version before could not read what is written
now, or the other way round."""


def name_of_group(kind: Literal["items", "pages", "catalogue"]) -> str:
    """The name under which processes share a group. It contains the format and the settings of aliases, so that
    processes of two versions, or with different settings, never read each other's values. A peer that does not know a
    group costs a load."""
    return f"{kind}-{FORMAT}-{naming()}"


LIMITS: Final = GroupLimits(negative_ttl_s=0.25)
"""The answer that there is no such closed item is believed only for a moment: an item with a new void counts as not
closed until its chain of hashes has the void, for which the archiver needs milliseconds."""

CATALOGUE_OLD_S: Final = 0.5
"""How old a page of the catalogue is at most when a reader gets it, whichever nodes it came through."""

CATALOGUE_LIMITS: Final = GroupLimits(ttl_s=CATALOGUE_OLD_S / 2, joined_for_s=CATALOGUE_OLD_S / 2)
"""One half is for a reader's fetch from the owner of the key, which others may join; the other is for the age of what
the owner keeps. A mirror lasts no longer than the value of which it is a copy."""


def keys_of(item_id: str) -> tuple[str, str, str]:
    """The keys of an item in the group ``items``."""
    return item_key(item_id), state_key(item_id), history_key(item_id)


def group_of(key: str) -> str:
    """The group of a well-formed key.

    Raises:
        InvalidInput: it is no key, or its cursor is none that a page gave out.
    """
    match parse_key(key):
        case CatalogueKey(sort, _, _, cursor):
            if cursor is not None:
                check_cursor(cursor, sort)
            return name_of_group("catalogue")
        case HistoryKey(item_id, _, cursor):
            if cursor is not None:
                parse_cursor(cursor)
            return name_of_group("items" if key == history_key(item_id) else "pages")
    return name_of_group("items")


def groups(
    origin: ClosedReads,
    is_unsettled: Callable[[str], bool],
    *,
    limits: GroupLimits | None = None,
    load_states: LoadMany | None = None,
) -> list[GroupSpec]:
    """The groups with which a cache of closed items is opened.

    Args:
        is_unsettled: whether an item has changed and the archive may not have it yet; see
            :class:`shared.archive_cache.changes.Changes`.
        limits: of items and their histories, instead of ``LIMITS``.
        load_states: several keys ``states/<item>`` in one question, packed.
    """

    limits = limits or LIMITS

    async def load(key: str) -> bytes | None:
        value = await origin.get(key)
        return None if value is None else pack(value)

    def may_keep(key: str) -> bool:
        item_id = item_of(key)
        return item_id is None or not is_unsettled(item_id)

    return [
        GroupSpec(name_of_group("items"), load, limits, may_keep, load_states),
        GroupSpec(name_of_group("pages"), load, limits, may_keep),
        GroupSpec(name_of_group("catalogue"), load, CATALOGUE_LIMITS, _is_first_page, counts=False),
    ]


def _is_first_page(key: str) -> bool:
    match parse_key(key):
        case CatalogueKey(cursor=None):
            return True
    return False


def never_unsettled(item_id: str) -> bool:
    """For a process that keeps values for moments only, as readers of a cluster do, or that knows otherwise what it may
    keep."""
    return False


class CachedReads:
    """:class:`ClosedReads` through a cache. How old an answer may be: docs/read-cache.md."""

    def __init__(self, cache: ReadCache, origin: ClosedReads, *, before_get: Callable[[], None] | None = None) -> None:
        """
        Args:
            origin: is asked where a kept value is damaged.
            before_get: called before each look into the cache, such as :meth:`Changes.check`.
        """
        self._cache = cache
        self._origin = origin
        self._before_get = before_get

    async def get(self, key: str) -> bytes | None:
        """See :class:`ClosedReads`."""
        kept = await self.packed(key)
        return None if kept is None else await self.unpacked(key, kept)

    async def unpacked(self, key: str, kept: bytes) -> bytes | None:
        """What :meth:`packed` told of the key, as plain JSON. Where it is damaged, all nodes forget it, and the archive
        itself is asked, once."""
        try:
            return unpack(kept)
        except ValueError as error:
            logger.error("what was kept of %s is forgotten: %s", key, error)
        await self._cache[group_of(key)].remove(key)
        with translated():
            async with self._cache.bounded():
                return await self._origin.get(key)

    async def packed(self, key: str) -> bytes | None:
        """The same, perhaps as gzip (:func:`shared.archive_cache.packing.is_packed`)."""
        group = self._cache[group_of(key)]
        if self._before_get is not None:
            self._before_get()
        with translated():
            return await group.get(key)


@contextmanager
def translated() -> Iterator[None]:
    """Translate the errors of the cache into ``Unavailable``."""
    try:
        yield
    except Overloaded as error:
        raise Unavailable(str(error), retry_after_s=max(1, round(error.retry_after_s))) from error
    except OriginSlow as error:
        raise Unavailable(str(error), retry_after_s=2) from error
