"""The chain of hashes: its exact bytes, what follows what, and what an audit says about rows that were changed."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archival_worker.chain.audit import Auditor
from archival_worker.chain.export_file import STATE, TERMS
from archival_worker.chain.hashes import NOWHERE, START, Head, Version, canonical, content_of, extended, follows
from archival_worker.chain.report import AuditReport
from tests.unit.archival_worker.events import closed, created
from tests.unit.archival_worker.export_rows import history, row_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALAR = st.none() | st.booleans() | st.integers(-(2**80), 2**80) | TEXT


def test_the_bytes_of_a_bid_and_of_an_event_are_those_of_the_document() -> None:
    created, bid, _, _ = history()
    assert content_of(bid) == (
        b'{"amount":100,"at_us":1750000000123457,"bid_id":"bid-1-1","epoch":1,"item_id":"lot-1","kind":"bid",'
        b'"leader_id":null,"previous_bid":0,"seq":1,"type":"bid","user_id":"ada"}'
    )
    start = b'{"at_us":1750000000123456,"body":{"approval_required":false,"auto_opened":false,"bid_count":0,'
    assert content_of(created).startswith(start)
    assert content_of(created).endswith(b'"type":"created"},"epoch":1,"item_id":"lot-1","seq":0,"type":"created"}')


def test_a_third_party_can_recompute_it() -> None:
    """With nothing but a JSON library and SHA-256, from what the documentation says."""
    rows = history()
    digest = bytes(32)
    expected = []
    for row in rows:
        keys = "at_us body epoch item_id seq type"
        if row["type"] == "bid":
            keys = "amount at_us bid_id epoch item_id kind leader_id previous_bid seq type user_id"
        content = {key: row[key] for key in keys.split()}
        if "body" in content:
            content["body"] = json.loads(content["body"])
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        digest = sha256(digest + text.encode()).digest()
        expected.append(digest)
    links, missing = extended(START, rows)
    assert missing is None
    assert [link.hash for link in links] == expected


@given(bid_id=TEXT, user_id=TEXT, leader=st.none() | TEXT, amount=st.integers(-(2**63), 2**63 - 1))
def test_the_quick_way_to_encode_a_bid_gives_the_canonical_form(
    bid_id: str, user_id: str, leader: str | None, amount: int
) -> None:
    row = history()[1] | {"bid_id": bid_id, "user_id": user_id, "leader_id": leader, "amount": amount}
    plain = {key: value for key, value in row.items() if key not in ("body", "hash")}
    assert content_of(row) == canonical(plain)


@given(st.dictionaries(TEXT, SCALAR | st.lists(SCALAR, max_size=3), max_size=6))
def test_the_canonical_form_depends_on_the_content_alone(content: dict[str, Any]) -> None:
    turned = dict(reversed(content.items()))
    assert canonical(turned) == canonical(content)
    assert json.loads(canonical(content)) == content


@pytest.mark.parametrize(
    ("place", "following", "does"),
    [
        (NOWHERE, Version(1, 0), True),
        (NOWHERE, Version(1, 1), False),
        (Version(1, 4), Version(1, 5), True),
        (Version(1, 4), Version(1, 6), False),
        (Version(1, 4), Version(1, 4), False),
        (Version(1, 4), Version(2, 5), True),
        (Version(1, 4), Version(2, 0), True),
        (Version(1, 4), Version(2, 6), False),
        (Version(2, 4), Version(1, 5), False),
    ],
)
def test_what_follows_what(place: Version, following: Version, does: bool) -> None:
    assert follows(place, following) is does


def test_a_gap_stops_the_chain_before_it() -> None:
    rows = history()
    links, missing = extended(START, [rows[0], rows[1], rows[3]])
    assert [link.place for link in links] == [(1, 0), (1, 1)]
    assert missing == (1, 3)


def chained(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], Head]:
    links, missing = extended(START, rows)
    assert missing is None
    return [row | {"hash": link.hash} for row, link in zip(rows, links, strict=True)], links[-1]


def audited(
    rows: list[dict[str, Any]], head: Head, exported: dict[Version, bytes] | None = None, orphan: Version | None = None
) -> AuditReport:
    auditor = Auditor("lot-1", head, exported or {})
    auditor.add(rows)
    auditor.ended(orphan)
    return auditor.report()


def place_found(report: AuditReport) -> str | None:
    return report.finding.place if report.finding else None


def test_an_untouched_chain_fits() -> None:
    rows, head = chained(history())
    report = audited(rows, head, {head.place: head.hash})
    assert (report.is_sound, report.fits, report.up_to, report.head) == (True, 4, "1:3", head.hash.hex())


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("key", ["at_us", "seq", "hash"])
def test_a_changed_row_is_named(at: int, key: str) -> None:
    rows, head = chained(history())
    rows[at] |= {key: bytes(32) if key == "hash" else rows[at][key] + 1}
    report = audited(rows, head)
    assert place_found(report) == f"1:{at}"
    assert report.fits == at
    assert f"1:{at}" in report.text()
    assert json.loads(report.json())["finding"]["place"] == f"1:{at}"


@pytest.mark.parametrize("key", ["amount", "previous_bid", "user_id", "bid_id", "kind", "leader_id"])
def test_every_column_of_a_bid_counts(key: str) -> None:
    rows, head = chained(history())
    rows[2] |= {key: 7 if isinstance(rows[2][key], int) else "mallory"}
    assert place_found(audited(rows, head)) == "1:2"


def test_a_deleted_row_is_named_with_or_without_its_hash() -> None:
    rows, head = chained(history())
    left = [rows[0], rows[2], rows[3]]
    assert place_found(audited(left, head)) == "1:1"
    assert place_found(audited(left, head, orphan=Version(1, 1))) == "1:1"


def test_a_deleted_end_is_named() -> None:
    rows, head = chained(history())
    assert place_found(audited(rows[:3], head)) == "1:3"
    assert place_found(audited([], head)) == "1:0"


def test_the_first_of_two_findings_is_told() -> None:
    """A hash without its row shows a gap where nothing else does: the end of an epoch before the last one."""
    rows, head = chained(history())
    assert place_found(audited(rows, head, orphan=Version(1, 1))) == "1:1"
    spoilt = [*rows[:3], rows[3] | {"amount": 1, "at_us": 1}]
    assert place_found(audited(spoilt, head)) == "1:3"
    assert place_found(audited(spoilt, head, orphan=Version(1, 1))) == "1:1"
    assert place_found(audited([rows[0], rows[2], rows[3]], head, orphan=Version(1, 9))) == "1:1"


def test_what_was_exported_and_is_in_no_chain_any_more_is_named() -> None:
    """Rows, hashes and the end of the chain were cut off together: the export alone remembers."""
    rows, head = chained(history())
    cut = Head(Version(1, 2), rows[2]["hash"])
    assert audited(rows[:3], cut).is_sound
    assert place_found(audited(rows[:3], cut, {head.place: head.hash})) == "1:3"


def test_two_rows_that_changed_places_are_named() -> None:
    rows, head = chained(history())
    rows[1], rows[2] = (rows[2] | {"seq": 1, "hash": rows[1]["hash"]}), (rows[1] | {"seq": 2, "hash": rows[2]["hash"]})
    assert place_found(audited(rows, head)) == "1:1"


def test_a_row_put_in_behind_the_end_is_named() -> None:
    rows, head = chained(history())
    twin = dict(rows[1]) | {"hash": None}
    assert place_found(audited([rows[0], rows[1], twin, *rows[2:]], head)) == "1:1"


def test_a_chain_computed_anew_over_changed_rows_does_not_fit_its_export() -> None:
    _, head = chained(history())
    changed = history()
    changed[1]["amount"] = 90
    rows, new_head = chained(changed)
    assert audited(rows, new_head).is_sound, "the chain alone cannot tell"
    assert place_found(audited(rows, new_head, {head.place: head.hash})) == "1:3"


def test_what_is_not_chained_yet_is_no_finding() -> None:
    rows, _ = chained(history())
    waiting = [*rows[:2], rows[2] | {"hash": None}, rows[3] | {"hash": None}]
    report = audited(waiting, Head(Version(1, 1), rows[1]["hash"]))
    assert (report.is_sound, report.fits, report.waiting) == (True, 2, 2)


def test_a_position_that_was_put_back_is_a_finding() -> None:
    rows, _ = chained(history())
    assert place_found(audited(rows, START)) == "1:0"
    assert place_found(audited(rows, Head(Version(1, 3), bytes(32)))) == "1:3"


def item_of(row: dict[str, Any], created: dict[str, Any]) -> dict[str, Any]:
    """The row of an item after its last event."""
    body, terms = json.loads(row["body"]), json.loads(created["body"])
    item = {key: terms[key] for key in TERMS} | {key: body[key] for key in STATE} | {"image_urls": []}
    return item | {"epoch": row["epoch"], "seq": row["seq"], "original_end_us": terms["end_us"]}


def derived(item: dict[str, Any] | None, rows: list[dict[str, Any]]) -> AuditReport:
    chain, head = chained(rows)
    auditor = Auditor("lot-1", head, {})
    auditor.add(chain)
    auditor.ended(None)
    auditor.derived(item)
    return auditor.report()


@pytest.mark.parametrize("key", [*STATE, *(key for key in TERMS if key != "end_us"), "original_end_us"])
def test_every_column_of_the_item_has_to_agree_with_its_log(key: str) -> None:
    rows = history()
    item = item_of(rows[-1], rows[0])
    assert derived(item, rows).is_sound
    report = derived(item | {key: "mallory"}, rows)
    assert report.finding is not None
    assert (report.finding.place, report.finding.type, "'mallory'" in report.finding.reason) == ("1:3", "item", True)


def test_an_item_that_was_begun_anew_may_have_the_terms_of_either_beginning() -> None:
    rows = [*history(), row_of(created("lot-1", epoch=2, name="Another clock")), row_of(closed("lot-1", 1, epoch=2))]
    for beginning in (rows[0], rows[-2]):
        assert derived(item_of(rows[-1], beginning), rows).is_sound
    other = row_of(created("lot-1", name="No clock"))
    assert "No clock" in derived(item_of(rows[-1], other), rows).text()


def test_what_a_bid_tells_of_the_item_has_to_agree() -> None:
    rows = history()[:3]
    item = item_of(history()[-1], rows[0]) | {"seq": 2, "current_bid": 200, "highest_bidder_id": "bob"}
    assert derived(item, rows).is_sound
    for changed in ({"current_bid": 1}, {"highest_bidder_id": "ada"}, {"seq": 1}, {"seq": 3}):
        assert not derived(item | changed, rows).is_sound
    assert place_found(derived(item | {"seq": 3}, rows)) == "1:3", "the one that is missing"
    assert place_found(derived(None, rows)) == "1:2"
