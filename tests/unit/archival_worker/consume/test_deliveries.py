"""A message is taken apart or becomes a poison with a reason; it never raises and keeps its place in the outbox."""

from __future__ import annotations

import msgspec
import pytest

from archival_worker.consume.deliveries import Delivery, read_delivery
from shared import names
from shared.names import OutboxEntry
from tests.unit.archival_worker.events import bid, created, delivery, message, message_id

SHARD = names.shard_of("lot")
SUBJECT = names.subject_of("lot")


RULING = {
    **{"ts_us": 1, "item_id": "lot", "seller_id": None, "user_id": "ann", "ruling": "block", "approved": False},
    **{"blocked": True, "limit": None, "reason": "", "by": "olga"},
}


def read(data: bytes, header: str | None = None, reply: str = "") -> Delivery:
    return read_delivery(SUBJECT, data, reply, header)


def test_a_sound_message_has_its_events_and_its_entry() -> None:
    read_back = read(message(5, created("lot"), bid("lot", 1)))
    assert read_back.fault is None
    assert read_back.entry == OutboxEntry(SHARD, 1, 5)
    assert read_back.batch is not None
    assert [event.seq for event in read_back.batch.events] == [0, 1]
    assert read_back.rows == 2


def test_rulings_are_rows_too() -> None:
    read_back = read(changed(rulings=[RULING, RULING]))
    assert (read_back.fault, read_back.rows) == (None, 4)


def changed(**fields: object) -> bytes:
    body = msgspec.json.decode(message(5, bid("lot", 1), bid("lot", 2)))
    return msgspec.json.encode(body | fields)


def event_changed(at: int, **fields: object) -> bytes:
    body = msgspec.json.decode(message(5, bid("lot", 1), bid("lot", 2)))
    body["events"][at] |= fields
    return msgspec.json.encode(body)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "undecodable"),
        (b"\xff\xfe", "undecodable"),
        (b'{"v":1,"shard":"\xff"}', "undecodable"),
        (b"[" * 100_000, "undecodable"),
        (changed(v=2), "undecodable"),
        (changed(n="5"), "undecodable"),
        (event_changed(0, type=7), "undecodable"),
        (event_changed(0, amount=1.5), "undecodable"),
        (changed(item_id="a b"), "item id"),
        (changed(item_id="lot\x00"), "item id"),
        (changed(shard="s99"), "is not of shard"),
        (changed(item_id="~17"), "is no item, and may have rulings"),
        (changed(item_id="~"), "item id"),
        (changed(rulings=[RULING | {"item_id": "other"}]), "a ruling on something else"),
        (changed(rulings=[RULING | {"limit": 1.5}]), "undecodable"),
        (changed(n=0), "no outbox entry"),
        (changed(shard_epoch=-1), "no outbox entry"),
        (event_changed(1, item_id="other"), "an event of item 'other'"),
        (event_changed(1, seq=3), "event 1:3 where 1:2 was due"),
        (event_changed(1, epoch=2), "event 2:2 where 1:2 was due"),
    ],
)
def test_a_poison_says_why_and_counts_by_its_message_id(data: bytes, reason: str) -> None:
    poison = read(data, header=message_id(5, "lot"))
    assert poison.batch is None
    assert poison.fault is not None
    assert reason in poison.fault
    assert poison.entry == OutboxEntry(SHARD, 1, 5)
    assert poison.data == data
    assert poison.rows == 1


@pytest.mark.parametrize(
    "header",
    [None, "", "x", "s07", "s07:1", "s07:1:", "s07:1:0", "s07:0:1", "s99:1:1", "s07:1:-4", "s07:1:" + "9" * 40],
)
def test_a_poison_without_a_usable_message_id_counts_nowhere(header: str | None) -> None:
    assert read(b"?", header=header).entry is None


@pytest.mark.parametrize(
    ("epoch", "n", "is_entry"),
    [(2**31 - 1, 1, True), (2**31, 1, False), (1, 2**53 - 1, True), (1, 2**53, False)],
)
def test_an_entry_fits_the_columns_of_the_cursors(epoch: int, n: int, is_entry: bool) -> None:
    """Otherwise its whole batch would be refused, for ever."""
    assert (read(b"?", header=f"{SHARD}:{epoch}:{n}").entry is not None) is is_entry
    assert (read(changed(shard_epoch=epoch, n=n)).fault is None) is is_entry


def test_a_long_reason_is_cut() -> None:
    poison = delivery(1, bid("lot", 1)).as_poison("x" * 10_000)
    assert poison.fault is not None
    assert len(poison.fault) == 500
    assert poison.entry == OutboxEntry(SHARD, 1, 1)


@pytest.mark.parametrize(
    ("reply", "stream_seq"),
    [
        ("$JS.ACK.AUCTION_EVENTS.archiver.1.42.7.1750000000000000000.0", 42),
        ("$JS.ACK.hub.ACCOUNT.AUCTION_EVENTS.archiver.1.43.7.1750000000000000000.0", 43),
        ("$JS.ACK.hub.ACCOUNT.AUCTION_EVENTS.archiver.1.44.7.1750000000000000000.0.token", 44),
        ("_INBOX.whatever", 0),
        ("", 0),
    ],
)
def test_the_stream_sequence_is_in_the_acknowledgement_subject(reply: str, stream_seq: int) -> None:
    assert read(b"?", reply=reply).stream_seq == stream_seq
