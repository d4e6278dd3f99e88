"""Spans by OpenTelemetry's SDK, sent by OTLP over HTTP from a thread of its own. Imported only where bids are traced.

Nothing is registered globally: libraries that trace by themselves find no provider, so the spans of this file are all
that leave the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, Status, StatusCode, TraceFlags, set_span_in_context
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import SpanContext as SdkContext
from typing_extensions import override

from shared.pacing.seldom import Seldom
from shared.tracing.settings import collector_secrets
from shared.tracing.spans import Facts, Kind, SpanContext

logger = logging.getLogger(__name__)

CLOSE_S: Final = 3.0
"""How long the end of a service waits for the last spans to be taken."""
_COMPLAINTS_MAX: Final = 2
"""Lines a minute about a collector that takes nothing."""
_COMPLAINT_CHARACTERS_MAX: Final = 300

_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "internal": SpanKind.INTERNAL,
    "server": SpanKind.SERVER,
    "producer": SpanKind.PRODUCER,
    "consumer": SpanKind.CONSUMER,
}
# Not the context of the task: a span that a library has put there must not become a parent.
_NOBODY: Final = Context()


class _Complaints(logging.Handler):
    """The SDK's own log, at a bounded rate: it tells of each batch that was not taken. It shows headers and addresses
    as they are; here what may be a key is hidden."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seldom = Seldom(logger, lines_max=_COMPLAINTS_MAX)
        self._hidden = collector_secrets(os.environ)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        for secret in self._hidden:
            text = text.replace(secret, "***")
        self._seldom.warning("traces: %s", text[:_COMPLAINT_CHARACTERS_MAX])


class _Span:
    """Implements :class:`shared.tracing.spans.Span`."""

    __slots__ = ("_span", "context")

    def __init__(self, span: SdkSpan) -> None:
        self._span = span
        own = span.get_span_context()
        self.context = SpanContext(own.trace_id, own.span_id)

    def note(self, facts: Facts) -> None:
        self._span.set_attributes(dict(facts))

    def end(self, *, at_ns: int | None = None, error: str = "") -> None:
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(at_ns)


class OtlpTracer:
    """Implements :class:`shared.tracing.spans.Tracer`.

    The sampler, the bounds of the queue and all of the exporter are what the ``OTEL_…`` variables say. A full queue
    drops spans; no call here waits for the collector.
    """

    def __init__(self, service: str, *, exporter: SpanExporter | None = None) -> None:
        """``exporter``: in place of the one over HTTP."""
        log = logging.getLogger("opentelemetry")
        log.propagate = False
        log.handlers = [_Complaints()]
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        # At the exit of the interpreter the SDK would wait for 30 s.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._exporter = exporter or OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("bidding")

    def start(
        self,
        name: str,
        *,
        parent: SpanContext | None = None,
        link: SpanContext | None = None,
        kind: Kind = "internal",
        start_ns: int | None = None,
        facts: Facts | None = None,
    ) -> _Span | None:
        """See :meth:`shared.tracing.spans.Tracer.start`."""
        span = self._tracer.start_span(
            name,
            context=_NOBODY if parent is None else set_span_in_context(NonRecordingSpan(_sdk(parent)), _NOBODY),
            kind=_KINDS[kind],
            attributes=None if facts is None else dict(facts),
            links=None if link is None else [Link(_sdk(link))],
            start_time=start_ns,
            record_exception=False,
            set_status_on_exception=False,
        )
        return _Span(span) if span.get_span_context().trace_flags.sampled else None

    async def close(self) -> None:
        """Send what is left, for :data:`CLOSE_S` seconds at most."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._provider.shutdown()
            # The loop may be closed by then.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        # A thread of the loop's own would be waited for at its end.
        threading.Thread(target=send, name="last-traces", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_S):
                await done.wait()
        except TimeoutError:
            logger.warning("traces: the last spans were not taken within %g s", CLOSE_S)
            # Ends the exporter's retries.
            self._exporter.shutdown()


def _sdk(context: SpanContext) -> SdkContext:
    flags: Any = TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT)
    return SdkContext(context.trace_id, context.span_id, is_remote=True, trace_flags=flags)
