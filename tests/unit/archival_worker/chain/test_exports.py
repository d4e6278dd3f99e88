"""The file of an export: what is in it, which changes are noticed, and how it gets to where it belongs."""

from __future__ import annotations

import gc
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from archival_worker.chain.derived import disagreement
from archival_worker.chain.export_file import STATE, TERMS, BadLine, ExportWriter, NotAnExport, verify
from archival_worker.chain.exports import ExportOptions, key_of, pause_after
from archival_worker.chain.hashes import START, Version, canonical, extended, next_hash
from archival_worker.chain.sinks import Digest, DirectorySink, S3Sink, digest_of, open_sink
from archival_worker.errors import ExportFailed, ExportsMisconfigured
from shared.messages import encode_event
from shared.names import shard_of
from tests.unit.archival_worker.events import bid, closed, created, voided
from tests.unit.archival_worker.export_rows import history, row_of


def chained(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    links, _ = extended(START, rows)
    return [row | {"hash": link.hash} for row, link in zip(rows, links, strict=True)]


def written(rows: list[dict[str, Any]], *, page: int = 100) -> bytes:
    raw = io.BytesIO()
    last = rows[-1]
    state = json.loads(last["body"]) if last["body"] else dict.fromkeys(STATE)
    writer = ExportWriter(raw, "lot-1", Version(last["epoch"], last["seq"]), state)
    for at in range(0, len(rows), page):
        writer.add(rows[at : at + page])
    writer.finish()
    return raw.getvalue()


def lines_of(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(data).splitlines()]


def packed(lines: list[dict[str, Any]]) -> bytes:
    return gzip.compress(b"".join(canonical(line) + b"\n" for line in lines), mtime=0)


def checked(tmp_path: Path, data: bytes) -> dict[str, Any]:
    path = tmp_path / "export.jsonl.gz"
    path.write_bytes(data)
    return verify(path).told()


def rehashed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As somebody would leave it who changed events and computed the chain anew."""
    digest = bytes(32)
    for line in lines[1:-1]:
        digest = next_hash(digest, canonical(line["event"]))
        line["hash"] = digest.hex()
    lines[-1]["summary"]["head"] = digest.hex()
    return lines


def test_an_export_holds_terms_state_events_and_a_summary(tmp_path: Path) -> None:
    rows = chained(history())
    data = written(rows)
    first, *events, last = lines_of(data)
    assert first["terms"]["reserve_price"] == 5_000
    assert first["state"] == {
        "status": "sold",
        "current_bid": 200,
        "highest_bidder_id": "ada",
        "bid_count": 2,
        "min_next_bid": 300,
        "reserve_met": True,
        "end_us": 1_750_000_000_123_459,
    }
    assert [line["event"]["seq"] for line in events] == [0, 1, 2, 3]
    assert [line["hash"] for line in events] == [row["hash"].hex() for row in rows]
    summary = {"bids": 2, "epoch": 1, "events": 4, "head": rows[-1]["hash"].hex(), "seq": 3, "voids": 0}
    assert last == {"summary": summary}
    assert checked(tmp_path, data) == {"item_id": "lot-1", **summary}
    assert "max" not in gzip.decompress(data).decode(), "no bidder's maximum, under whatever name"


def test_an_export_tells_images_where_the_event_does_and_old_ones_stay_as_they_are(tmp_path: Path) -> None:
    events = [created("lot-1"), bid("lot-1", 1), bid("lot-1", 2, user_id="bob"), closed("lot-1", 3)]
    urls = ("/images/a.jpg", "https://img.example.com/b.jpg")
    pictured = [msgspec.structs.replace(events[0], image_urls=urls), *events[1:]]
    data = written(chained([row_of(event) for event in pictured]))
    assert lines_of(data)[0]["terms"]["image_urls"] == list(urls)
    assert checked(tmp_path, data)["events"] == 4
    lines = lines_of(data)
    del lines[0]["terms"]["image_urls"]
    with pytest.raises(BadLine, match="the terms"):
        checked(tmp_path, packed(lines))
    # The export of an item without images has the same bytes as before there were images.
    bare = written(chained(history()))
    assert b"image" not in gzip.decompress(bare)
    assert checked(tmp_path, bare)["events"] == 4


@pytest.mark.parametrize(
    ("urls", "stored", "agrees"),
    [
        ((), [], True),
        (("/images/a.jpg",), ["/images/a.jpg"], True),
        (("/images/a.jpg",), [], False),
        ((), ["/images/a.jpg"], False),
    ],
)
def test_the_row_of_an_item_has_the_images_of_its_creation(
    urls: tuple[str, ...], stored: list[str], agrees: bool
) -> None:
    event = msgspec.structs.replace(created("lot-1"), image_urls=urls or msgspec.UNSET)
    body = json.loads(encode_event(event))
    columns = {"original_end_us": body["end_us"]} | {key: body.get(key) for key in (*STATE, *TERMS)}
    row = columns | {"image_urls": stored}
    found = disagreement(row, [row_of(event)], row_of(event))
    assert (found is None) is agrees, found


def test_the_same_events_give_the_same_bytes_whatever_the_pages() -> None:
    rows = chained(history())
    assert written(rows) == written(rows, page=1)


class Watched(io.BytesIO):
    """A file that knows whether it was written to after it was closed."""

    late = 0

    def write(self, data: Any, /) -> int:
        self.late += self.closed
        return super().write(data)


def test_a_file_that_is_given_up_is_left_alone() -> None:
    rows = chained(history())
    raw = Watched()
    writer = ExportWriter(raw, "lot-1", Version(1, 3), json.loads(rows[-1]["body"]))
    writer.add(rows[:2])
    raw.close()
    del writer
    gc.collect()
    assert raw.late == 0


def test_nothing_gets_out_that_does_not_fit() -> None:
    rows = chained(history())
    with pytest.raises(ExportFailed, match="1:2 of lot-1 does not fit"):
        written([*rows[:2], rows[2] | {"amount": 1}, rows[3]])
    with pytest.raises(ExportFailed, match="nothing between"):
        written([rows[0], *rows[2:]])
    with pytest.raises(ExportFailed, match="not its creation"):
        written(chained([row_of(bid("lot-1", 0)), row_of(closed("lot-1", 1))]))


def swap(lines: list[dict[str, Any]]) -> None:
    lines[2], lines[3] = lines[3], lines[2]


def change(*path: str, to: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Sets a value of the line whose number (from 1) is the first of the path."""

    def apply(lines: list[dict[str, Any]]) -> None:
        at, *keys, last = path
        target = lines[int(at) - 1]
        for key in keys:
            target = target[key]
        target[last] = to

    return apply


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (change("3", "event", "amount", to=101), 3),
        (change("3", "event", "user_id", to="mallory"), 3),
        (change("4", "hash", to="00" * 32), 4),
        (change("2", "event", "body", "reserve_price", to=1), 2),
        (lambda lines: lines.pop(2), 3),
        (lambda lines: lines.pop(4), 5),
        (lambda lines: lines.pop(), 6),
        (lambda lines: lines.append(lines[2]), 7),
        (swap, 3),
        (change("6", "summary", "bids", to=3), 6),
        (change("6", "summary", "head", to="00" * 32), 6),
        (change("1", "terms", "reserve_price", to=1), 1),
        (change("1", "state", "highest_bidder_id", to="mallory"), 1),
        (change("1", "seq", to=2), 1),
        (change("3", "event", "item_id", to="lot-2"), 3),
        (change("3", "note", to="something more"), 3),
    ],
)
def test_the_first_line_that_does_not_fit_is_named(tmp_path: Path, spoil: Callable[[Any], Any], line: int) -> None:
    lines = lines_of(written(chained(history())))
    spoil(lines)
    with pytest.raises(BadLine) as caught:
        checked(tmp_path, packed(lines))
    assert caught.value.line == line


