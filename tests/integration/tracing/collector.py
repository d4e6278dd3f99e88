"""A collector of traces: OTLP over HTTP, as much of it as the SDK speaks, inside the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from infrastructure.local.servers.ports import HOST
from tests.tcp import serving


class Sent(NamedTuple):
    """A span as it came. Ids are hexadecimal; times nanoseconds since the Unix epoch."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    begins_ns: int
    ends_ns: int
    facts: dict[str, str | int]


class Collector:
    """What was sent to it, by whom; while ``is_well`` is not set it refuses all."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://{HOST}:{port}"
        self.spans: list[Sent] = []
        self.bodies = bytearray()
        self.paths: set[str] = set()
        self.is_well = True
        self.refused = 0

    def of(self, trace_id: str) -> list[Sent]:
        """The spans of a trace, by when they began."""
        return sorted((each for each in self.spans if each.trace_id == trace_id), key=lambda each: each.begins_ns)

    def take(self, path: str, body: bytes) -> int:
        """Status of the answer to a request."""
        if not self.is_well:
            self.refused += 1
            return 503
        self.paths.add(path)
        self.bodies += body
        if path != "/v1/traces":
            return 200
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in of_resource.resource.attributes}
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    facts: dict[str, str | int] = {
                        each.key: each.value.string_value
                        if each.value.HasField("string_value")
                        else each.value.int_value
                        for each in span.attributes
                    }
                    self.spans.append(
                        Sent(
                            named["service.name"],
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            tuple(link.trace_id.hex() for link in span.links),
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            facts,
                        )
                    )
        return 200


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a free port."""
    held: list[Collector] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            path, length = head
            status = held[0].take(path, await reader.readexactly(length))
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
            await writer.drain()

    async with serving(answer) as port:
        held.append(Collector(port))
        yield held[0]


async def _head(reader: asyncio.StreamReader) -> tuple[str, int] | None:
    """Path and length of the next request; None at the end."""
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return lines[0].split()[1], int(headers["content-length"])
