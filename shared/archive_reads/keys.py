"""Keys of what is read from the archive, as caches and their clients write them.

    items/<item>                              the public JSON of a closed item
    items/<item>/bids[/<limit>[/<cursor>]]    a page of its history; without a limit the first page of 50
    states/<item>                             the same item for the services: terms and state, nothing hidden in it
    catalogue/<sort>/<status>/<limit>[/<cursor>]    ids of a page of the catalogue; status `any` for all

Pages are never longer than 200. Cursors are those that the pages themselves give.
"""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple, get_args

from shared import names
from shared.archive_reads.catalogue import Sort
from shared.archive_reads.history import PAGE_DEFAULT, PAGE_MAX
from shared.domain.auction import Status
from shared.domain.errors import InvalidInput

KEY_MAX: Final = 640
"""Characters of the longest key."""

_ANY: Final = "any"
_SORTS: Final[tuple[Sort, ...]] = get_args(Sort)
_LIMIT: Final = re.compile(r"[1-9][0-9]{0,2}")
_CURSOR: Final = re.compile(r"[A-Za-z0-9_:-]{1,512}")


class KeyInvalid(InvalidInput):
    """The text is not a key of anything that can be read here."""

    code = "KEY_INVALID"

    def __init__(self) -> None:
        super().__init__(
            "key: use items/<item>, items/<item>/bids, items/<item>/bids/<limit>/<cursor>, "
            "or catalogue/<newest|ending|price>/<status|any>/<limit>/<cursor>"
        )


class ItemKey(NamedTuple):
    """A closed item; ``form`` is ``items`` or ``states``."""

    form: Literal["items", "states"]
    item_id: str


class HistoryKey(NamedTuple):
    """A page of a closed item's history; ``cursor`` None for the first one."""

    item_id: str
    limit: int
    cursor: str | None


class CatalogueKey(NamedTuple):
    """A page of the catalogue; ``status`` None for all items."""

    sort: Sort
    status: str | None
    limit: int
    cursor: str | None


Key = ItemKey | HistoryKey | CatalogueKey


def item_key(item_id: str) -> str:
    """The key of a closed item's public JSON."""
    return f"items/{item_id}"


def state_key(item_id: str) -> str:
    """The key of a closed item's terms and state."""
    return f"states/{item_id}"


def history_key(item_id: str, *, limit: int = PAGE_DEFAULT, cursor: str | None = None) -> str:
    """The key of a page of a closed item's history; the first page of the usual length has the short form."""
    if cursor is not None:
        return f"items/{item_id}/bids/{limit}/{cursor}"
    return f"items/{item_id}/bids" if limit == PAGE_DEFAULT else f"items/{item_id}/bids/{limit}"


def catalogue_key(*, sort: Sort, status: str | None, limit: int, cursor: str | None = None) -> str:
    """The key of a page of the catalogue."""
    key = f"catalogue/{sort}/{status or _ANY}/{limit}"
    return key if cursor is None else f"{key}/{cursor}"


def item_of(key: str) -> str | None:
    """The item that a key is about; None for the catalogue. The key is well-formed."""
    form, _, rest = key.partition("/")
    return None if form == "catalogue" else rest.partition("/")[0]


def parse_key(key: str) -> Key:
    """Read a key.

    Raises:
        KeyInvalid: it is none.
    """
    if len(key) > KEY_MAX:
        raise KeyInvalid
    match key.split("/"):
        case ["items" | "states" as form, item_id] if names.is_item_id(item_id):
            return ItemKey("items" if form == "items" else "states", item_id)
        case ["items", item_id, "bids", *page] if names.is_item_id(item_id) and len(page) <= 2:
            return HistoryKey(item_id, _limit(page[0]) if page else PAGE_DEFAULT, _cursor(page[1:]))
        case ["catalogue", sort, status, limit, *cursor] if len(cursor) <= 1:
            found = next((each for each in _SORTS if each == sort), None)
            if found is not None and (status == _ANY or status in tuple(Status)):
                return CatalogueKey(found, None if status == _ANY else status, _limit(limit), _cursor(cursor))
    raise KeyInvalid


def _limit(text: str) -> int:
    if _LIMIT.fullmatch(text) is None or int(text) > PAGE_MAX:
        raise KeyInvalid
    return int(text)


def _cursor(texts: list[str]) -> str | None:
    if not texts:
        return None
    if _CURSOR.fullmatch(texts[0]) is None:
        raise KeyInvalid
    return texts[0]