def test_prices_rise_even_where_the_chain_was_computed_anew(tmp_path: Path) -> None:
    for amount in (100, 99):
        lines = lines_of(written(chained(history())))
        lines[3]["event"]["amount"] = amount
        with pytest.raises(BadLine, match="line 4: bid 1:2"):
            checked(tmp_path, packed(rehashed(lines)))
    lines = lines_of(written(chained(history())))
    lines[4]["event"]["body"]["current_bid"] = 150
    with pytest.raises(BadLine, match="line 5: event 1:3 lowers"):
        checked(tmp_path, packed(rehashed(lines)))


def test_a_void_may_lower_the_price(tmp_path: Path) -> None:
    events = [created("lot-1"), bid("lot-1", 1, amount=500), voided("lot-1", 2, voids=1), bid("lot-1", 3, amount=100)]
    rows = chained([row_of(event) for event in [*events, closed("lot-1", 4)]])
    assert checked(tmp_path, written(rows))["voids"] == 1


def test_an_item_that_was_rebuilt_goes_on_in_the_next_epoch(tmp_path: Path) -> None:
    events = [created("lot-1"), bid("lot-1", 1), bid("lot-1", 2, epoch=2), closed("lot-1", 3, epoch=2)]
    rows = chained([row_of(event) for event in events])
    found = checked(tmp_path, written(rows))
    assert (found["epoch"], found["seq"], found["events"]) == (2, 3, 4)


