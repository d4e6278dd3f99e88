"""The proof of the yardsticks: the price and the count in Redis against what clients were told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from load_tests.experiments.contention.proving import proof_of_yardstick
from load_tests.generator.driver import Load
from load_tests.generator.ledger import Entry, ItemLedger, Ledger

LOAD = Load(users=2, run_s=1, item_ids=["lot-1"], tag="t")
ACCEPTED = [Entry("a", "ada", 100, 1), Entry("b", "bob", 200, 2)]
LATE = Entry("c", "cid", 300)


class Stored:
    """What Redis says of the item."""

    def __init__(self, price: int, seq: int) -> None:
        self._fields = [str(price), str(seq)]

    async def hmget(self, key: str, names: Sequence[str]) -> list[str]:
        assert key.endswith("lot-1")
        assert list(names) == ["price", "seq"]
        return self._fields


@pytest.mark.parametrize(
    ("price", "seq", "unknown", "holds"),
    [
        (200, 2, [], True),
        # The bid whose answer never came was accepted, or not.
        (300, 3, [LATE], True),
        (200, 2, [LATE], True),
        # Written over: the count or the price is behind what clients were told.
        (200, 1, [], False),
        (100, 2, [], False),
        (100, 2, [LATE], False),
        # More than anybody has sent.
        (200, 3, [], False),
        (300, 4, [LATE], False),
    ],
)
async def test_what_was_told_must_be_there(price: int, seq: int, unknown: list[Entry], holds: bool) -> None:
    redis: Any = Stored(price, seq)
    books = ItemLedger(accepted=list(ACCEPTED), unknown=list(unknown))
    proof = await proof_of_yardstick(redis, LOAD, Ledger({"lot-1": books}))
    assert proof.ok is holds
    assert bool(proof.statements) is not holds


async def test_one_number_given_out_twice_is_a_lost_update() -> None:
    redis: Any = Stored(200, 2)
    books = ItemLedger(accepted=[Entry("a", "ada", 100, 1), Entry("b", "bob", 200, 1)])
    proof = await proof_of_yardstick(redis, LOAD, Ledger({"lot-1": books}))
    assert (proof.ok, proof.lost_updates) == (False, 1)
