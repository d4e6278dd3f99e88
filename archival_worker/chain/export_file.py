"""The file of an export: written event by event, and checked without anything else. Pure but for the file.

A gzip-compressed text of JSON lines, all in canonical form (see :mod:`archival_worker.chain.hashes`):

1. ``{"epoch", "format", "item_id", "seq", "state", "terms"}``: the item, up to which event, its final state, its terms;
2. one line per event, in order: ``{"event": <canonical content>, "hash": <64 hex digits>}``;
3. ``{"summary": {"bids", "epoch", "events", "head", "seq", "voids"}}``: counts, and the hash of the last event.

The terms hold the reserve, if there was one, and never a bidder's maximum, which the archive does not have.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from archival_worker.chain.hashes import START, Head, Row, Version, canonical, content_of, follows, next_hash
from archival_worker.errors import ExportFailed

FORMAT: Final = "bidding-export/1"

TERMS: Final = (
    "name",
    "description",
    "seller_id",
    "currency",
    "start_price",
    "reserve_price",
    "buy_now_price",
    "increment_kind",
    "increment_value",
    "increment_steps",
    "start_us",
    "end_us",
    "soft_close",
    "auto_opened",
)
_LATER_TERMS: Final = ("image_urls",)
"""Terms that a `created` event lacks if they are empty, or if it is older than they are."""
STATE: Final = ("status", "current_bid", "highest_bidder_id", "bid_count", "min_next_bid", "reserve_met", "end_us")

_GZIP_LEVEL: Final = 6
# Tells zlib to write gzip's header and trailer, and to use the largest window. The header has no name and no time:
# they would make every attempt a different file.
_GZIP_WBITS: Final = 16 + zlib.MAX_WBITS
_LINE_BYTES_MAX: Final = 1024 * 1024


class ExportWriter:
    """Writes one file; the same content gives the same bytes, whenever and wherever it is written."""

    def __init__(self, raw: BinaryIO, item_id: str, place: Version, state: Row) -> None:
        self._raw = raw
        # Not a GzipFile: when an abandoned one is garbage-collected, it writes its rest to a file that is closed.
        self._gzip = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WBITS)
        self._item_id = item_id
        self._place = place
        self._state = {key: state[key] for key in STATE}
        self._head = START
        self._last: Row | None = None
        self._events = self._bids = self._voids = 0

    @property
    def head(self) -> Head:
        """The chain so far."""
        return self._head

    def add(self, rows: Iterable[Row]) -> None:
        """The next events, with the hashes that are stored for them.

        Raises:
            ExportFailed: something is missing or does not fit its hash; it must not be exported as if it were sound.
        """
        for row in rows:
            place = Version(row["epoch"], row["seq"])
            if not follows(self._head.place, place):
                raise ExportFailed(f"{self._item_id} has nothing between {self._head.place} and {place}")
            content = content_of(row)
            self._head = Head(place, next_hash(self._head.hash, content))
            if row["hash"] != self._head.hash:
                raise ExportFailed(f"event {place} of {self._item_id} does not fit its hash; see `bidding audit`")
            if not self._events:
                self._write_terms(row)
            self._events += 1
            self._bids += row["type"] == "bid"
            self._voids += row["type"] == "voided"
            self._write(_event_line(content, self._head.hash))
            self._last = row

    def _write_terms(self, row: Row) -> None:
        if row["type"] != "created":
            raise ExportFailed(f"the first event of {self._item_id} is not its creation")
        body = json.loads(row["body"])
        first = {
            "format": FORMAT,
            "item_id": self._item_id,
            "epoch": self._place.epoch,
            "seq": self._place.seq,
            "terms": terms_in(body),
            "state": self._state,
        }
        self._write(canonical(first) + b"\n")

    def finish(self) -> None:
        """Write the last line.

        Raises:
            ExportFailed: events are missing, or the item's state is not the one after the last of them.
        """
        if self._head.place != self._place or self._last is None:
            raise ExportFailed(f"{self._item_id} ends with {self._head.place}, not with {self._place}")
        if self._state != state_after(self._last):
            raise ExportFailed(f"{self._item_id} is in another state than after its last event; see `bidding audit`")
        self._write(canonical({"summary": self._summary()}) + b"\n")
        self._raw.write(self._gzip.flush())

    def _write(self, line: bytes) -> None:
        self._raw.write(self._gzip.compress(line))

    def _summary(self) -> dict[str, Any]:
        return summary_of(self._head, self._events, self._bids, self._voids)


def summary_of(head: Head, events: int, bids: int, voids: int) -> dict[str, Any]:
    """The content of the last line."""
    return {
        "events": events,
        "bids": bids,
        "voids": voids,
        "epoch": head.place.epoch,
        "seq": head.place.seq,
        "head": head.hash.hex(),
    }


def terms_in(body: dict[str, Any]) -> dict[str, Any]:
    """The terms in the body of a `created` event."""
    return {key: body.get(key) for key in TERMS} | {key: body[key] for key in _LATER_TERMS if key in body}


def state_after(row: Row) -> dict[str, Any]:
    """The state of the item after this event; after a bid only what the bid's row has of it."""
    if row["body"] is None:
        return {"current_bid": row["amount"], "highest_bidder_id": row["leader_id"] or row["user_id"]}
    body = json.loads(row["body"])
    return {key: body.get(key) for key in STATE}


