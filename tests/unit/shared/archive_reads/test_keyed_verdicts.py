"""What is kept under a key, where the archive is in the middle of a change."""

from __future__ import annotations

from typing import Any

import pytest

from shared.archive_reads.keyed_verdicts import keyed_verdicts
from shared.domain.errors import Unavailable


async def test_a_bid_whose_item_is_being_archived_anew_is_not_told_as_unknown() -> None:
    """1. The item comes back to Redis, and another bid is struck. 2. That is archived, and the chain of hashes does not
    have it yet, so there is no such closed item. 3. The bid is there all the same."""

    async def fetch(query: str, *arguments: Any) -> list[Any]:
        return [{"bid_id": "b-1"}] if "b-1" in arguments and "FROM bids" in query else []

    with pytest.raises(Unavailable, match="try again"):
        await keyed_verdicts(fetch, "lot", "ann", "b-1")
    assert await keyed_verdicts(fetch, "lot", "ann", "another") == {}
