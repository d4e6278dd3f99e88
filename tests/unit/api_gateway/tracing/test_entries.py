"""Which entries have sampled bids: bounded, and told to the gateway that relays them."""

from __future__ import annotations

import pytest

from api_gateway.tracing.entries import ENTRIES_MAX, EntryTraces
from shared.tracing.spans import TRACES_MAX, SpanContext
from tests.unit.shared.tracing.kept_spans import KeptSpans

SPAN = SpanContext(1, 2)


def test_what_waits_is_bounded_and_the_oldest_goes() -> None:
    entries = EntryTraces(KeptSpans())
    for number in range(ENTRIES_MAX + 10):
        entries.put(("07", 1, number), [SPAN])
    assert len(entries) == ENTRIES_MAX
    assert entries.publish(("07", 1, 9), "lamp") is None
    assert entries.publish(("07", 1, 10), "lamp") is not None


def test_of_one_entry_a_bounded_number_of_traces_goes_on() -> None:
    tracer = KeptSpans()
    entries = EntryTraces(tracer)
    entries.put(("07", 1, 1), [SpanContext(number, number) for number in range(1, 100)])
    publication = entries.publish(("07", 1, 1), "lamp")
    assert publication is not None
    assert len(tracer.spans) == TRACES_MAX
    assert len(publication.header) < 512


def test_the_gateway_that_relays_hears_of_the_entry_and_this_one_forgets_it() -> None:
    ours, theirs = EntryTraces(KeptSpans()), EntryTraces(KeptSpans())
    ours.put(("07", 3, 41), [SPAN, SpanContext(3, 4)])
    hint = ours.hint("07")
    theirs.heard("07", hint)
    assert len(ours) == 0
    assert theirs.publish(("07", 3, 41), "lamp") is not None
    # What comes next in the shard has no sampled bid.
    assert ours.hint("07") == b""
    ours.put(("08", 3, 42), [SPAN])
    assert ours.hint("07") == b""


@pytest.mark.parametrize(
    "hint",
    [
        b"",
        b"?",
        b"3:41 ",
        b"3:41 nonsense",
        f"-1:41 {SPAN.traceparent}".encode(),
        f"3:{'9' * 40} {SPAN.traceparent}".encode(),
        f"3:41 {SpanContext(1, 2, is_sampled=False).traceparent}".encode(),
        b"\xff" * 100_000,
    ],
)
def test_a_hint_that_is_none_changes_nothing(hint: bytes) -> None:
    entries = EntryTraces(KeptSpans())
    entries.heard("07", hint)
    assert len(entries) == 0
