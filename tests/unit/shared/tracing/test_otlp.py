"""The SDK behind our tracer: bounded, quiet, and nobody else's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from shared.tracing import otlp
from shared.tracing.opening import open_tracer
from shared.tracing.otlp import OtlpTracer
from shared.tracing.spans import SpanContext


class Exporter(SpanExporter):
    """Keeps spans; while ``gate`` is closed it takes none, and waits."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.gate.wait()
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.gate.set()


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    log = logging.getLogger("opentelemetry")
    before = log.propagate, list(log.handlers)
    yield
    log.propagate, log.handlers = before


async def test_spans_are_sent_at_the_end_with_who_sends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    exporter = Exporter()
    tracer = OtlpTracer("a-service", exporter=exporter)
    parent = SpanContext(11, 12)
    span = tracer.start("step", parent=parent, link=SpanContext(21, 22, is_sampled=False), facts={"a": 1}, start_ns=5)
    assert span is not None
    assert span.context.trace_id == 11
    span.note({"b": "two"})
    span.end(at_ns=9, error="BAD")
    await tracer.close()
    (sent,) = exporter.spans
    assert sent.parent is not None
    assert (sent.name, sent.parent.span_id, sent.start_time, sent.end_time) == ("step", 12, 5, 9)
    assert dict(sent.attributes or {}) == {"a": 1, "b": "two", "error.type": "BAD"}
    assert [link.context.trace_id for link in sent.links] == [21]
    assert sent.resource.attributes["service.name"] == "a-service"


async def test_the_environment_names_the_service_and_chooses_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "ours")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    exporter = Exporter()
    tracer = OtlpTracer("a-service", exporter=exporter)
    assert tracer.start("of nobody") is None
    assert tracer.start("unsampled", parent=SpanContext(1, 2, is_sampled=False)) is None
    span = tracer.start("sampled", parent=SpanContext(1, 2))
    assert span is not None
    span.end()
    await tracer.close()
    assert [each.resource.attributes["service.name"] for each in exporter.spans] == ["ours"]


async def test_nobody_waits_for_a_collector_that_takes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    monkeypatch.setattr(otlp, "CLOSE_S", 0.05)
    exporter = Exporter()
    exporter.gate.clear()
    tracer = OtlpTracer("a-service", exporter=exporter)
    began_s = time.monotonic()
    for _ in range(1_000):
        span = tracer.start("step")
        assert span is not None
        span.end()
    assert exporter.entered.wait(60)
    await tracer.close()
    # The SDK alone would wait for half a minute.
    assert time.monotonic() - began_s < 25
    assert len(exporter.spans) <= 64 + 16
    ours = [record.getMessage() for record in caplog.records if record.name == "shared.tracing.otlp"]
    assert sum(line.startswith("traces: Queue full") for line in ours) <= 2
    assert any("not taken within" in line for line in ours)
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_what_the_sdk_complains_of_is_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    tracer = OtlpTracer("a-service", exporter=Exporter())
    for number in range(100):
        logging.getLogger("opentelemetry.exporter").error("batch %d was not taken", number)
    await tracer.close()
    assert [record.getMessage() for record in caplog.records] == [
        "traces: batch 0 was not taken",
        "traces: batch 1 was not taken",
    ]


async def test_no_log_has_a_key_of_the_collector(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK shows a header that it cannot read, and the address that takes nothing, with all that is in them."""
    monkeypatch.setattr(otlp, "CLOSE_S", 0.5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[elsewhere")
    monkeypatch.setenv(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://ann:hunter-1@127.0.0.1:9/v1/traces?api-key=hunter-2"
    )
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer hunter-3,hunter-4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-key=hunter%2D5,hunter-6 without a name")
    caplog.set_level(logging.INFO)
    async with open_tracer("a-service") as tracer:
        assert tracer is not None
        logging.getLogger("opentelemetry.x").error("Caused by hunter-5 and Bearer hunter-3")
        span = tracer.start("step")
        assert span is not None
        span.end()
    assert "traces of bids go to http://ann:***@127.0.0.1:9/v1/traces" in caplog.text
    assert "Header format invalid" in caplog.text
    assert "hunter" not in caplog.text


async def test_no_library_finds_our_provider() -> None:
    tracer = OtlpTracer("a-service", exporter=Exporter())
    assert not trace.get_tracer("fastapi").start_span("theirs").is_recording()
    await tracer.close()
