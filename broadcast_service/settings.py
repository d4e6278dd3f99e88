"""Settings of the broadcaster, read once from the environment."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from shared.feed_tokens import FeedTokenSettings
from shared.http.insiders import OWN_MACHINE
from shared.http.origins import checked_origins
from shared.http.proxies import checked_proxies, listed
from shared.logs import LogFormat
from shared.settings import LogLevel, RedisUrl


class Settings(FeedTokenSettings):
    """Every setting has a default that works with ``bidding up``.

    Attributes:
        redis_url, nats_url: where snapshots are read, and where events come from.
        postgres_url: the archive, from which closed items are read that have left Redis.
        broadcast_host, broadcast_port: where to listen; port 0 picks a free one.
        broadcast_reuse_port: listen with SO_REUSEPORT, so that several broadcasters share one port and the kernel
            spreads new connections over them.
        broadcast_own_port: a second port where only this process listens, so that it can be reached although several
            processes share the first port; 0 for none.
        open_catalogue: the first bid may open an unknown item, so the item can be watched before; see the gateway.
        feed_origins: origins of pages that may use the feed, separated by commas, for example
            ``https://auction.example.com``; ``*`` allows all. Pages of the feed's own host name, on any port, and pages
            of this machine to a feed on this machine are always allowed.
        operations_networks: addresses and networks, separated by commas, to which ``/ready`` says which part is down,
            and which may read ``/metrics``; ``*``: everybody.
        feed_trusted_proxies: addresses and networks of proxies whose X-Forwarded-For is trusted, separated by commas;
            ``*`` trusts everybody. Empty: a client's address is that of its connection.
        auth_leeway_s: as the gateway's: how far the issuer's clock may be ahead of the clock that dates revocations.
        auth_mode: as the gateway's. With ``jwt`` no frame has the id of a bidder, and no token is taken in an address.
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

    redis_url: RedisUrl = "redis://127.0.0.1:6479/0"
    nats_url: str = "nats://127.0.0.1:4322"
    postgres_url: str = "postgresql://bidding@127.0.0.1:5532/bidding"
    broadcast_host: str = "127.0.0.1"
    broadcast_port: int = Field(default=8081, ge=0, le=65_535)
    broadcast_reuse_port: bool = False
    broadcast_own_port: int = Field(default=0, ge=0, le=65_535)
    open_catalogue: bool = False
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "auto"
    feed_origins: str = ""
    feed_trusted_proxies: str = ""
    auth_mode: Literal["open", "jwt"] = "open"
    auth_leeway_s: int = Field(default=30, ge=0, le=300)
    operations_networks: str = OWN_MACHINE
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
        return tuple(listed(self.feed_origins.lower()))

    @property
    def trusted_proxies(self) -> tuple[str, ...]:
        return tuple(listed(self.feed_trusted_proxies))

    @field_validator("feed_origins")
    @classmethod
    def _origins_can_match(cls, text: str) -> str:
        return checked_origins(text)

    @field_validator("feed_trusted_proxies", "operations_networks")
    @classmethod
    def _proxies_can_match(cls, text: str) -> str:
        # uvicorn would take anything else for a name that never matches; all clients would then share one address.
        return checked_proxies(text)

    @model_validator(mode="after")
    def _own_port_is_another(self) -> Self:
        if self.broadcast_own_port and self.broadcast_own_port == self.broadcast_port:
            raise ValueError("BROADCAST_OWN_PORT must be another port than BROADCAST_PORT")
        return self
