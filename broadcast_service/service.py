"""One running broadcaster: its hub, its connections and their limits."""

from __future__ import annotations

import asyncio
from typing import Final

from broadcast_service.broadcaster import Broadcaster
from broadcast_service.close_codes import SERVICE_RESTART, CloseCode
from broadcast_service.connection import Connection
from broadcast_service.feed import ItemFeed
from broadcast_service.hub import Hub
from broadcast_service.metrics import Metrics
from broadcast_service.outgoing import OutgoingLimits
from broadcast_service.settings import Settings
from broadcast_service.sources.loader import Loader
from broadcast_service.sources.nats_source import NatsSource
from broadcast_service.sources.snapshots import SnapshotReader

SWEEP_EVERY_S: Final = 1.0
DRAIN_SLICE: Final = 100
"""Connections that are closed at once in a shutdown; fewer than these need no spreading."""


class Service:
    """Everything that an endpoint needs. Made by the composition root, inside the event loop."""

    def __init__(self, settings: Settings, reader: SnapshotReader) -> None:
        self.settings = settings
        self.reader = reader
        self.metrics = Metrics()
        self.hub: Hub[Connection] = Hub(
            open_catalogue=settings.open_catalogue,
            items_per_viewer_max=settings.feed_items_per_connection_max,
            make_feed=lambda item_id: ItemFeed(item_id, ring_events_max=settings.feed_ring_events_max),
        )
        self.broadcaster = Broadcaster(self.hub, self.metrics)
        self.loader = Loader(reader, self.broadcaster, self.metrics)
        self.broadcaster.request_load = self.loader.request
        self.stream = NatsSource(
            settings.nats_url, self.broadcaster, self.metrics, heartbeat_s=settings.feed_heartbeat_s
        )
        self.connections: set[Connection] = set()
        self.origins = settings.origins
        self.outgoing_limits = OutgoingLimits(
            frames_max=settings.feed_queue_frames_max,
            bytes_max=settings.feed_queue_bytes_max,
            stalled_max_s=settings.feed_stalled_max_s,
        )
        self.was_ready = False

    @property
    def is_full(self) -> bool:
        """Whether one more connection would be too many."""
        return len(self.connections) >= self.settings.feed_connections_max

    def enter(self, connection: Connection) -> None:
        """A connection was accepted."""
        self.connections.add(connection)
        self.metrics.connections_opened += 1

    def leave(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        self.hub.leave(connection)

    async def sweep(self) -> None:
        """Close viewers that stopped reading, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            for connection in list(self.connections):
                connection.close_if_stalled()

    async def drain(self, code: CloseCode = SERVICE_RESTART) -> None:
        """Close every connection, spread over ``feed_drain_s`` so that not all viewers come back at once."""
        connections = list(self.connections)
        for start in range(0, len(connections), DRAIN_SLICE):
            if start:
                await asyncio.sleep(self.settings.feed_drain_s * DRAIN_SLICE / len(connections))
            for connection in connections[start : start + DRAIN_SLICE]:
                connection.close(code)
