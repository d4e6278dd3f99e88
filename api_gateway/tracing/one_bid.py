"""What is traced of one request, and of one of its bids."""

from __future__ import annotations

from contextvars import ContextVar

from api_gateway.contract.problems import status_of
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from shared.domain.errors import BiddingError
from shared.redis_layout.verdicts import ACCEPTED, KEY_REUSED, KEY_REUSED_LINE, code_of_refusal
from shared.tracing.spans import TRACES_MAX, Facts, Span, SpanContext, Tracer, trace_of_task


class TracedRequest:
    """A sampled request with one bid or many; ``room``: how many more of them are traced."""

    __slots__ = ("has_one", "room", "span")

    def __init__(self, span: Span, *, has_one: bool) -> None:
        self.span = span
        self.has_one = has_one
        self.room = 1 if has_one else TRACES_MAX

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self.span.context.trace_id:032x}"


request_of_task: ContextVar[TracedRequest | None] = ContextVar("request_of_task", default=None)
"""The sampled request that the running task answers."""


class BidTrace:
    """One sampled bid: it waits for a flush, then the script decides it."""

    __slots__ = ("_child", "_tracer", "request")

    def __init__(self, tracer: Tracer, request: TracedRequest) -> None:
        self._tracer = tracer
        self.request = request
        self._child = tracer.start("wait", parent=request.span.context)

    def taken(self, at_ns: int, facts: Facts) -> None:
        """A flush has taken the bid."""
        self._end(at_ns)
        self._child = self._tracer.start("decide", parent=self.request.span.context, start_ns=at_ns, facts=facts)

    def decided(self, at_ns: int, verdict: bytes) -> SpanContext | None:
        """The script has; the span that has decided it, where there is one."""
        child = self._child
        if child is None:
            return None
        child.note({"bidding.verdict": code_of(verdict)})
        self._end(at_ns)
        return child.context

    def answered(self, verdict: PendingVerdict, *, ends: bool) -> None:
        """It has its answer. ``ends``: so its request is over."""
        facts, error = _outcome(verdict)
        self._end(None, error)
        if self.request.has_one:
            self.request.span.note(facts)
        if ends:
            self.request.span.end(error=error)

    def _end(self, at_ns: int | None, error: str = "") -> None:
        if self._child is not None:
            self._child.end(at_ns=at_ns, error=error)
            self._child = None


def enter(request: TracedRequest | None) -> None:
    """The running task answers this request, up to its end: its bids and its lines in the log belong to the trace."""
    request_of_task.set(request)
    trace_of_task.set("" if request is None else request.trace_id)


def code_of(verdict: bytes) -> str:
    """``ACCEPTED``, or the code of the refusal: no amount, and nobody's name."""
    if verdict.startswith(ACCEPTED):
        return "ACCEPTED"
    return KEY_REUSED if verdict == KEY_REUSED_LINE else code_of_refusal(verdict)


def _outcome(verdict: PendingVerdict) -> tuple[Facts, str]:
    """What a bid was answered, and the code of what went wrong."""
    failure = verdict.exception()
    if failure is None:
        line = verdict.result()
        code = code_of(line)
        status = 201 if code == "ACCEPTED" else 422 if code == KEY_REUSED else 200
        return {"bidding.verdict": code, "http.response.status_code": status}, ""
    if isinstance(failure, ItemMissing):
        return {"bidding.verdict": "NOT_IN_REDIS"}, ""  # the archive answers it
    if isinstance(failure, BiddingError):
        return {"bidding.verdict": failure.code, "http.response.status_code": status_of(failure)}, failure.code
    return {}, type(failure).__name__
