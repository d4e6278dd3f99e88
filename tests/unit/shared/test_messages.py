"""What a message carries for everybody, and what it carries for the archive alone."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

from shared.messages import (
    MESSAGE_START,
    DecodeError,
    EventBatch,
    UnknownEvent,
    decode_any_event,
    decode_batch,
    decode_event,
    encode_event,
    frame_batch,
    type_of,
)
from shared.sealed import SealedFact, decode_sealed_batch
from tests.unit.archival_worker.events import bid, of_the_future

ROOT = Path(__file__).parents[3]
SECRET = 4_711_003

EVENT = bid("lot-1", 1)
FACT = SealedFact(seq=1, ts_us=5, user_id="ada", leader_id="ada", leader_max=SECRET, runner_up=0, max_amount=SECRET)


def message(*facts: SealedFact) -> bytes:
    return frame_batch("s25", 1, 7, "lot-1", b"[%b]" % encode_event(EVENT), msgspec.json.encode(facts))


def test_the_archive_reads_what_is_sealed_and_nobody_else_does() -> None:
    for_the_archive = decode_sealed_batch(message(FACT))
    assert (for_the_archive.events, for_the_archive.sealed) == ([EVENT], [FACT])
    for_everybody = decode_batch(message(FACT))
    assert for_everybody.events == [EVENT]
    assert str(SECRET) not in repr(for_everybody)
    assert "sealed" not in EventBatch.__struct_fields__


def test_a_message_without_sealed_facts_is_as_it_always_was() -> None:
    plain = frame_batch("s25", 1, 7, "lot-1", b"[%b]" % encode_event(EVENT))
    assert b"sealed" not in plain
    assert plain.startswith(MESSAGE_START)
    assert decode_sealed_batch(plain).sealed == []
    assert not encode_event(EVENT).startswith(MESSAGE_START)


@pytest.mark.parametrize("nonsense", [b"{}", b"[1]", b'[{"seq":1}]', b"null", b'[{"seq":"1"}]'])
def test_sealed_facts_that_make_no_sense_make_the_message_a_poison(nonsense: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_sealed_batch(frame_batch("s25", 1, 7, "lot-1", b"[]", nonsense))


def test_the_archival_worker_alone_can_decode_them() -> None:
    folders = ("api_gateway", "broadcast_service", "load_tests", "infrastructure", "shared")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 50
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                imported = [f"{node.module}.{alias.name}" for alias in node.names]
            assert not any(name.startswith("shared.sealed") for name in imported), path


def test_an_event_of_an_unknown_type_is_told_as_such_to_who_asks_for_it() -> None:
    unknown = of_the_future("lot-1", 7, colour="red")
    assert isinstance(unknown, UnknownEvent)
    assert (type_of(unknown), unknown.version, unknown.current_bid) == ("relisted", (1, 7), 700)
    assert decode_any_event(encode_event(unknown)) == unknown
    with pytest.raises(DecodeError):
        decode_event(encode_event(unknown))


def test_a_message_with_one_keeps_all_that_is_known() -> None:
    events = [bid("lot-1", 1), of_the_future("lot-1", 2), bid("lot-1", 3)]
    data = frame_batch(
        "s25", 1, 7, "lot-1", b"[%b]" % b",".join(map(encode_event, events)), msgspec.json.encode([FACT])
    )
    batch = decode_sealed_batch(data)
    assert (batch.events, batch.sealed, batch.n) == (events, [FACT], 7)
    with pytest.raises(DecodeError):
        decode_batch(data)


@pytest.mark.parametrize(
    "nonsense",
    [
        b'{"type":"relisted"}',
        b'{"type":7}',
        b"7",
        encode_event(EVENT).replace(b'"amount":100', b'"amount":"100"'),
        encode_event(of_the_future("lot-1", 1, ratio=1)).replace(b'"ratio":1', b'"ratio":0.5'),
    ],
    ids=["no state", "no type", "no object", "a known one that is wrong", "a fraction"],
)
def test_what_is_no_event_is_not_one_of_an_unknown_type(nonsense: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_any_event(nonsense)
    with pytest.raises(DecodeError):
        decode_sealed_batch(frame_batch("s25", 1, 7, "lot-1", b"[%b]" % nonsense))
