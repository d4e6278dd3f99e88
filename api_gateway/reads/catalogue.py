"""Which items a page of the catalogue names. What is shown of them is read afterwards, each time: of a live one from
Redis, of one that has left from what the archive has of it."""

from __future__ import annotations

from typing import Final

import msgspec

from shared.archive_reads.asking import Asking
from shared.archive_reads.catalogue import CataloguePage, Sort, catalogue_page, check_cursor
from shared.archive_reads.keys import catalogue_key
from shared.archive_reads.origin import ClosedReads


class _Page(msgspec.Struct):
    ids: list[str]
    next_cursor: str | None


_decoder: Final = msgspec.json.Decoder(_Page)


class Catalogue:
    """Lists, by status and in an order. They may be half a second old, where there is a cache."""

    def __init__(self, reads: ClosedReads, asking: Asking) -> None:
        self._reads = reads
        self._asking = asking

    async def page(
        self, *, status: str | None, sort: Sort, cursor: str | None, limit: int, seller: str | None = None
    ) -> CataloguePage:
        """Ids of items in order, and the cursor of the next page. Those of one ``seller`` come in the order of
        ``newest`` alone: of the others there is no index by seller.

        Raises:
            InvalidInput: the cursor is not one that this list gave out.
            Unavailable: PostgreSQL cannot be asked, or too many ask.
        """
        if cursor is not None:
            check_cursor(cursor, sort)
        if seller is not None:
            # Nobody but the seller asks for it, so a cache would keep it for nobody.
            assert sort == "newest"
            return await catalogue_page(
                self._asking, status=status, sort=sort, cursor=cursor, limit=limit, seller=seller
            )
        value = await self._reads.get(catalogue_key(sort=sort, status=status, limit=limit, cursor=cursor))
        assert value is not None, "there is always a page"
        page = _decoder.decode(value)
        return CataloguePage(page.ids, page.next_cursor)