@pytest.mark.parametrize(
    "data",
    [b"", b"no gzip", gzip.compress(b""), gzip.compress(b'{"a":1}\n'), gzip.compress(b"x")],
    ids=["nothing", "no gzip", "an empty one", "another JSON", "no JSON"],
)
def test_what_is_no_export_at_all_is_told_apart(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(NotAnExport):
        checked(tmp_path, data)
    with pytest.raises(NotAnExport):
        verify(tmp_path / "not-there")


def content_of_damaged(data: bytes) -> bytes | None:
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error):
        return None


def test_every_truncation_and_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    data = written(chained(history()))
    noticed = 0
    for at in range(10, len(data), 3):
        with pytest.raises((BadLine, NotAnExport)):
            checked(tmp_path, data[:at])
        flipped = data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
        if content_of_damaged(flipped) == gzip.decompress(data):
            continue  # a bit of the compression's padding
        with pytest.raises((BadLine, NotAnExport)):
            checked(tmp_path, flipped)
        noticed += 1
    assert noticed > 100


def test_keys_are_the_same_for_the_same_events() -> None:
    assert key_of("lot-1", Version(2, 17)) == f"items/{shard_of('lot-1')[1:]}/lot-1/2-17.jsonl.gz"


def test_pauses_double_and_are_bounded() -> None:
    options = ExportOptions(pause_first_s=1, pause_most_s=300)
    assert [pause_after(tries, options) for tries in (1, 2, 3, 9, 10, 10_000)] == [1, 2, 4, 256, 300, 300]


def test_a_directory_holds_whole_files_only(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    digest = digest_of([b"con", b"tent"])
    folder = tmp_path / "exports"
    sink = DirectorySink(folder)
    for _ in range(2):
        sink.put(source, "items/07/lot-1/1-3.jsonl.gz", digest)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files == [folder / "items/07/lot-1/1-3.jsonl.gz"]
    assert files[0].read_bytes() == b"content"
    with pytest.raises(ExportFailed, match="reads back otherwise"):
        sink.put(source, "a", Digest(7, bytes(32)))
    (folder / "file").write_bytes(b"")
    with pytest.raises(ExportFailed, match="file/b"):
        sink.put(source, "file/b", digest)


def test_a_call_that_hung_and_the_attempt_after_it_do_not_share_a_file(tmp_path: Path) -> None:
    """Archivers in two containers have one folder, and the same number of their process."""
    folder, key, content = tmp_path / "exports", "items/07/lot-1/1-3.jsonl.gz", b"content" * 100_000
    whole, hangs = tmp_path / "whole", tmp_path / "hangs"
    whole.write_bytes(content)
    os.mkfifo(hangs)
    digest = digest_of([content])
    with ThreadPoolExecutor() as threads:
        former = threads.submit(DirectorySink(folder).put, hangs, key, digest)
        with hangs.open("wb") as source:
            source.write(content[:-1])
            source.flush()
            # It has read all but the last byte, and written some of that.
            DirectorySink(folder).put(whole, key, digest)
            source.write(content[-1:])
            source.flush()
            source.close()
        former.result(timeout=60)
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / key]
    assert (folder / key).read_bytes() == content


