"""Pages of the rulings of a closed item, where the item left Redis, or came back, between two of them."""

from __future__ import annotations

from typing import Any, cast

from api_gateway.engine.item_scripts import ScriptLimits
from api_gateway.engine.rulings.scripts import RulingScripts
from shared.archive_reads.item_rulings import item_rulings

NAMES = [f"user-{number}" for number in range(7)]


async def fetch(_: str, item_id: str, user_id: str | None, offset: int, count: int) -> Any:
    ruling = {"approved": True, "blocked": False, "max_amount": None}
    return [{"user_id": name, **ruling} for name in NAMES[offset : offset + count]]


async def test_pages_follow_each_other_to_the_end() -> None:
    found: list[str] = []
    cursor, pages = 0, 0
    while cursor or not pages:
        page, cursor = await item_rulings(fetch, "lot", cursor, 3)
        found += page
        pages += 1
    assert (found, pages) == (NAMES, 3)


async def test_a_cursor_of_redis_passes_nothing_over() -> None:
    """Those of a hash are places in it, in an order of their own."""
    for cursor in (5, 8_192, 2**63):
        page, _ = await item_rulings(fetch, "lot", cursor, 3)
        assert list(page) == NAMES[:3]


class Redis:
    def __init__(self) -> None:
        self.scanned: list[int] = []

    def pipeline(self, *, transaction: bool) -> Redis:
        return self

    def exists(self, key: str) -> None:
        pass

    def hscan(self, key: str, cursor: int, *, count: int) -> None:
        self.scanned.append(cursor)

    async def execute(self) -> list[Any]:
        return [1, (0, {})]


async def test_a_cursor_of_the_archive_passes_nothing_over_in_redis() -> None:
    redis = Redis()
    scripts = RulingScripts(cast(Any, redis), cast(ScriptLimits, None))
    _, cursor = await item_rulings(fetch, "lot", 0, 3)
    for each in (cursor, 8_192):
        await scripts.page_of_item("lot", each, 3)
    assert redis.scanned == [0, 8_192]
