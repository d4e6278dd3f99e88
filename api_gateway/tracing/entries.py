"""Which sampled bids an outbox entry has, from its decision to its PubAck.

The entry itself says nothing of traces: what is stored, hashed and compared is the same with them and without. So only
the gateway that has decided a bid can go on with its trace. Where another one relays the shard, the hint that wakes it
says which spans have decided the entry. A hint may get lost, or come after the entry was read: then the trace ends with
the script.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from shared import names
from shared.tracing.spans import TRACES_MAX, Span, SpanContext, Tracer, traces_header, traces_in

ENTRIES_MAX: Final = 1_024
"""Entries with sampled bids that wait for their PubAck; past it the oldest is forgotten, and its traces end."""

# Epoch and number of an entry, and its traces.
_HINT: Final = re.compile(rb"([0-9]{1,10}):([0-9]{1,16}) ([0-9a-f,-]+)")

Key = tuple[str, int, int]
"""Shard, epoch and number of an entry."""


class Publication:
    """An entry with sampled bids on its way into the stream."""

    __slots__ = ("_on_stored", "_spans", "header")

    def __init__(self, spans: Sequence[Span], on_stored: Callable[[], object]) -> None:
        self._spans = spans
        self._on_stored = on_stored
        self.header = traces_header(span.context for span in spans)
        """The header of the message, which names the spans that publish it."""

    def answered(self, error: Exception | None) -> None:
        """JetStream has answered; without an error it has the message."""
        for span in self._spans:
            span.end(error="" if error is None else type(error).__name__)
        self._spans = ()
        if error is None:
            self._on_stored()


class EntryTraces:
    """The entries that this gateway has decided and that are not in the stream yet."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._waiting: dict[Key, Sequence[SpanContext]] = {}
        self._newest: Key | None = None

    def __len__(self) -> int:
        """Entries that wait."""
        return len(self._waiting)

    def put(self, key: Key, decided: Sequence[SpanContext]) -> None:
        """An entry has these sampled bids, named by the spans that have decided them."""
        while len(self._waiting) >= ENTRIES_MAX:
            del self._waiting[next(iter(self._waiting))]
        self._waiting[key] = decided[:TRACES_MAX]
        self._newest = key

    def hint(self, shard: str) -> bytes:
        """What to tell the gateway that relays this shard of the entry that was just written; empty where it has no
        sampled bid. Forgets the entry."""
        key, self._newest = self._newest, None
        decided = self._waiting.pop(key, None) if key is not None and key[0] == shard else None
        return b"" if key is None or decided is None else f"{key[1]}:{key[2]} {traces_header(decided)}".encode()

    def heard(self, shard: str, hint: bytes) -> None:
        """Take the hint of another gateway that has written an entry of this shard."""
        match = _HINT.fullmatch(hint)
        if match is not None and (decided := traces_in(match[3].decode())):
            self.put((shard, int(match[1]), int(match[2])), decided)

    def publish(self, key: Key, item_id: str) -> Publication | None:
        """The entry is sent now, for the first time or again; None where it has no sampled bid that is known here."""
        decided = self._waiting.get(key)
        if decided is None:
            return None
        shard, epoch, n = key
        facts = {
            "messaging.system": "nats",
            "messaging.operation.type": "send",
            "messaging.destination.name": names.STREAM,
            "bidding.item_id": item_id,
            "bidding.shard": shard,
            "bidding.entry": f"{epoch}:{n}",
        }
        begun = (self._tracer.start("publish", parent=parent, kind="producer", facts=facts) for parent in decided)
        spans = [span for span in begun if span is not None]
        return Publication(spans, lambda: self._waiting.pop(key, None)) if spans else None
