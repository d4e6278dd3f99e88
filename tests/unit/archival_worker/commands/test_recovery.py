"""What the operator's commands say."""

from __future__ import annotations

from datetime import UTC, datetime

from archival_worker.commands.recovery import summary, table
from archival_worker.outbox.missing_entries import published_since, standing_still
from archival_worker.recovery.options import RecoveryReport
from archival_worker.store.dead_letters import Letter, read_letter
from shared import names
from shared.messages import encode_event
from shared.redis_layout.outbox import EntryId
from tests.unit.archival_worker.events import bid, message


def letter(number: int, **changes: object) -> Letter:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    fields: dict[str, object] = {
        "id": number,
        "reason": "poison",
        "subject": names.subject_of("lot-1"),
        "item_id": "lot-1",
        "n": 7,
        "at": at,
        "detail": "undecodable",
        "retried_at": None,
        "outcome": None,
    }
    return Letter(**(fields | changes))  # type: ignore[arg-type]


def test_letters_as_a_table() -> None:
    assert table([]) == "There are no dead letters."
    head, first, second = table([letter(1), letter(12, item_id=None, n=None, outcome="clash")]).splitlines()
    assert head.split() == ["ID", "REASON", "SUBJECT", "ITEM", "N", "AT", "RETRY", "DETAIL"]
    assert "2026-01-02 03:04:05" in first
    assert first.index("undecodable") == second.index("undecodable") == head.index("DETAIL")


def test_what_a_letter_quotes_stays_on_its_line() -> None:
    quoted = "23514 CheckViolationError: no\nDETAIL:  Failing row contains (\x1b[2J, \u202eabc)."
    _, line = table([letter(1, detail=quoted, subject="auction.events.\x1b[31m")]).splitlines()
    assert line.endswith("23514 CheckViolationError: no DETAIL: Failing row contains ( [2J,  abc).")
    assert line.isprintable()


def test_a_summary_says_what_did_not_come_back() -> None:
    report = RecoveryReport(
        shards=["s01", "s02"], items=5, paused={"lot-1": "no terms"}, untouched={"s03": "has an outbox"}
    )
    text = "\n".join(summary(report, dry_run=False))
    assert text.startswith("Rebuilt 2 shards: 5 items")
    assert all(part in text for part in ("refusals", "lot-1: no terms", "s03: has an outbox"))
    assert summary(report, dry_run=True)[0].startswith("Would rebuild")
    many = RecoveryReport(paused={f"lot-{number}": "x" for number in range(30)})
    assert "  and 10 more" in summary(many, dry_run=False)


def row_of(reason: str, data: bytes) -> dict[str, object]:
    shard = names.shard_of("lot-1")
    subject = names.subject_of("lot-1")
    return {"reason": reason, "subject": subject, "data": data, "shard": shard, "shard_epoch": 1, "n": 9}


def test_a_letter_is_read_as_the_message_that_it_was() -> None:
    event = bid("lot-1", 3)
    for row in (row_of("poison", message(9, event)), row_of("clash", encode_event(event))):
        delivery = read_letter(row)
        assert delivery.batch is not None
        assert delivery.batch.events == [event]
        assert delivery.entry == (names.shard_of("lot-1"), 1, 9)
    assert read_letter(row_of("poison", b"{")).fault is not None
    nowhere = row_of("poison", b"{") | {"shard": None, "shard_epoch": None, "n": None}
    assert read_letter(nowhere).entry is None


def test_entries_that_are_missing_are_found_in_a_new_epoch_as_well() -> None:
    archived = {"s01": EntryId(1, 500)}
    assert standing_still(archived, {"s01": EntryId(2, 3)}, archived) == archived
    assert standing_still(archived, {"s01": EntryId(2, 0)}, archived) == {}
    assert standing_still(archived, {"s01": EntryId(1, 500)}, archived) == {}
    assert standing_still({"s01": EntryId(2, 3)}, {"s01": EntryId(1, 500)}, {"s01": EntryId(2, 3)}) == {}


def test_what_counts_as_published_is_what_still_is() -> None:
    before = {"s01": EntryId(1, 9), "s02": EntryId(1, 9), "s03": EntryId(1, 9), "s04": EntryId(1, 9)}
    now = {"s01": EntryId(1, 12), "s02": EntryId(1, 4), "s03": EntryId(2, 20)}
    assert published_since(before, now) == {"s01": EntryId(1, 9), "s02": EntryId(1, 4)}
