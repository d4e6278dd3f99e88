"""One running broadcaster: its hub, its connections and their limits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol
from uuid import uuid4

from redis.asyncio import Redis

from broadcast_service.core import audience
from broadcast_service.core.audience import Audience, Sum
from broadcast_service.core.close_codes import SERVICE_RESTART, CloseCode
from broadcast_service.core.feed import ItemFeed
from broadcast_service.core.frames import Version, heartbeat_frame
from broadcast_service.core.hub import Hub
from broadcast_service.core.outgoing import OutgoingLimits
from broadcast_service.core.quota import operations_rate
from broadcast_service.endpoints.private import PrivateChannel
from broadcast_service.endpoints.tickets import Tickets
from broadcast_service.metrics import Metrics
from broadcast_service.settings import Settings
from broadcast_service.sources.audience_source import AudienceSource
from broadcast_service.sources.bidders import BidderReader
from broadcast_service.sources.left_items import LeftItems
from broadcast_service.sources.loader import Loader
from broadcast_service.sources.losses import Losses
from broadcast_service.sources.revoked import Revoked
from broadcast_service.sources.shards import ShardWatch
from broadcast_service.sources.snapshots import SnapshotReader
from broadcast_service.transport.broadcaster import Broadcaster
from broadcast_service.transport.connection import Connection
from broadcast_service.transport.heartbeats import Rounds, visit
from broadcast_service.transport.traces import FrameTraces
from shared.http.addresses import Addresses
from shared.http.insiders import Insiders
from shared.http.proxies import Proxies
from shared.streams.follower import Follower
from shared.supervision import Work
from shared.tracing.spans import Tracer

SWEEP_EVERY_S: Final = 1.0
DRAIN_SLICE: Final = 100
"""Connections that a shutdown closes at once. So few need not be spread over time."""

_NOWHERE: Final = ""


class Pinged(Protocol):
    """A WebSocket that is pinged; see :class:`~shared.http.protocols.websockets.DirectWebSocket`."""

    def tend(self, now_s: float, ping: bytes, *, interval_s: float, timeout_s: float) -> None: ...


class Service:
    """Everything that an endpoint needs. Made by the composition root, inside the event loop."""

    def __init__(self, settings: Settings, redis: Redis, left: LeftItems, tracer: Tracer | None = None) -> None:
        self.settings = settings
        # No proxies here: the server has replaced the addresses of trusted proxies before a request gets here.
        self.insiders = Insiders(settings.operations_networks, Proxies(""))
        self.metrics = Metrics()
        self.clock = clock = asyncio.get_running_loop().time
        self.audience = Audience(uuid4().hex, settings.feed_viewers_s)
        traces = None if tracer is None else FrameTraces(tracer)
        self.stream = Follower(
            settings.nats_url,
            name="broadcast-service",
            heartbeat_s=settings.feed_heartbeat_s,
            subjects={audience.SUBJECT: self._hear},
            on_traces=None if traces is None else traces.heard,
        )
        self.reader = SnapshotReader(
            redis, Losses(redis, self.stream.has_message), left, events_max=settings.feed_replay_events_max
        )
        self.loader = Loader(self.reader, self.metrics)
        self.shards = ShardWatch(redis)
        self.hub: Hub[Connection] = Hub(
            open_catalogue=settings.open_catalogue,
            items_per_viewer_max=settings.feed_items_per_connection_max,
            rate_max=settings.feed_rate_max,
            make_feed=partial(ItemFeed, ring_events_max=settings.feed_ring_events_max),
        )
        self.revoked = Revoked(redis, leeway_s=settings.auth_leeway_s)
        self.private = PrivateChannel(
            self.hub,
            BidderReader(redis, left),
            rate_max=settings.feed_rate_max,
            is_revoked=self.revoked.has,
        )
        # In order of arrival, each with the key under which its address is counted.
        self.connections: dict[Connection, str] = {}
        self.tickets = Tickets(redis, self.private, self.connections)
        self.broadcaster = Broadcaster(
            self.hub,
            self.metrics,
            request_load=self.loader.request,
            joined=self.private.joined,
            standing_changed=self.private.standing_changed,
            traces=traces,
        )
        self.viewers = AudienceSource(
            self.audience, self.hub.counts, self.broadcaster.tell_viewers, self.stream, clock=clock
        )
        self.addresses = Addresses(
            settings.feed_connections_per_address_max, attempts_per_s=settings.feed_attempts_rate_max
        )
        self.operations_rate = operations_rate(
            settings.feed_operations_rate_max, settings.feed_items_per_connection_max
        )
        self.origins = settings.origins
        self.outgoing_limits = OutgoingLimits(
            frames_max=settings.feed_queue_frames_max,
            bytes_max=settings.feed_queue_bytes_max,
            stalled_max_s=settings.feed_stalled_max_s,
        )
        self.was_ready = False
        self.is_draining = False
        self._pinged: dict[Connection, Pinged] = {}
        self._pings = itertools.count()

    @property
    def is_full(self) -> bool:
        """Whether one more connection would be too many."""
        return len(self.connections) >= self.settings.feed_connections_max

    def enter(self, connection: Connection, pinged: Pinged | None = None, address: str = _NOWHERE) -> None:
        """Add a connection.

        Args:
            pinged: its WebSocket, where it is one.
            address: the key under which its address is counted; see :mod:`shared.http.addresses`.
        """
        self.connections[connection] = address
        if pinged is not None:
            self._pinged[connection] = pinged
        if address:
            self.addresses.enter(address)
        self.metrics.connections_opened += 1

    def leave(self, connection: Connection) -> None:
        """Remove a connection."""
        address = self.connections.pop(connection, _NOWHERE)
        if address:
            self.addresses.leave(address)
        self._pinged.pop(connection, None)
        self.tickets.leave(connection)
        self.private.leave(connection)
        self.hub.leave(connection)

    def follow(self, connection: Connection, item_id: str, since: Version | None = None, *, full: bool = False) -> None:
        """Let a connection follow an item.

        Raises:
            TooManyItems: it follows as many as it may.
        """
        self.broadcaster.carry_out(self.hub.subscribe(connection, item_id, since, full=full))

    def unfollow(self, connection: Connection, item_id: str) -> bool:
        """Stop following an item; returns whether the connection followed it."""
        self.private.unfollow(connection, item_id)
        return self.hub.unsubscribe(connection, item_id)

    def audience_of(self, item_id: str) -> Sum:
        """How many watch the item in all."""
        viewers, alone = self.audience.viewers(
            item_id, self.hub.subscribers(item_id), asyncio.get_running_loop().time()
        )
        return Sum(viewers, alone and self.stream.is_up)

    def _hear(self, data: bytes) -> None:
        self.audience.hear(data, self.clock())

    # ------------------------------------------------------------------------------------- what happens by itself

    def work(self) -> dict[str, Work]:
        """The tasks that run as long as the service does, by name; to be cancelled in reverse order."""
        work: dict[str, Work] = {
            "loader": partial(self.loader.run, self.broadcaster),
            "stream": partial(self.stream.run, self.broadcaster),
            "shards": partial(self.shards.run, self.broadcaster),
            "private": self.private.run,
            "tickets": self.tickets.run,
            "sweep": self.sweep,
            "beat": self.beat,
            "ping": self.ping,
        }
        if self.settings.auth_mode != "open":
            work["revoked"] = self.revoked.run
        if self.settings.feed_viewers_s:
            # Cancelled before the stream, because it still announces something then.
            work["viewers"] = self.viewers.run
        return work

    async def sweep(self) -> None:
        """Until cancelled, close viewers that stopped reading; forget invalid tokens, and old attempts to connect."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            for connection in list(self.connections):
                connection.close_if_stalled()
            self.private.expire()
            self.addresses.forget(self.clock())

    async def beat(self) -> None:
        """Tell every connection the time once per ``feed_time_s``, until cancelled."""
        await visit(Rounds(self.connections.keys), self.settings.feed_time_s, self._beat)

    def _beat(self, connections: Sequence[Connection]) -> None:
        frames = (heartbeat_frame(time.time_ns() // 1000, stale=not self.stream.is_up),)
        for connection in connections:
            if not connection.is_behind:
                connection.send(frames)

    async def ping(self) -> None:
        """Ping every WebSocket once per ``feed_ping_interval_s``, until cancelled."""
        # Often enough that neither an interval nor a time-out lasts much longer than its setting.
        period_s = min(self.settings.feed_ping_interval_s, self.settings.feed_ping_timeout_s) / 2
        await visit(Rounds(self._pinged.values), period_s, self._ping)

    def _ping(self, pinged: Sequence[Pinged]) -> None:
        now_s = asyncio.get_running_loop().time()
        text = (next(self._pings) & 0xFFFF_FFFF).to_bytes(4, "big")
        for each in pinged:
            each.tend(
                now_s,
                text,
                interval_s=self.settings.feed_ping_interval_s,
                timeout_s=self.settings.feed_ping_timeout_s,
            )

    async def drain(self, code: CloseCode = SERVICE_RESTART) -> None:
        """Close every connection, spread over ``feed_drain_s`` so that not all viewers come back at once."""
        self.is_draining = True
        connections = list(self.connections)
        for start in range(0, len(connections), DRAIN_SLICE):
            if start:
                await asyncio.sleep(self.settings.feed_drain_s * DRAIN_SLICE / len(connections))
            for connection in connections[start : start + DRAIN_SLICE]:
                connection.close(code)
