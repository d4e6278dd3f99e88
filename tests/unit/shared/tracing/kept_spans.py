"""A tracer that keeps what it made, for tests without the SDK."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from shared.tracing.spans import Facts, Kind, SpanContext


@dataclass
class KeptSpan:
    """Implements :class:`shared.tracing.spans.Span`."""

    name: str
    context: SpanContext
    parent: SpanContext | None
    link: SpanContext | None
    facts: dict[str, str | int] = field(default_factory=dict)
    error: str | None = None
    """None until it has ended."""

    def note(self, facts: Facts) -> None:
        self.facts |= facts

    def end(self, *, at_ns: int | None = None, error: str = "") -> None:
        assert self.error is None, f"{self.name} ends twice"
        self.error = error


class KeptSpans:
    """Implements :class:`shared.tracing.spans.Tracer`; samples what its parent samples, and roots if it is told to."""

    def __init__(self, *, samples_roots: bool = True) -> None:
        self.spans: list[KeptSpan] = []
        self._samples_roots = samples_roots
        self._ids = itertools.count(1_000)

    def start(
        self,
        name: str,
        *,
        parent: SpanContext | None = None,
        link: SpanContext | None = None,
        kind: Kind = "internal",
        start_ns: int | None = None,
        facts: Facts | None = None,
    ) -> KeptSpan | None:
        if not (self._samples_roots if parent is None else parent.is_sampled):
            return None
        trace_id = next(self._ids) if parent is None else parent.trace_id
        span = KeptSpan(name, SpanContext(trace_id, next(self._ids)), parent, link, dict(facts or {}))
        self.spans.append(span)
        return span

    def named(self, name: str) -> list[KeptSpan]:
        return [span for span in self.spans if span.name == name]
