from __future__ import annotations

import re
from zlib import crc32

import pytest

from shared import names
from shared.domain.voiding import answers, bids_anew
from shared.redis_layout.keys import (
    bidders_key,
    cursors_key,
    deadlines_key,
    item_key,
    lease_key,
    older_refusals_key,
    opened_key,
    outbox_key,
    proxies_key,
    recent_key,
    refusals_key,
    verdicts_key,
)


def test_all_keys_of_an_item_share_its_hash_tag() -> None:
    item = "lot-1"
    tag = f"{{{names.shard_of(item)}}}"
    keys = [
        item_key(item),
        proxies_key(item),
        bidders_key(item),
        recent_key(item),
        verdicts_key(item),
        refusals_key(item),
        older_refusals_key(item),
        outbox_key(names.shard_of(item)),
        cursors_key(names.shard_of(item)),
        deadlines_key(names.shard_of(item)),
        lease_key(names.shard_of(item)),
        opened_key(names.shard_of(item)),
    ]
    assert all(key.startswith(tag + ":") for key in keys)
    assert len(set(keys)) == len(keys)


def test_the_shard_is_the_crc_of_the_id() -> None:
    assert names.shard_of("lot-1") == f"s{crc32(b'lot-1') % 64:02d}"
    assert {names.shard_of(f"lot-{number}") for number in range(2_000)} == set(names.SHARDS)


@pytest.mark.parametrize("text", ["", "a b", "a.b", "a*", "a>", "{a}", "a\0", "a\n", "x" * 65, "é", "😀"])
def test_unsafe_item_ids_are_refused(text: str) -> None:
    assert not names.is_item_id(text)


@pytest.mark.parametrize(
    "text", ["", "a b", "a*", "a>", "{a}", "a\0", "ada\n", "x" * 65, "é", "a:b", ".", "..", "." * 9]
)
def test_unsafe_user_ids_are_refused(text: str) -> None:
    assert not names.is_user_id(text)


def test_safe_ids_are_taken() -> None:
    assert names.is_item_id("A-z_09" + "x" * 58)
    assert names.is_user_id("ada.l@example-1.org")
    assert names.is_bid_id("0192f6c4-7d1e-7cc3-98c4-dc0c0c07398f")
    assert names.is_idempotency_key('"!~' + "k" * 252)
    assert not names.is_idempotency_key("a b")
    assert not names.is_idempotency_key("k" * 256)
    assert not names.is_idempotency_key("..")
    assert names.is_user_id("...a")


@pytest.mark.parametrize("text", ["~", "~a", "a~", ".", "..", "...", "", "a\n", "a/proxy", "x" * 65, "0" * 18 + "-1b"])
def test_ids_that_a_client_cannot_give_a_bid(text: str) -> None:
    assert not names.is_bid_id(text)


def test_every_bid_can_be_named_by_its_id() -> None:
    for made in ("~0123456789abcdef01-1b", "0123456789abcdef01-1b"):
        assert names.is_made_bid_id(made)
        assert names.is_standing_bid_id(made)
    assert names.is_standing_bid_id("of-a-client")
    assert not names.is_made_bid_id("of-a-client")
    assert not any(map(names.is_standing_bid_id, ("~", "..", "~..", "a\n", "~~a", "a~b")))


def test_a_subject_leads_back_to_its_item() -> None:
    assert names.item_of_subject(names.subject_of("lot-1")) == "lot-1"
    assert names.subject_of("lot-1") == f"auction.events.{names.shard_of('lot-1')}.lot-1"


@pytest.mark.parametrize("placed", ["ann-1", "x" * 64, "~" + "0" * 18 + "-1b"])
def test_clients_are_told_the_form_of_every_id_that_a_history_shows(placed: str) -> None:
    """The bid's, that of the automatic bid which answered it, and that of the one which followed when it was struck."""
    for shown in (placed, answers(placed), bids_anew(placed)):
        assert re.search(names.SHOWN_BID_ID_PATTERN, shown)
    assert not re.search(names.SHOWN_BID_ID_PATTERN, f"{placed}/other")
