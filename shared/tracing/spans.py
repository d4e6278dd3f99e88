"""What a trace is to the services: spans, and how their names travel in headers. Pure; knows nothing of OpenTelemetry.

Between processes a span is named as the W3C's recommendation "Trace Context" has it. A message of the stream may carry
the events of many bids, so it names several of them in one header of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Final, Literal, NamedTuple, Protocol

TRACES_HEADER: Final = "Bidding-Traces"
"""The header of a message in the stream: the spans that have published it, separated by commas."""
TRACES_MAX: Final = 8
"""The most bids of one message, or of one request, whose traces go on."""

_HEADER_CHARACTERS_MAX: Final = TRACES_MAX * 56
# A later version may have more behind the flags; version ff is none.
_TRACEPARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
_SAMPLED: Final = 1

Facts = Mapping[str, str | int]
Kind = Literal["internal", "server", "producer", "consumer"]

trace_of_task: ContextVar[str] = ContextVar("trace_of_task", default="")
"""The trace to which the work of the running task belongs, 32 hexadecimal digits; empty where there is none."""


class SpanContext(NamedTuple):
    """The name of a span."""

    trace_id: int
    span_id: int
    is_sampled: bool = True

    @property
    def traceparent(self) -> str:
        """The span's name as the header ``traceparent``."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.is_sampled):02x}"


class Span(Protocol):
    """One step of a trace that is sampled. No method raises, or waits."""

    @property
    def context(self) -> SpanContext: ...

    def note(self, facts: Facts) -> None:
        """Add facts to the span."""

    def end(self, *, at_ns: int | None = None, error: str = "") -> None:
        """End the span, at this time or now; ``error``: the code of what went wrong."""


class Tracer(Protocol):
    """Begins spans. What it makes is sent in the background, or dropped."""

    def start(
        self,
        name: str,
        *,
        parent: SpanContext | None = None,
        link: SpanContext | None = None,
        kind: Kind = "internal",
        start_ns: int | None = None,
        facts: Facts | None = None,
    ) -> Span | None:
        """A span; None where it is not sampled.

        Args:
            parent: the span that has caused it; None for the first of a trace.
            link: a related span of another trace.
            start_ns: when it began, nanoseconds since the Unix epoch; now where it is not given.
        """


def read_traceparent(text: str) -> SpanContext | None:
    """The span in a ``traceparent``; None where it is malformed."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None or (match[1] == "00" and match[5]):
        return None
    trace_id, span_id = int(match[2], 16), int(match[3], 16)
    return SpanContext(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED)) if trace_id and span_id else None


def traces_header(contexts: Iterable[SpanContext]) -> str:
    """The value of :data:`TRACES_HEADER`, of the first ``TRACES_MAX`` spans."""
    return ",".join([context.traceparent for context in contexts][:TRACES_MAX])


def traces_in(header: str) -> list[SpanContext]:
    """The sampled spans that a message names; whatever else stands there is left out."""
    if len(header) > _HEADER_CHARACTERS_MAX:
        return []
    named = (read_traceparent(each) for each in header.split(",")[:TRACES_MAX])
    return [context for context in named if context is not None and context.is_sampled]
