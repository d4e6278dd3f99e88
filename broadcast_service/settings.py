"""Settings of the broadcaster, read once from the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every setting has a default that works with ``bidding up``; names are those of the environment, in upper case.

    Attributes:
        redis_url, nats_url: the servers.
        broadcast_host, broadcast_port: where to listen; port 0 takes a free one.
        open_catalogue: an unknown item may be opened by its first bid, so it can be watched before; see the gateway.
        feed_origins: origins of pages that may use the feed, separated by commas, for example
            ``https://auction.example.com``; ``*`` allows all. Pages of the feed's own host name, on any port, and pages
            of this machine to a feed on this machine are always allowed.
        feed_connections_max: WebSockets in all; past it the upgrade is refused with 503.
        feed_items_per_connection_max: items that one connection may follow.
        feed_message_bytes_max: longest message that a viewer may send. 100 ids of 64 characters need 6.8 KB.
        feed_queue_frames_max: frames that may wait for one viewer before they are conflated to the newest state
            per item.
        feed_queue_bytes_max: bytes that may wait for one viewer after that; past it the viewer is closed.
        feed_send_buffer_bytes: the kernel's buffer per connection. A large one hides a slow viewer and fills with old
            prices; a small one bounds the throughput of far away viewers. 0 leaves it to the kernel.
        feed_stalled_max_s: how long a viewer with waiting frames may take none of them before it is closed.
        feed_ping_interval_s, feed_ping_timeout_s: WebSocket pings, and how long the pong may take.
        feed_drain_s: over how long the closing of all connections is spread at a shutdown.
        feed_replay_events_max: how far ``since`` may reach back, at most what the gateway keeps per item (512).
        feed_ring_events_max: events of each watched item kept in memory, so that most reconnections need no Redis.
        feed_heartbeat_s: how often JetStream says that it is still there; after three of them in silence the consumer
            is replaced.
        redis_timeout_ms: bound of one round trip to Redis.
    """

    model_config = SettingsConfigDict(env_prefix="", extra="ignore")

    redis_url: str = "redis://127.0.0.1:6479/0"
    nats_url: str = "nats://127.0.0.1:4322"
    broadcast_host: str = "127.0.0.1"
    broadcast_port: int = Field(default=8081, ge=0, le=65_535)
    open_catalogue: bool = False
    log_level: str = "INFO"
    feed_origins: str = ""
    feed_connections_max: int = Field(default=20_000, ge=1)
    feed_items_per_connection_max: int = Field(default=200, ge=1, le=10_000)
    feed_message_bytes_max: int = Field(default=8 * 1024, ge=256)
    feed_queue_frames_max: int = Field(default=256, ge=4)
    feed_queue_bytes_max: int = Field(default=4 * 1024**2, ge=4 * 1024)
    feed_send_buffer_bytes: int = Field(default=64 * 1024, ge=0)
    feed_stalled_max_s: float = Field(default=15, gt=0)
    feed_ping_interval_s: float = Field(default=20, gt=0)
    feed_ping_timeout_s: float = Field(default=20, gt=0)
    feed_drain_s: float = Field(default=2, ge=0, le=60)
    feed_replay_events_max: int = Field(default=512, ge=0)
    feed_ring_events_max: int = Field(default=32, ge=0)
    feed_heartbeat_s: float = Field(default=2, ge=0.1, le=60)
    redis_timeout_ms: int = Field(default=2_000, ge=50)

    @property
    def origins(self) -> tuple[str, ...]:
        """``feed_origins`` as a tuple, in lower case."""
        return tuple(origin.strip().lower() for origin in self.feed_origins.split(",") if origin.strip())
