"""Pages of the catalogue, as they are read by their keys."""

from __future__ import annotations

from typing import Any, cast

import pytest

from api_gateway.reads.catalogue import Catalogue
from shared.archive_reads.catalogue import CataloguePage
from shared.domain.errors import InvalidInput


class Reads:
    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        return b'{"ids":["b","a"],"next_cursor":"next"}'


def catalogue_of(reads: Reads) -> Catalogue:
    """PostgreSQL is asked for the items of one seller alone."""
    return Catalogue(reads, cast(Any, None))


async def test_a_page_is_read_by_its_key() -> None:
    reads = Reads()
    catalogue = catalogue_of(reads)
    cursor = "WyJwcmljZSIsIkVVUjo1IiwiYSJd"
    page = await catalogue.page(status="sold", sort="price", cursor=cursor, limit=2)
    assert page == CataloguePage(["b", "a"], "next")
    await catalogue.page(status=None, sort="newest", cursor=None, limit=200)
    assert reads.asked == [f"catalogue/price/sold/2/{cursor}", "catalogue/newest/any/200"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "a/b", "WyJwcmljZSIsIkVVUjo1IiwiYSJd", "WyJwcmljZSIs.IjUiLCJhIl0", "é", "a" * 513]
)
async def test_a_cursor_that_no_page_gave_out_is_not_asked_about(cursor: str) -> None:
    reads = Reads()
    with pytest.raises(InvalidInput, match="cursor: "):
        await catalogue_of(reads).page(status=None, sort="newest", cursor=cursor, limit=2)
    assert reads.asked == []
