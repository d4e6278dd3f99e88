"""Sampled bids on their way to viewers: when their spans end, and how many wait."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broadcast_service.core.frames import Frame, event_frame, snapshot_frame, state_frame, viewers_frame
from broadcast_service.transport.traces import ITEMS_MAX, WAITING_MAX, FrameTraces
from shared.messages import Event, EventBatch
from shared.tracing.spans import SpanContext, trace_of_task, traces_header
from tests.unit.broadcast_service.builders import ITEM, bid, item
from tests.unit.shared.tracing.kept_spans import KeptSpans

SPANS = [SpanContext(1, 2), SpanContext(3, 4)]
VIEWERS = ["ann", "ben"]


@pytest.fixture(autouse=True)
def no_trace_afterwards() -> Iterator[None]:
    """What is not in a task of its own tells the next test's log of the trace too."""
    yield
    trace_of_task.set("")


def batch(*seqs: int, item_id: str = ITEM) -> EventBatch:
    events: list[Event] = [bid(seq, item_id=item_id) for seq in seqs]
    return EventBatch(v=1, shard="07", shard_epoch=1, n=1, item_id=item_id, events=events)


def heard(traces: FrameTraces, of: EventBatch, spans: list[SpanContext] = SPANS) -> None:
    traces.heard(traces_header(spans))
    traces.begin(of)


def frame(seq: int) -> Frame:
    return event_frame(bid(seq), extensions=0)


def test_the_first_frame_that_shows_the_bid_ends_its_span() -> None:
    tracer = KeptSpans()
    traces = FrameTraces(tracer)
    heard(traces, batch(3, 4))
    assert [span.parent for span in tracer.spans] == SPANS
    traces.sent([frame(3)], VIEWERS)
    traces.sent([frame(4)], [])
    traces.sent([viewers_frame(ITEM, 2, True)], VIEWERS)
    assert [span.error for span in tracer.spans] == [None, None]
    traces.sent([frame(4)], VIEWERS)
    assert [span.error for span in tracer.spans] == ["", ""]
    assert tracer.spans[0].facts["bidding.viewers"] == 2
    # The next viewers see it too; that is no news.
    traces.sent([frame(4)], VIEWERS)
    assert len(traces) == 0


def test_a_frame_of_the_newest_state_shows_all_bids_before_it() -> None:
    for shows in (state_frame(bid(9), events=6, bids=6, extensions=0), snapshot_frame(item(9))):
        tracer = KeptSpans()
        traces = FrameTraces(tracer)
        heard(traces, batch(3))
        heard(traces, batch(4))
        heard(traces, batch(10))
        traces.sent([shows], VIEWERS)
        assert [span.error for span in tracer.spans] == ["", "", "", "", None, None]
        assert len(traces) == 1


def test_a_message_without_traces_has_none_of_the_one_before() -> None:
    tracer = KeptSpans()
    traces = FrameTraces(tracer)
    traces.heard(traces_header(SPANS))
    assert trace_of_task.get() == f"{1:032x}"
    # Nobody watches that item, so it is not begun.
    traces.heard("")
    assert trace_of_task.get() == ""
    traces.begin(batch(3))
    assert tracer.spans == []


def test_what_waits_is_bounded() -> None:
    traces = FrameTraces(KeptSpans())
    for number in range(ITEMS_MAX + 5):
        heard(traces, batch(3, item_id=f"lot-{number}"))
    assert len(traces) == ITEMS_MAX
    tracer = KeptSpans()
    traces = FrameTraces(tracer)
    for seq in range(1, WAITING_MAX + 20):
        heard(traces, batch(seq), SPANS[:1])
    traces.sent([frame(WAITING_MAX + 20)], VIEWERS)
    assert sum(span.error is not None for span in tracer.spans) == WAITING_MAX
