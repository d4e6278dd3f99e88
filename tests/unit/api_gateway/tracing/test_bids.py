"""Which bids are traced, and what becomes of their spans inside the gateway."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from msgspec.structs import replace

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import Decided
from api_gateway.tracing.bids import BID_ROUTE, BidTraces
from api_gateway.tracing.one_bid import enter
from shared import names
from shared.domain.errors import OutcomeUnknown
from shared.http.insiders import OWN_MACHINE, Insiders
from shared.http.proxies import Proxies
from shared.logs import JsonLines
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.verdicts import AcceptedBid, RefusedBid
from shared.tracing.spans import TRACES_MAX, SpanContext
from tests.unit.shared.tracing.kept_spans import KeptSpans

CALLER = SpanContext(7, 8)
ACCEPTED = AcceptedBid("b", 1, 500, 500, True, 600, True, "bid", 1, 1).encode()
TOO_LOW = RefusedBid("TOO_LOW", 500, False, 600, True).encode()


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def traces_of(tracer: KeptSpans, *, rate_max: int = 100, clock: Clock | None = None) -> BidTraces:
    believed = Insiders(OWN_MACHINE, Proxies("10.0.0.0/8"))
    return BidTraces(tracer, believed, rate_max=rate_max, clock=clock or Clock())


def headers(context: SpanContext = CALLER, **others: str) -> list[tuple[bytes, bytes]]:
    named = {"traceparent": context.traceparent, **others}
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]


def pending(bid_id: str = "b", item_id: str = "lamp") -> PendingBid:
    verdict = PendingVerdict()
    return PendingBid(item_id, "ann", bid_id, 500, 900, "a-key", False, verdict)


def decided(*verdicts: bytes, entry: int = 5) -> Decided:
    return Decided(verdicts, entry, entry, Lineage("run", 3))


@pytest.mark.parametrize(
    ("peer", "others", "is_parent"),
    [
        ("127.0.0.1", {}, True),
        ("192.0.2.7", {}, False),
        (None, {}, False),
        # A load balancer hands on what a stranger sends; and what our own machine sends by way of it.
        ("10.1.2.3", {"x_forwarded_for": "192.0.2.7"}, False),
        ("10.1.2.3", {"x_forwarded_for": "127.0.0.1"}, True),
        ("127.0.0.1", {"x_forwarded_for": "192.0.2.7"}, False),
    ],
)
def test_only_the_word_of_insiders_is_a_parent(peer: str | None, others: dict[str, str], is_parent: bool) -> None:
    tracer = KeptSpans()
    assert traces_of(tracer).begin(BID_ROUTE, headers(CALLER, **others), peer, 0.0) is not None
    (span,) = tracer.spans
    assert (span.parent == CALLER) is is_parent
    assert (span.link == CALLER) is not is_parent
    assert (span.context.trace_id == CALLER.trace_id) is is_parent


def test_a_stranger_who_says_sampled_is_sampled_as_anybody() -> None:
    traces = traces_of(KeptSpans(samples_roots=False))
    assert traces.begin(BID_ROUTE, headers(), "192.0.2.7", 0.0) is None
    assert traces.begin(BID_ROUTE, headers(), "127.0.0.1", 0.0) is not None


def test_an_insider_who_says_unsampled_is_heeded() -> None:
    unsampled = SpanContext(7, 8, is_sampled=False)
    assert traces_of(KeptSpans()).begin(BID_ROUTE, headers(unsampled), "127.0.0.1", 0.0) is None


def test_so_many_a_second_are_traced_whoever_asks() -> None:
    clock = Clock()
    traces = traces_of(KeptSpans(), rate_max=10, clock=clock)

    def traced() -> int:
        return sum(traces.begin(BID_ROUTE, headers(), "127.0.0.1", 0.0) is not None for _ in range(50))

    assert traced() == 10
    assert traced() == 0
    clock.now_s += 0.5
    assert traced() == 5


def test_what_is_not_sampled_is_not_counted() -> None:
    traces = traces_of(KeptSpans(samples_roots=False), rate_max=1)
    for _ in range(50):
        assert traces.begin(BID_ROUTE, (), "192.0.2.7", 0.0) is None
    assert traces.begin(BID_ROUTE, headers(), "127.0.0.1", 0.0) is not None


async def test_a_bid_goes_through_its_steps_to_the_pub_ack() -> None:
    tracer = KeptSpans()
    traces = traces_of(tracer)
    bid, other = pending(), pending("other")
    traces.follow(bid, headers(), "127.0.0.1", 0.0)
    traces.taken([[bid, other]])
    traces.decided([bid, other], decided(ACCEPTED, ACCEPTED))
    bid.verdict.set_result(ACCEPTED)
    await asyncio.sleep(0)
    key = (names.shard_of("lamp"), 3, 5)
    publication = traces.entries.publish(key, "lamp")
    assert publication is not None
    request, wait, decide, publish = tracer.spans
    assert [span.name for span in tracer.spans] == [f"POST {BID_ROUTE}", "wait", "decide", "publish"]
    assert (wait.parent, decide.parent, publish.parent) == (request.context, request.context, decide.context)
    assert publication.header == publish.context.traceparent
    assert publish.error is None
    assert {request.error, wait.error, decide.error} == {""}
    assert decide.facts["bidding.flush.bids"] == 2
    assert request.facts["http.response.status_code"] == 201
    # It is sent again until it is in the stream.
    publication.answered(TimeoutError())
    assert publish.error == "TimeoutError"
    again = traces.entries.publish(key, "lamp")
    assert again is not None
    again.answered(None)
    assert traces.entries.publish(key, "lamp") is None
    assert len(traces.entries) == 0


async def test_several_calls_of_one_item_are_of_one_item() -> None:
    tracer = KeptSpans()
    traces = traces_of(tracer)
    bid = pending()
    traces.follow(bid, headers(), "127.0.0.1", 0.0)
    traces.taken([[pending("first"), pending("second")], [pending("third", "vase")], [bid]])
    traces.decided([bid], decided(ACCEPTED))
    facts = tracer.named("wait")[0].facts | tracer.named("decide")[0].facts
    assert (facts["bidding.flush.items"], facts["bidding.flush.bids"]) == (2, 4)


async def test_a_refused_bid_has_no_part_in_an_entry() -> None:
    tracer = KeptSpans()
    traces = traces_of(tracer)
    bid, other = pending(), pending("other")
    traces.follow(bid, headers(), "127.0.0.1", 0.0)
    traces.taken([[bid, other]])
    traces.decided([bid, other], decided(TOO_LOW, ACCEPTED))
    assert len(traces.entries) == 0
    assert tracer.named("decide")[0].facts["bidding.verdict"] == "TOO_LOW"


async def test_a_repeated_bid_that_writes_nothing_ends_with_the_script() -> None:
    traces = traces_of(KeptSpans())
    bid = pending()
    traces.follow(bid, headers(), "127.0.0.1", 0.0)
    traces.taken([[bid]])
    traces.decided([bid], decided(ACCEPTED, entry=0))
    assert len(traces.entries) == 0


@pytest.mark.parametrize(
    ("failure", "error", "status"), [(OutcomeUnknown(), "OUTCOME_UNKNOWN", 503), (ItemMissing(), "", None)]
)
async def test_a_bid_without_a_verdict_ends_all_the_same(failure: Exception, error: str, status: int | None) -> None:
    tracer = KeptSpans()
    traces = traces_of(tracer)
    bid = pending()
    traces.follow(bid, headers(), "127.0.0.1", 0.0)
    traces.taken([[bid]])
    bid.verdict.set_exception(failure)
    await asyncio.sleep(0)
    assert [span.error for span in tracer.spans] == [error, "", error]
    assert tracer.spans[0].facts.get("http.response.status_code") == status


async def test_a_bid_that_waits_for_credit_is_decided_twice_in_one_trace() -> None:
    tracer = KeptSpans()
    traces = traces_of(tracer)
    bid = pending()
    traces.follow(bid, headers(), "127.0.0.1", 0.0)
    traces.taken([[bid]])
    traces.decided([bid], decided(b"R|LIMIT_EXCEEDED|500|0|600|1|9|USD", entry=0))
    again = replace(bid, verdict=PendingVerdict(), has_credit=True)
    traces.taken([[again]])
    traces.decided([again], decided(ACCEPTED))
    assert [span.facts["bidding.verdict"] for span in tracer.named("decide")] == ["LIMIT_EXCEEDED", "ACCEPTED"]
    assert {span.context.trace_id for span in tracer.spans} == {CALLER.trace_id}
    assert len(traces.entries) == 1


async def test_of_one_request_a_bounded_number_of_bids_is_traced() -> None:
    tracer = KeptSpans()
    traces = traces_of(tracer)
    enter(traces.begin("/api/v1/bids:batch", headers(), "127.0.0.1", 0.0))
    for number in range(50):
        traces.join(pending(f"b{number}"))
    assert len(tracer.named("wait")) == TRACES_MAX


async def test_a_line_of_the_log_names_the_trace_of_its_request() -> None:
    record = logging.LogRecord("a", logging.ERROR, __file__, 1, "it failed", None, None)
    assert "trace_id" not in json.loads(JsonLines().format(record))
    enter(traces_of(KeptSpans()).begin(BID_ROUTE, headers(), "127.0.0.1", 0.0))
    assert json.loads(JsonLines().format(record))["trace_id"] == f"{CALLER.trace_id:032x}"
