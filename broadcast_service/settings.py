"""Settings of the broadcaster, read once from the environment."""

from __future__ import annotations

from ipaddress import ip_network
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from shared.feed_tokens import checked_secret
from shared.settings import EnvironmentSettings, LogLevel


class Settings(EnvironmentSettings):
    """Every setting has a default that works with ``bidding up``.

    Attributes:
        redis_url, nats_url: where snapshots are read, and where events come from.
        postgres_url: where closed items are read that have left Redis.
        broadcast_host, broadcast_port: where to listen; port 0 picks a free one.
        broadcast_reuse_port: listen with SO_REUSEPORT, so that several broadcasters share one port and the kernel
            spreads new connections over them.
        broadcast_own_port: a second port where this process alone listens, so that it can be asked itself when the
            first one is shared; 0 for none.
        open_catalogue: the first bid may open an unknown item, so the item can be watched before; see the gateway.
        feed_origins: origins of pages that may use the feed, separated by commas, for example
            ``https://auction.example.com``; ``*`` allows all. Pages of the feed's own host name, on any port, and pages
            of this machine to a feed on this machine are always allowed.
        feed_trusted_proxies: addresses and networks of proxies whose X-Forwarded-For is trusted, separated by commas;
            ``*`` trusts everybody. Empty: a client's address is that of its connection.
        feed_token_secret: the key that signs the tokens of bidders, at least 32 bytes. Empty: no private channel.
        feed_connections_max: connections in all, WebSockets and event streams; further ones are answered 503.
        feed_connections_per_address_max: the same per client address; further ones are answered 429. 0: no limit.
        feed_attempts_rate_max: connections per second that one address may ask for, after a burst of
            ``feed_connections_per_address_max``, or of 100 where that is more; further ones are answered 429. 0: no
            limit. Without a limit of connections per address there is none of attempts either.
        feed_items_per_connection_max: items that one connection may follow.
        feed_operations_rate_max: operations per second of one viewer, see :mod:`broadcast_service.core.quota`; more are
            refused, and a viewer that goes on is closed. 0: no limit.
        feed_message_bytes_max: longest message that a viewer may send. 100 ids of 64 characters need 6.8 KB.
        feed_head_timeout_s: how long the request line and headers of a connection may take.
        feed_rate_max: frames per second and item for viewers who did not ask for every event; more are conflated to
            the newest state. 0: no limit.
        feed_viewers_s: seconds, at least, between two reports of an item's number of viewers; 0: none.
        feed_time_s: seconds between heartbeats, which carry the server's time.
        feed_queue_frames_max: frames that may wait for one viewer before they are conflated to the newest state
            per item.
        feed_queue_bytes_max: bytes that may wait for one viewer after that; beyond, the viewer is closed.
        feed_send_buffer_bytes: the kernel's send buffer per connection. A large one hides a slow viewer and fills with
            old prices; a small one limits the throughput of distant viewers. 0: the kernel's choice.
        feed_stalled_max_s: how long a viewer with waiting frames may take none of them before it is closed.
        feed_ping_interval_s, feed_ping_timeout_s: between WebSocket pings, and until a pong must have come.
        feed_drain_s: at a shutdown, the time over which the closing of all connections is spread.
        feed_replay_events_max: how far back ``since`` may reach, at most what the gateway keeps per item (512).
        feed_ring_events_max: events of each watched item kept in memory, so that most reconnections need no Redis.
        feed_heartbeat_s: seconds between JetStream's heartbeats; when three are missing, the consumer is replaced.
        redis_timeout_ms: time-out of one round trip to Redis.
    """

    redis_url: str = "redis://127.0.0.1:6479/0"
    nats_url: str = "nats://127.0.0.1:4322"
    postgres_url: str = "postgresql://bidding@127.0.0.1:5532/bidding"
    broadcast_host: str = "127.0.0.1"
    broadcast_port: int = Field(default=8081, ge=0, le=65_535)
    broadcast_reuse_port: bool = False
    broadcast_own_port: int = Field(default=0, ge=0, le=65_535)
    open_catalogue: bool = False
    log_level: LogLevel = "INFO"
    feed_origins: str = ""
    feed_trusted_proxies: str = ""
    feed_token_secret: SecretStr = SecretStr("")
    feed_connections_max: int = Field(default=20_000, ge=1)
    feed_connections_per_address_max: int = Field(default=1_000, ge=0)
    feed_attempts_rate_max: int = Field(default=20, ge=0)
    feed_items_per_connection_max: int = Field(default=200, ge=1, le=10_000)
    feed_operations_rate_max: int = Field(default=50, ge=0)
    feed_message_bytes_max: int = Field(default=8 * 1024, ge=256)
    feed_head_timeout_s: float = Field(default=10, gt=0)
    feed_rate_max: int = Field(default=20, ge=0)
    feed_viewers_s: float = Field(default=2, ge=0)
    feed_time_s: float = Field(default=5, gt=0)
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
        """``feed_origins``, in lower case."""
        return tuple(_listed(self.feed_origins.lower()))

    @property
    def trusted_proxies(self) -> tuple[str, ...]:
        return tuple(_listed(self.feed_trusted_proxies))

    @field_validator("feed_origins")
    @classmethod
    def _origins_can_match(cls, text: str) -> str:
        for origin in _listed(text):
            parts = urlsplit(origin)
            if origin not in ("*", "null") and (not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}"):
                raise ValueError("must be origins such as https://auction.example.com, without a path, or *")
        return text

    @field_validator("feed_trusted_proxies")
    @classmethod
    def _proxies_can_match(cls, text: str) -> str:
        # uvicorn would take anything else for a name that never matches; all clients would then share one address.
        for proxy in _listed(text):
            if text.strip() != "*":
                try:
                    ip_network(proxy)
                except ValueError:
                    raise ValueError("must be addresses or networks such as 10.0.0.0/8, or *") from None
        return text

    @field_validator("feed_token_secret")
    @classmethod
    def _secret_is_long_enough(cls, secret: SecretStr) -> SecretStr:
        checked_secret(secret.get_secret_value())
        return secret


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
