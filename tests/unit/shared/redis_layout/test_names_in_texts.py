"""What Redis keeps as one text with bars in it is read as it was written."""

from __future__ import annotations

import pytest

from shared.redis_layout.accounts import account_of, entry_of_generation, name_of, number_of_record
from shared.redis_layout.cursors import decode_fence, epoch_of_fence
from shared.redis_layout.outbox import EntryId
from shared.redis_layout.rulings import EVERYBODY, bidder_of, field_of
from shared.redis_layout.verdicts import RefusedBid, code_of_refusal


@pytest.mark.parametrize(("user_id", "seller_id"), [("ann", None), ("ann", "sam"), (EVERYBODY, None)])
def test_the_field_of_a_ruling(user_id: str, seller_id: str | None) -> None:
    assert bidder_of(field_of(user_id, seller_id)) == (user_id, seller_id)


def test_the_name_of_an_account() -> None:
    assert account_of(name_of("ann@x.org", "USD")) == ("ann@x.org", "USD")


def test_generations_are_in_the_order_of_their_entries() -> None:
    assert max(("2|9", "2|10", "1|99"), key=entry_of_generation) == "2|10"
    assert entry_of_generation("2|10") == EntryId(2, 10)


def test_the_number_in_what_an_account_knows_of_a_shard() -> None:
    assert number_of_record(b"500|1|17|0") == 17


def test_the_epoch_of_a_fence() -> None:
    fence = decode_fence((b"12", b"0f3a", b"4"))
    assert fence is not None
    assert epoch_of_fence(fence) == 12


def test_the_code_of_a_refusal() -> None:
    assert code_of_refusal(RefusedBid("TOO_LOW", 100, False, 110, True).encode()) == "TOO_LOW"
