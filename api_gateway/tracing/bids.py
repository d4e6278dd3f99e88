"""Sampled bids, from their request to their verdict, and who may have a bid sampled.

The operators of the platform (``TRACE_NETWORKS``) are believed: their ``traceparent`` is the parent of what happens
here, and its flag decides where the sampler heeds parents. A stranger's is at most a link: with it they could have each
of their bids traced, or choose the ids that a sampler by ratio takes. And however many are sampled,
``TRACED_BIDS_RATE_MAX`` a second are traced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.scripts import Decided
from api_gateway.tracing.entries import EntryTraces
from api_gateway.tracing.one_bid import BidTrace, TracedRequest, request_of_task
from shared import names
from shared.http.insiders import Insiders
from shared.pacing.buckets import Bucket, Rate
from shared.redis_layout.verdicts import ACCEPTED
from shared.tracing.spans import SpanContext, Tracer, read_traceparent

BID_ROUTE: Final = "/api/v1/items/{item_id}/bid"
_NS: Final = 1_000_000_000

Headers = Iterable[tuple[bytes, bytes]]


class BidTraces:
    """The traces of one gateway."""

    def __init__(
        self,
        tracer: Tracer,
        believed: Insiders,
        *,
        rate_max: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            believed: whose ``traceparent`` is a parent.
            rate_max: requests a second that are traced, and so many at once.
        """
        self._tracer = tracer
        self._believed = believed
        self._bucket = Bucket(Rate(per_s=rate_max, burst=max(1, rate_max)))
        self._clock = clock
        self.entries = EntryTraces(tracer)

    # ------------------------------------------------------------------------------------------------------- requests

    def begin(self, route: str, headers: Headers, peer: str | None, began_s: float) -> TracedRequest | None:
        """A request has come; None where it is not traced.

        Args:
            headers: names in lower case, and values.
            peer: the address of the other end of the connection.
            began_s: when it came, of ``time.perf_counter``.
        """
        now_s = self._clock()
        if self._bucket.left(now_s) < 1:
            return None
        sent = _traceparent(headers)
        is_believed = sent is not None and self._believed.has(peer, headers)
        span = self._tracer.start(
            f"POST {route}",
            parent=sent if is_believed else None,
            link=None if is_believed else sent,
            kind="server",
            start_ns=time.time_ns() - int((time.perf_counter() - began_s) * _NS),
            facts={"http.request.method": "POST", "http.route": route},
        )
        if span is None:
            return None
        self._bucket.take(now_s, 1)
        return TracedRequest(span, has_one=route == BID_ROUTE)

    def follow(self, bid: PendingBid, headers: Headers, peer: str | None, began_s: float) -> None:
        """Trace a bid that is alone in its request, and was just placed. Call it when who answers waits for the
        verdict: the span of the request ends after that."""
        request = self.begin(BID_ROUTE, headers, peer, began_s)
        if request is not None:
            self._join(bid, request, ends=True)

    def join(self, bid: PendingBid) -> None:
        """Trace a bid that was just placed, if the running task answers a sampled request."""
        request = request_of_task.get()
        if request is not None and request.room:
            request.room -= 1
            self._join(bid, request, ends=False)

    def _join(self, bid: PendingBid, request: TracedRequest, *, ends: bool) -> None:
        trace = bid.trace = BidTrace(self._tracer, request)
        if request.has_one:
            request.span.note({"bidding.item_id": bid.item_id, "bidding.bid_id": bid.bid_id})
        bid.verdict.add_done_callback(partial(trace.answered, ends=ends))

    # ---------------------------------------------------------------------------------------------------- group commit

    def taken(self, calls: Sequence[Sequence[PendingBid]]) -> None:
        """The bids of these calls, each of one item, are one flush."""
        at_ns, bids = time.time_ns(), sum(map(len, calls))
        items = len({call[0].item_id for call in calls})
        for call in calls:
            for bid in call:
                if bid.trace is not None:
                    facts: dict[str, str | int] = {
                        "bidding.item_id": bid.item_id,
                        "bidding.bid_id": bid.bid_id,
                        "bidding.flush.bids": bids,
                        "bidding.flush.items": items,
                    }
                    bid.trace.taken(at_ns, facts)

    def decided(self, call: Sequence[PendingBid], result: Decided) -> None:
        """The bids of one item have their verdicts."""
        at_ns = time.time_ns()
        accepted: list[SpanContext] = []
        for bid, verdict in zip(call, result.verdicts, strict=True):
            if bid.trace is not None:
                context = bid.trace.decided(at_ns, verdict)
                if context is not None and verdict.startswith(ACCEPTED):
                    accepted.append(context)
        if accepted and result.entry:
            self.entries.put((names.shard_of(call[0].item_id), result.lineage.epoch, result.entry), accepted)


def _traceparent(headers: Headers) -> SpanContext | None:
    sent = [value for name, value in headers if name == b"traceparent"]
    return read_traceparent(sent[0].decode("latin-1")) if len(sent) == 1 else None
