"""Counters of one process, and their text for Prometheus."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

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
    consumers_created: int = 0
    latency_buckets: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_S) + 1))
    latency_sum_s: float = 0.0

    def observe_latency(self, seconds: float) -> None:
        """One message: seconds from its newest event's decision until all its frames were handed out."""
        # Two clocks are compared; a negative difference says no more than "at once".
        seconds = max(seconds, 0.0)
        self.latency_sum_s += seconds
        for index, bound in enumerate(LATENCY_BOUNDS_S):
            if seconds <= bound:
                self.latency_buckets[index] += 1
                return
        self.latency_buckets[-1] += 1

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
    ) -> str:
        """The text format of Prometheus, version 0.0.4."""
        lines: list[str] = []

        def add(name: str, kind: str, text: str, *samples: tuple[str, float]) -> None:
            lines.append(f"# HELP feed_{name} {text}")
            lines.append(f"# TYPE feed_{name} {kind}")
            lines.extend(f"feed_{name}{labels} {value:g}" for labels, value in samples)

        add("connections", "gauge", "Open WebSockets and event streams.", ("", connections))
        add("addresses", "gauge", "Client addresses with a connection, where they are counted.", ("", addresses))
        add("bidders", "gauge", "Connections that said which bidder they are.", ("", bidders))
        add("items", "gauge", "Items that somebody follows.", ("", items))
        add("subscriptions", "gauge", "Viewers of all items together.", ("", subscriptions))
        add("stream_up", "gauge", "Whether events from JetStream flow.", ("", int(stream_up)))
        add(
            "connections_opened_total",
            "counter",
            "Accepted WebSockets and event streams.",
            ("", self.connections_opened),
        )
        refused = [(f'{{reason="{reason}"}}', count) for reason, count in sorted(self.upgrades_refused.items())]
        add("upgrades_refused_total", "counter", "Refused WebSockets and event streams.", *refused)
        closed = [(f'{{code="{code}"}}', count) for code, count in sorted(self.connections_closed.items())]
        add("connections_closed_total", "counter", "Connections closed by the service.", *closed)
        add("messages_total", "counter", "Messages from JetStream.", ("", self.messages_received))
        add("operations_total", "counter", "What viewers asked for, as it is counted.", ("", self.operations))
        add("operations_refused_total", "counter", "Messages that asked for too much.", ("", self.operations_refused))
        add("operations_failed_total", "counter", "Operations of viewers that failed.", ("", self.operations_failed))
        add("events_watched_total", "counter", "Events of items that somebody follows.", ("", self.events_watched))
        add("events_unreadable_total", "counter", "Messages that could not be decoded.", ("", self.events_unreadable))
        add(
            "messages_former_total",
            "counter",
            "Messages of a former epoch of their shard, left out.",
            ("", self.messages_former),
        )
        add("items_lost", "gauge", "Items that Redis has lost and somebody waits for.", ("", items_lost))
        add("frames_sent_total", "counter", "Frames handed to viewers.", ("", self.frames_sent))
        add("frames_queued_total", "counter", "Frames that had to wait for a slow viewer.", ("", self.frames_queued))
        add("loads_total", "counter", "Items read from Redis.", ("", self.loads))
        add("loads_failed_total", "counter", "Reads from Redis that failed.", ("", self.loads_failed))
        add("consumers_created_total", "counter", "JetStream consumers made.", ("", self.consumers_created))
        self._add_latency(lines)
        return "\n".join(lines) + "\n"

    def _add_latency(self, lines: list[str]) -> None:
        name = "feed_latency_seconds"
        lines.append(f"# HELP {name} From the decision in Redis to the frame handed to the viewers.")
        lines.append(f"# TYPE {name} histogram")
        total = 0
        for bound, count in zip(LATENCY_BOUNDS_S, self.latency_buckets[:-1], strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound:g}"}} {total}')
        total += self.latency_buckets[-1]
        lines.append(f'{name}_bucket{{le="+Inf"}} {total}')
        lines.append(f"{name}_sum {self.latency_sum_s:g}")
        lines.append(f"{name}_count {total}")
