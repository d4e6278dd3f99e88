"""What ``place_bids.lua`` is given, and what it takes it for."""

from __future__ import annotations

import re
from typing import Any, cast

import pytest

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import BidArguments, BidScripts, LimitArguments
from api_gateway.engine.item_scripts import LUA, ScriptLimits, item_keys

TEXT = (LUA / "place_bids.lua").read_text()
LIMITS = ScriptLimits(50, 40, 30, 20, 10)


class NoRedis:
    """Nothing is sent."""

    connection_pool = None


def command_of(*bids: PendingBid) -> list[str]:
    scripts = BidScripts(cast(Any, NoRedis()), LIMITS, timeout_s=1)
    return [str(part) for part in scripts._command([bids])]


def test_the_script_reads_the_fields_in_the_order_in_which_they_are_written() -> None:
    read = [names.split(", ") for names in re.findall(r"local ([\w, ]+) = bid_at\(at\)", TEXT)]
    assert len(read) == 2, "the keys are looked up before the bids are decided"
    for names in read:
        assert all(name in ("_", field) for name, field in zip(names, BidArguments._fields, strict=True)), names
    bounds, keys, fields = len(LimitArguments._fields), len(item_keys("lot-1")), len(BidArguments._fields)
    assert f"local FIRST_ITEM, ITEM_KEYS, BID_FIELDS = {bounds + 1}, {keys}, {fields}\n" in TEXT


@pytest.mark.parametrize(
    ("key", "key_is_bid_id", "told"),
    [
        (None, False, ("0", "", "")),
        ("b-1", True, ("1", "700,", "")),
        ("header", False, ("1", "700,", "header")),
    ],
)
async def test_a_bid_is_told_after_bounds_and_item(key: str | None, key_is_bid_id: bool, told: tuple[str, ...]) -> None:
    future = PendingVerdict()
    bid = PendingBid("lot-1", "ann", "b-1", 700, None, key, key_is_bid_id, future)
    command = command_of(bid, bid)
    keys = item_keys("lot-1")

    assert command[: 3 + len(keys)] == ["EVALSHA", BidScripts._place.sha, str(len(keys)), *keys]
    bounds_and_item, bids = command[3 + len(keys) :][:7], command[3 + len(keys) :][7:]
    assert bounds_and_item == ["50", "40", "30", "20", "10", "lot-1", "2"]
    first, second = BidArguments(*bids[:7]), BidArguments(*bids[7:])
    assert first == second
    assert (first.user, first.amount, first.maximum, first.bid_id) == ("ann", "700", "", "b-1")
    assert (first.has_key, first.fingerprint, first.header_key) == told
