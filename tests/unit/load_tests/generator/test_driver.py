"""Around Locust: opening items, and what it is told."""

from __future__ import annotations

import pytest

from load_tests.generator.driver import Load, LoadError, open_items
from tests.unit.load_tests.pretend_gateway import PretendGateway


async def test_items_that_cannot_be_opened_end_the_run_with_the_answer() -> None:
    gateway = PretendGateway()
    async with gateway.client() as client:
        await open_items(client, ["lot-1", "lot-2"], "t")
        assert set(gateway.items) == {"lot-1", "lot-2"}
        with pytest.raises(LoadError, match="cannot open item lot-2: HTTP 409"):
            await open_items(client, ["lot-2"], "t")
        gateway.fault = lambda _: "drop"
        with pytest.raises(LoadError, match=r"gateway\.test"):
            await open_items(client, ["lot-3"], "t")


def test_crowds_come_over_a_while_and_the_run_begins_after_that() -> None:
    few = Load(users=100, run_s=30, item_ids=["lot-1"], tag="t")
    many = Load(users=10_000, run_s=30, item_ids=["lot-1"], tag="t")
    assert (few.spawn_per_s, few.ramp_s) == (50, 2)
    assert (many.spawn_per_s, many.ramp_s) == (500, 20)