def test_what_an_archiver_that_died_has_left_is_removed_by_the_next_attempt(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "exports/items/07/lot-1/1-3.jsonl.gz"
    source.write_bytes(b"content")
    target.parent.mkdir(parents=True)
    left, present = (target.with_name(f".1-3.jsonl.gz.{name}.tmp") for name in ("left", "present"))
    for path in (left, present):
        path.write_bytes(b"con")
    os.utime(left, (0, 0))
    DirectorySink(tmp_path / "exports").put(source, "items/07/lot-1/1-3.jsonl.gz", digest_of([b"content"]))
    assert set(target.parent.iterdir()) == {target, present}


def test_no_sink_a_folder_or_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_sink(folder="", bucket="", endpoint_url="", timeout_s=1) is None
    assert isinstance(open_sink(folder=str(tmp_path), bucket="", endpoint_url="", timeout_s=1), DirectorySink)
    # None in sys.modules makes an import fail as if the package were not installed.
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ExportsMisconfigured, match="extra `aws`"):
        open_sink(folder="", bucket="b", endpoint_url="", timeout_s=1)


class PretendS3:
    """One object of a bucket. ``checksums``: whether it tells them; ``loses``: whether it keeps something else."""

    def __init__(self, *, checksums: bool, loses: bool) -> None:
        self._checksums = checksums
        self._loses = loses
        self.sent: dict[str, Any] = {}
        self._data = b""

    def put_object(self, **options: Any) -> None:
        self.sent = options
        self._data = options["Body"].read()
        if self._loses:
            self._data = self._data[:-1] + b"?"

    def head_object(self, **_: Any) -> dict[str, Any]:
        told = {"ChecksumSHA256": self.sent["ChecksumSHA256"]} if self._checksums else {}
        return {"ContentLength": len(self._data), **told}

    def get_object(self, **_: Any) -> dict[str, Any]:
        class Body(io.BytesIO):
            def iter_chunks(self, size: int) -> Any:
                return iter(lambda: self.read(size), b"")

        return {"Body": Body(self._data)}


@pytest.mark.parametrize("checksums", [True, False])
def test_an_object_is_confirmed_by_its_checksum_or_by_reading_it_back(tmp_path: Path, checksums: bool) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    client = PretendS3(checksums=checksums, loses=False)
    S3Sink(client, "archive").put(source, "k", digest_of([b"content"]))
    assert (client.sent["Bucket"], client.sent["Key"], client.sent["ContentLength"]) == ("archive", "k", 7)


def test_an_object_that_is_not_what_was_sent_is_no_success(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    with pytest.raises(ExportFailed, match="not what was sent"):
        S3Sink(PretendS3(checksums=False, loses=True), "archive").put(source, "k", digest_of([b"content"]))


def test_what_a_sink_has_is_given_back_and_not_more_than_was_exported(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(b"content")
    digest = digest_of([b"content"])
    sinks = (DirectorySink(tmp_path / "folder"), S3Sink(PretendS3(checksums=True, loses=False), "archive"))
    for sink in sinks:
        sink.put(source, "items/k", digest)
        assert sink.fetch("items/k", copy, bytes_max=7) == digest
        assert copy.read_bytes() == b"content"
        with pytest.raises(ExportFailed, match="more than the 6 bytes"):
            sink.fetch("items/k", copy, bytes_max=6)
    with pytest.raises(ExportFailed, match="No such file"):
        sinks[0].fetch("items/other", copy, bytes_max=7)
    assert [sink.place for sink in sinks] == [str(tmp_path / "folder"), "s3://archive"]
