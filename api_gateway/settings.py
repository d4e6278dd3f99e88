"""Settings of the gateway, read once from the environment."""

from __future__ import annotations

from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from api_gateway.images.addresses import checked_hosts
from api_gateway.ops.parts import parse_parts
from shared.feed_tokens import FeedTokenSettings
from shared.http.insiders import OWN_MACHINE
from shared.http.origins import checked_origins
from shared.http.proxies import checked_proxies, listed
from shared.identity.api_keys import ApiKeySettings
from shared.identity.settings import IdentitySettings
from shared.logs import LogFormat
from shared.secret_pairs import check_distinct
from shared.settings import LogLevel, RedisUrl

Guarded = Literal[
    "bid_sockets_per_address_max",
    "bodies_bytes_per_address_max",
    "gateway_address_rate_max",
    "gateway_caller_rate_max",
    "gateway_items_rate_max",
]

_MIB: Final = 1024**2


class Settings(IdentitySettings, ApiKeySettings, FeedTokenSettings):
    """Every setting has a default that works with ``bidding up``. Those of who is believed are its base.

    Attributes:
        redis_url, nats_url, postgres_url: the servers.
        gateway_host, gateway_port: where to listen.
        gateway_reuse_port: listen with SO_REUSEPORT, so that several gateways share one port and the kernel spreads new
            connections over them.
        gateway_own_port: a second port where this process alone listens, so that it can be asked itself when the first
            one is shared; 0 for none.
        broadcast_public_url: what browsers use for the live feed, for example ``wss://live.example.com``; empty means
            the page's own host with the broadcaster's port.
        hsts_s: for how long browsers that were answered over TLS are to use nothing else, in seconds; 0: not said.
        operations_networks: addresses and networks, separated by commas, that are told by ``/ready`` what is degraded,
            and may read ``/metrics``; ``*``: everybody.
        open_catalogue: open an unknown item with default terms on its first GET or bid. For laptops and load runs; off
            in production.
        open_identity: give anybody a feed token for any user id. For laptops and load runs; off in production, where
            the operator's own site signs the tokens of the users that it knows.
        bid_ack: when an accepted bid is answered 201. ``redis``: after the Lua commit. ``replica``: after WAIT says
            that ``bid_ack_replicas`` replicas have it. ``log``: after JetStream acknowledged its event.
        bid_ack_replicas: replicas that must confirm with ``replica``.
        bid_ack_timeout_ms: after this long without confirmation the answer is 503 (outcome unknown), never a refusal.
            With ``replica`` it must be below ``redis_timeout_ms``, since Redis answers only then.
        gateway_connections_max: connections in all; further ones are answered 503. 0: no limit.
        gateway_connections_per_address_max: the same per client address (of IPv6 per /64); further ones are answered
            429. 0: no limit.
        gateway_trusted_proxies: addresses and networks of proxies, separated by commas, whose connections count in all
            only, and whose ``X-Forwarded-For`` names the client; ``*``: everybody's.
        gateway_origins: origins of pages that may use the API from elsewhere (CORS), separated by commas; ``*``: all.
            Pages of the gateway itself need none.
        bid_queue_max: bids that may wait for a flush before the answer is 503, however fast they are decided.
        bid_wait_max_ms: milliseconds that a bid may be expected to wait for its verdict, at the rate of the last
            flushes; if it would be longer, the answer is 503. 512 bids may wait in any case. 0: no limit.
        bid_wait_standing_ms: the same in a standing queue, which has been long for a second; 256 bids may wait in any
            case. 0, or at least ``bid_wait_max_ms``: a standing queue has no bound of its own.
        redis_timeout_ms: bound of one round trip to Redis.
        resolve_ms: how long a bid whose answer got lost is looked for before the answer is OUTCOME_UNKNOWN.
        head_bytes_max: largest request line and headers together.
        body_bytes_max: largest request body, for bids and everything else.
        body_timeout_s: how long a request's head, and then its body, may take to arrive.
        bodies_bytes_max: bytes of request bodies that have arrived and whose requests have no answer yet, in all;
            further ones are answered 503. Bodies of bids and of new items up to 8 KiB are not among them.
        bodies_bytes_per_address_max: the same of one client address; further ones are answered 429. 0: no limit.
        gateway_caller_rate_max: units per second that one caller, as its token names it, may ask for in the long run:
            bids, items, readings; further ones are answered 429. The burst is ten times as much. 0: no limit.
        gateway_items_rate_max: items per second that one caller may create by batches in the long run, beside those
            units: imports have many. The burst is ten times as much. 0: no limit.
        gateway_address_rate_max: units per second of one client address, whoever calls from there; items of batches
            are among them.
        bid_sockets_max: WebSockets of bids that may be open; further ones are answered 503.
        bid_sockets_per_address_max: the same of one client address; further ones are answered 429. 0: no limit.
        bid_sockets_per_caller_max: the same of one caller, as the token names it. 0: no limit.
        ops_parts: where the other services answer, for the operators' console: ``name=http://host:port``, separated by
            commas. Processes of this network only: what they say is told to operators.
        images_dir: folder for the images of lots; empty for none. Ignored if a bucket is set.
        images_s3_bucket: bucket for them; empty for none.
        aws_endpoint_url: where S3 is, if not at AWS. boto3 finds credentials and region by itself.
        image_bytes_max: largest image that may be uploaded.
        image_hosts: other hosts on which images of items may be, separated by commas, such as ``img.example.com``. They
            learn who looks at which page.
        images_uploader_day_bytes_max: what one uploader (a principal; with ``AUTH_MODE=open`` an address) may upload on
            one day; all together 20 times that. An image counts as 4,096 bytes or more, here and below.
        images_stored_bytes_max: of all images in the folder; of a bucket, what this gateway adds on one day.
        images_disk_free_bytes_min: what must stay free on the folder's disk.
        outbox_entries_max: entries per shard that may wait to be archived; past it bids are refused with 503.
        outbox_alarm_entries: entries per shard past which ``/ready`` says that the archive is behind.
        trace_networks: addresses and networks, separated by commas, whose ``traceparent`` is believed: their traces go
            on here, and whether they are sampled is theirs to say. Of others it is a link; ``*``: everybody.
        traced_bids_rate_max: requests with bids that are traced in a second, whoever asks for it.
    """

    redis_url: RedisUrl = "redis://127.0.0.1:6479/0"
    nats_url: str = "nats://127.0.0.1:4322"
    postgres_url: str = "postgresql://bidding@127.0.0.1:5532/bidding"
    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8080, ge=0, le=65_535)
    gateway_reuse_port: bool = False
    gateway_own_port: int = Field(default=0, ge=0, le=65_535)
    broadcast_port: int = Field(default=8081, ge=0, le=65_535)
    broadcast_public_url: str = ""
    gateway_connections_max: int = Field(default=20_000, ge=0)
    gateway_connections_per_address_max: int = Field(default=1_000, ge=0)
    gateway_trusted_proxies: str = ""
    gateway_caller_rate_max: int = Field(default=50, ge=0)
    gateway_items_rate_max: int = Field(default=500, ge=0)
    gateway_address_rate_max: int = Field(default=500, ge=0)
    gateway_origins: str = ""
    ops_parts: str = ""
    hsts_s: int = Field(default=30 * 86_400, ge=0)
    operations_networks: str = OWN_MACHINE
    open_catalogue: bool = False
    open_identity: bool = False
    bid_ack: Literal["redis", "replica", "log"] = "redis"
    bid_ack_replicas: int = Field(default=1, ge=1, le=5)
    bid_ack_timeout_ms: int = Field(default=2_000, ge=10)
    bid_queue_max: int = Field(default=20_000, ge=1)
    bid_wait_max_ms: int = Field(default=1_000, ge=0)
    bid_wait_standing_ms: int = Field(default=150, ge=0)
    redis_timeout_ms: int = Field(default=5_000, ge=50)
    resolve_ms: int = Field(default=3_000, ge=0)
    head_bytes_max: int = Field(default=32 * 1024, ge=1024)
    body_bytes_max: int = Field(default=64 * 1024, ge=1024)
    body_timeout_s: float = Field(default=15, gt=0)
    bodies_bytes_max: int = Field(default=64 * 1024**2, ge=2 * 1024**2)
    bodies_bytes_per_address_max: int = Field(default=8 * 1024**2, ge=0)
    bid_sockets_max: int = Field(default=1_000, ge=0)
    bid_sockets_per_address_max: int = Field(default=100, ge=0)
    bid_sockets_per_caller_max: int = Field(default=20, ge=0)
    images_dir: str = ""
    images_s3_bucket: str = ""
    aws_endpoint_url: str = ""
    image_bytes_max: int = Field(default=8 * _MIB, ge=1_024, le=64 * _MIB)
    image_hosts: str = ""
    images_uploader_day_bytes_max: int = Field(default=512 * _MIB, ge=4_096)
    images_stored_bytes_max: int = Field(default=10_240 * _MIB, ge=4_096)
    images_disk_free_bytes_min: int = Field(default=1_024 * _MIB, ge=0)
    outbox_entries_max: int = Field(default=50_000, ge=1)
    outbox_alarm_entries: int = Field(default=5_000, ge=1)
    trace_networks: str = OWN_MACHINE
    traced_bids_rate_max: int = Field(default=100, ge=1, le=10_000)
    log_level: LogLevel = "INFO"
    log_format: LogFormat = "auto"

    def guarded(self, name: Guarded) -> int:
        """A bound on what one caller or address may do. With ``AUTH_MODE=open`` there is none, unless it was set: on
        one's own machine all load comes from one address."""
        if self.auth_mode == "open" and name not in self.model_fields_set:
            return 0
        value: int = getattr(self, name)
        return value

    @property
    def origins(self) -> list[str]:
        """``gateway_origins``, in lower case."""
        return listed(self.gateway_origins.lower())

    @field_validator("gateway_origins")
    @classmethod
    def _origins_can_match(cls, text: str) -> str:
        return checked_origins(text)

    @property
    def image_host_names(self) -> frozenset[str]:
        """``image_hosts``, in lower case."""
        return checked_hosts(listed(self.image_hosts.lower()))

    @property
    def keeps_images(self) -> bool:
        """Whether images can be uploaded here."""
        return bool(self.images_dir or self.images_s3_bucket)

    @field_validator("image_hosts")
    @classmethod
    def _hosts_are_hosts(cls, text: str) -> str:
        checked_hosts(listed(text.lower()))
        return text

    @field_validator("gateway_trusted_proxies", "operations_networks", "trace_networks")
    @classmethod
    def _proxies_can_match(cls, text: str) -> str:
        return checked_proxies(text)

    @field_validator("ops_parts")
    @classmethod
    def _parts_can_be_asked(cls, text: str) -> str:
        parse_parts(text)
        return text

    @model_validator(mode="after")
    def _replicas_are_waited_for_long_enough(self) -> Self:
        if self.bid_ack == "replica" and self.bid_ack_timeout_ms >= self.redis_timeout_ms:
            raise ValueError("BID_ACK_TIMEOUT_MS must be below REDIS_TIMEOUT_MS with BID_ACK=replica")
        return self

    @model_validator(mode="after")
    def _own_port_is_another(self) -> Self:
        if self.gateway_own_port and self.gateway_own_port == self.gateway_port:
            raise ValueError("GATEWAY_OWN_PORT must be another port than GATEWAY_PORT")
        return self

    @model_validator(mode="after")
    def _nothing_is_open_beside_tokens(self) -> Self:
        if self.auth_mode == "open":
            return self
        if self.open_catalogue:
            raise ValueError("OPEN_CATALOGUE must be false with AUTH_MODE=jwt: with it, anybody's GET creates an item")
        if self.open_identity:
            raise ValueError("OPEN_IDENTITY must be false with AUTH_MODE=jwt: tokens say who calls")
        # A secret that signs here must sign nothing else, and neither must a secret that it replaces.
        owners = ("auth_hs256_secret", "feed_token_secret", "api_key_secret")
        secrets = [name + suffix for name in owners for suffix in ("", "_also")]
        check_distinct({name.upper(): getattr(self, name).get_secret_value() for name in secrets})
        return self
