"""The bounds of a relay, and its report on its health."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """Bounds and intervals of the relay.

    Attributes:
        lease_ms: how long a shard belongs to a gateway that does not answer; renewed every third of it.
        poll_ms: how often owned shards are looked at without being told, for entries of other gateways whose hint got
            lost.
        entries_per_shard: entries read from one shard in one turn (the events of 1 to 256 bids each), at most.
        entries_per_turn: entries read in one turn, which many shards share: what the relay holds in memory when it
            catches up with everything after NATS was away.
        ack_timeout_s: how long a PubAck may take before the entry is published again.
        backoff_max_s: the longest pause after failures.
    """

    lease_ms: int = 6_000
    poll_ms: int = 250
    entries_per_shard: int = 128
    entries_per_turn: int = 1_024
    ack_timeout_s: float = 5.0
    backoff_max_s: float = 1.0


@dataclass(slots=True)
class RelayHealth:
    """What ``/ready`` and ``/metrics`` tell about the relay.

    ``foreign_total``: entries in whose place JetStream has another message; their shards were closed. ``cut_off``: NATS
    has not answered for the time of a lease, so the shards are left to other gateways.
    """

    shards_owned: int = 0
    entries_published_total: int = 0
    failures_total: int = 0
    rewinds_total: int = 0
    foreign_total: int = 0
    connected: bool = False
    cut_off: bool = False
    last_error: str | None = None