def _event_line(content: bytes, digest: bytes) -> bytes:
    return b'{"event":%b,"hash":"%b"}\n' % (content, digest.hex().encode())


class NotAnExport(Exception):
    """The file cannot be read as an export at all."""


class BadLine(Exception):
    """The first line that does not fit, and why."""

    def __init__(self, line: int, reason: str) -> None:
        self.line = line
        self.reason = reason
        super().__init__(f"line {line}: {reason}")


@dataclass(frozen=True, slots=True)
class Verified:
    """What a file that fits holds: how the item ended, and the end of its chain.

    ``creations``: how often the item was created, normally once.
    """

    item_id: str
    head: Head
    events: int
    bids: int
    voids: int
    creations: int
    terms: dict[str, Any]
    state: dict[str, Any]

    def told(self) -> dict[str, Any]:
        """The last line and the ``item_id``."""
        return {"item_id": self.item_id, **summary_of(self.head, self.events, self.bids, self.voids)}


def verify(path: Path) -> Verified:
    """Check a file without any server.

    Raises:
        NotAnExport: it cannot be opened, is not compressed by gzip, or does not begin as an export does.
        BadLine: it is one, and something in it does not fit.
    """
    try:
        with gzip.open(path, "rb") as file:
            return _Verifier().run(file)
    except (OSError, EOFError, zlib.error) as error:
        # An OSError's text has its number, and the path once more, which help nobody.
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise NotAnExport(f"{path}: {why}") from error


