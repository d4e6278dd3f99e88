"""Counters of one process, and their text for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import Metric

from shared.http.metrics import Histogram, counter, counters, exposition, gauge
from shared.secret_pairs import ALSO_USED, ALSO_USED_TEXT, SecretPair, totals_of

# Upper bounds, in seconds, of the time from the decision in Redis to the write to the viewers' sockets.
LATENCY_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(slots=True)
class Metrics:
    """What happened since the process started."""

    connections_opened: int = 0
    upgrades_refused: Counter[str] = field(default_factory=Counter)
    connections_closed: Counter[str] = field(default_factory=Counter)
    messages_received: int = 0
    operations: int = 0
    operations_failed: int = 0
    operations_refused: int = 0
    events_watched: int = 0
    events_unreadable: int = 0
    messages_former: int = 0
    frames_sent: int = 0
    frames_queued: int = 0
    loads: int = 0
    loads_failed: int = 0
    latency: Histogram = field(default_factory=lambda: Histogram(*LATENCY_BOUNDS_S))

    def observe_latency(self, seconds: float) -> None:
        """One message: seconds from its newest event's decision until all its frames were handed out."""
        # Two clocks are compared; a negative difference only means "at once".
        self.latency.observe(max(seconds, 0.0))

    def render(
        self,
        *,
        connections: int,
        items: int,
        subscriptions: int,
        stream_up: bool,
        bidders: int = 0,
        addresses: int = 0,
        items_lost: int = 0,
        consumers_created: int = 0,
        secrets: Iterable[SecretPair] = (),
    ) -> str:
        """The text format of Prometheus, version 0.0.4."""
        return exposition(
            (
                gauge("feed_connections", "Open WebSockets and event streams.", connections),
                gauge("feed_addresses", "Client addresses with a connection, where they are counted.", addresses),
                gauge("feed_bidders", "Connections that have authenticated as a bidder.", bidders),
                gauge("feed_items", "Items that somebody follows.", items),
                gauge("feed_subscriptions", "Viewers of all items together.", subscriptions),
                gauge("feed_stream_up", "Whether events from JetStream flow.", stream_up),
                gauge("feed_items_lost", "Items that Redis has lost and somebody waits for.", items_lost),
                *self._totals(),
                counter("feed_consumers_created_total", "JetStream consumers made.", consumers_created),
                counters(f"feed_{ALSO_USED}", f"{ALSO_USED_TEXT}.", "secret", totals_of(secrets)),
                self.latency.family(
                    "feed_latency_seconds", "From the decision in Redis to the frame handed to the viewers."
                ),
            )
        )

    def _totals(self) -> Iterator[Metric]:
        yield counter(
            "feed_connections_opened_total", "Accepted WebSockets and event streams.", self.connections_opened
        )
        refused, closed = dict(sorted(self.upgrades_refused.items())), dict(sorted(self.connections_closed.items()))
        yield counters("feed_upgrades_refused_total", "Refused WebSockets and event streams.", "reason", refused)
        yield counters("feed_connections_closed_total", "Connections closed by the service.", "code", closed)
        for name, text, total in (
            ("messages", "Messages from JetStream.", self.messages_received),
            ("operations", "Operations that viewers asked for.", self.operations),
            ("operations_refused", "Messages refused because the viewer exceeded its quota.", self.operations_refused),
            ("operations_failed", "Operations of viewers that failed.", self.operations_failed),
            ("events_watched", "Events of items that somebody follows.", self.events_watched),
            ("events_unreadable", "Messages that could not be decoded.", self.events_unreadable),
            ("messages_former", "Messages dropped: their shard's epoch is over.", self.messages_former),
            ("frames_sent", "Frames handed to viewers.", self.frames_sent),
            ("frames_queued", "Frames that had to wait for a slow viewer.", self.frames_queued),
            ("loads", "Items read from Redis.", self.loads),
            ("loads_failed", "Reads from Redis that failed.", self.loads_failed),
        ):
            yield counter(f"feed_{name}_total", text, total)
