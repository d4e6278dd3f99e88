"""A running stack with items that were over long ago, and the command that retires them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from infrastructure.local.services import ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared.permissions.accounts import Account
from tests.integration.eviction.eviction_world import Auction, auction_of, sold
from tests.integration.loss.recover_world import House
from tests.preforked import run_forked

LOGS = ("bids", "events", "event_hashes", "sealed")


@dataclass
class Old:
    """The stack, and what was sold on it years ago."""

    auction: Auction

    @property
    def house(self) -> House:
        return self.auction.house

    @property
    def stack(self) -> Stack:
        return self.auction.stack

    async def sold(self, *item_ids: str, evicted: bool = True, **terms: Any) -> None:
        """Sold three years ago, exported, and out of Redis."""
        for item_id in item_ids:
            await sold(self.house, item_id, **terms)
        await self.auction.exported(*item_ids)
        if evicted:
            await self.auction.evicted(*item_ids)
        await self.age(*item_ids)

    async def age(self, *item_ids: str) -> None:
        sql = "UPDATE items SET updated_at = updated_at - interval '3 years' WHERE item_id = ANY ($1) RETURNING item_id"
        assert len(await self.house.query(sql, list(item_ids))) == len(item_ids)

    async def retention(self, *options: str, **env: str) -> tuple[int, str]:
        """What `bidding retention` runs, without its start, as the account of operators."""
        environment = {**self.stack.env_of(Account.OPERATOR), "EXPORT_DIR": str(self.exports), **env}
        return await run_forked(ARCHIVAL_WORKER, "retention", "--older-than", "400d", *options, env=environment)

    async def audit(self, item_id: str, **env: str) -> tuple[int, str]:
        environment = {**self.stack.env_of(Account.OPERATOR), "EXPORT_DIR": str(self.exports), **env}
        return await run_forked(ARCHIVAL_WORKER, "audit", item_id, env=environment)

    @property
    def exports(self) -> Path:
        return self.stack.data_dir / "exports"

    async def export_of(self, item_id: str) -> Path:
        (row,) = await self.house.query(
            "SELECT object_key FROM exports WHERE item_id = $1 AND state = 'confirmed' ORDER BY seq DESC LIMIT 1",
            item_id,
        )
        return self.exports / str(row["object_key"])

    async def log(self, item_id: str) -> dict[str, list[Any]]:
        """All rows of the item's log, by table."""
        found: dict[str, list[Any]] = {}
        for table in LOGS:
            rows = await self.house.query(f"SELECT t::text FROM {table} AS t WHERE item_id = $1", item_id)
            found[table] = sorted(tuple(row) for row in rows)
        return found

    async def rows(self, item_id: str) -> int:
        return sum(len(rows) for rows in (await self.log(item_id)).values())

    async def states(self) -> dict[str, str]:
        rows = await self.house.query("SELECT item_id, state FROM retired_items")
        return {row["item_id"]: row["state"] for row in rows}

    async def get(self, path: str) -> tuple[int, Any]:
        answer = await self.house.http.get(f"/api/v1/items/{path}")
        return answer.status_code, cast(Any, answer.json())


@asynccontextmanager
async def old_of(stack: Stack) -> AsyncIterator[Old]:
    async with auction_of(stack) as auction:
        yield Old(auction)