class _Verifier:
    """One pass over the lines."""

    def __init__(self) -> None:
        self._line = 0
        self._head = START
        self._events = self._bids = self._voids = self._creations = 0
        self._price = 0
        self._standing = 0
        self._first: dict[str, Any] = {}
        self._body: dict[str, Any] | None = None

    def run(self, file: Any) -> Verified:
        try:
            self._begin(self._next(file))
        except BadLine as error:
            raise NotAnExport(f"not the first line of an export: {error.reason}") from error
        while True:
            try:
                line = self._next(file)
            except (OSError, EOFError, zlib.error) as error:
                # Its first line was right, so this is an export that was cut off or damaged, not some other file.
                raise BadLine(self._line, f"the compressed data ends or is damaged here: {error}") from error
            if line.keys() == {"summary"}:
                break
            if line.keys() != {"event", "hash"}:
                raise BadLine(self._line, "neither an event with its hash nor the summary")
            try:
                self._event(line)
            except (KeyError, TypeError, ValueError) as error:
                raise BadLine(self._line, f"not an event: {error!r}") from error
        return self._end(file, line["summary"])

    def _next(self, file: Any) -> dict[str, Any]:
        self._line += 1
        data: bytes = file.readline(_LINE_BYTES_MAX)
        if not data:
            raise BadLine(self._line, "the file ends without its summary")
        try:
            line = json.loads(data)
            is_canonical = isinstance(line, dict) and canonical(line) + b"\n" == data
        except (ValueError, RecursionError) as error:
            raise BadLine(self._line, f"not JSON: {error}") from error
        if not is_canonical:
            raise BadLine(self._line, "not a JSON object in canonical form")
        return dict(line)

    def _begin(self, line: dict[str, Any]) -> None:
        if line.get("format") != FORMAT:
            raise BadLine(self._line, f"no export of the format {FORMAT}")
        if set(line) != {"format", "item_id", "epoch", "seq", "terms", "state"}:
            raise BadLine(self._line, "its keys are not those of an export")
        if not isinstance(line["terms"], dict) or not isinstance(line["state"], dict):
            raise BadLine(self._line, "terms and state must be objects")
        self._first = line

    def _event(self, line: dict[str, Any]) -> None:
        event = line["event"]
        place = Version(event["epoch"], event["seq"])
        if event["item_id"] != self._first["item_id"]:
            raise BadLine(self._line, f"an event of {event['item_id']}, not of {self._first['item_id']}")
        if not follows(self._head.place, place):
            raise BadLine(self._line, f"event {place} does not follow {self._head.place}")
        self._head = Head(place, next_hash(self._head.hash, canonical(event)))
        if line["hash"] != self._head.hash.hex():
            raise BadLine(self._line, f"event {place} does not fit its hash")
        self._events += 1
        if event["type"] == "bid":
            self._bid(place, event["amount"])
        else:
            self._other(place, event["type"], event["body"])

    def _bid(self, place: Version, amount: int) -> None:
        self._body = None
        self._bids += 1
        # The first bid may equal the start price; every other one must be higher than the price before it.
        if amount < self._price or (amount == self._price and self._standing):
            raise BadLine(self._line, f"bid {place} of {amount} does not rise above {self._price}")
        self._price = amount
        self._standing += 1

    def _other(self, place: Version, kind: str, body: dict[str, Any]) -> None:
        if (body["type"], body["epoch"], body["seq"]) != (kind, *place):
            raise BadLine(self._line, f"the body of event {place} is that of another event")
        if self._events == 1:
            if kind != "created":
                raise BadLine(self._line, "the first event is not the item's creation")
            if self._first["terms"] != terms_in(body):
                raise BadLine(1, "the terms are not those with which the item was created")
            self._price = body["current_bid"]
        self._voids += kind == "voided"
        self._creations += kind == "created"
        if kind != "voided" and body["current_bid"] < self._price:
            raise BadLine(self._line, f"event {place} lowers the price, and only a void may do that")
        self._price = body["current_bid"]
        self._standing = body["bid_count"]
        self._body = body

    def _end(self, file: Any, summary: Any) -> Verified:
        if summary != summary_of(self._head, self._events, self._bids, self._voids):
            raise BadLine(self._line, "the summary is not that of the events above it")
        try:
            if file.readline(1):
                raise BadLine(self._line + 1, "something follows the summary")
        except (OSError, EOFError, zlib.error) as error:
            raise BadLine(self._line, f"the compressed data is damaged at its end: {error}") from error
        if (self._first["epoch"], self._first["seq"]) != self._head.place:
            raise BadLine(1, f"it is said to end with another event than {self._head.place}")
        if self._body is None:
            raise BadLine(self._line - 1, "the last event is a bid, so the item was not closed")
        if self._first["state"] != {key: self._body[key] for key in STATE}:
            raise BadLine(1, "the state is not that after the last event")
        first = self._first
        return Verified(
            first["item_id"],
            self._head,
            self._events,
            self._bids,
            self._voids,
            self._creations,
            first["terms"],
            first["state"],
        )
