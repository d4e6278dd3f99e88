"""Opens the tracer of a service, where there is one."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.server_urls import without_password
from shared.tracing.settings import TracingSettings
from shared.tracing.spans import Tracer

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_tracer(service: str) -> AsyncIterator[Tracer | None]:
    """The tracer of this process, or None where no bids are traced. At the end what it has is sent, within seconds.

    Args:
        service: how traces call the process, unless ``OTEL_SERVICE_NAME`` does.
    """
    settings = TracingSettings()
    if not settings.is_on:
        yield None
        return
    # Imported here, so that a service that traces nothing does not load it.
    from shared.tracing.otlp import OtlpTracer

    tracer = OtlpTracer(service)
    # Some collectors take their key in the query.
    logger.info("traces of bids go to %s", without_password(settings.endpoint.partition("?")[0]))
    try:
        yield tracer
    finally:
        await tracer.close()
