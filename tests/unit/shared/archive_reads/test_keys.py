"""Keys of what is read from the archive."""

from __future__ import annotations

import pytest

from shared.archive_reads.keys import (
    KEY_MAX,
    CatalogueKey,
    HistoryKey,
    ItemKey,
    Key,
    KeyInvalid,
    catalogue_key,
    history_key,
    item_key,
    item_of,
    parse_key,
    state_key,
)

CURSOR = "WyJwcmljZSIsIjEyIiwiYSJd"


@pytest.mark.parametrize(
    ("key", "meaning", "item_id"),
    [
        (item_key("lot-1"), ItemKey("items", "lot-1"), "lot-1"),
        (state_key("bids"), ItemKey("states", "bids"), "bids"),
        (history_key("lot-1"), HistoryKey("lot-1", 50, None), "lot-1"),
        (history_key("lot-1", limit=7), HistoryKey("lot-1", 7, None), "lot-1"),
        (history_key("lot-1", cursor="2:17"), HistoryKey("lot-1", 50, "2:17"), "lot-1"),
        (catalogue_key(sort="newest", status=None, limit=200), CatalogueKey("newest", None, 200, None), None),
        (
            catalogue_key(sort="price", status="sold", limit=1, cursor=CURSOR),
            CatalogueKey("price", "sold", 1, CURSOR),
            None,
        ),
    ],
)
def test_what_is_written_is_read(key: str, meaning: Key, item_id: str | None) -> None:
    assert parse_key(key) == meaning
    assert item_of(key) == item_id


@pytest.mark.parametrize(
    "key",
    [
        "",
        "items",
        "items/",
        "items/a.b",
        "items/a/",
        "items/a/bids/",
        "items/a/bids/0",
        "items/a/bids/201",
        "items/a/bids/1\u0661",
        "items/a/bids/50/",
        "items/a/bids/50/1:2/3",
        "items/a/bids/50/1 2",
        "states/a/bids",
        "sealed/a",
        "items/a\n",
        "catalogue/newest/any",
        "catalogue/oldest/any/50",
        "catalogue/newest/gone/50",
        "catalogue/newest/any/50/a/b",
        f"catalogue/newest/any/50/{'a' * KEY_MAX}",
        "items/" + "a" * 65,
    ],
)
def test_anything_else_is_refused(key: str) -> None:
    with pytest.raises(KeyInvalid, match="use items/<item>"):
        parse_key(key)
