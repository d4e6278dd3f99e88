"""Settings of the gateway, read once from the environment."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from shared.feed_tokens import checked_secret
from shared.settings import EnvironmentSettings, LogLevel


class Settings(EnvironmentSettings):
    """Every setting has a default that works with ``bidding up``.

    Attributes:
        redis_url, nats_url, postgres_url: the servers.
        gateway_host, gateway_port: where to listen.
        broadcast_public_url: what browsers use for the live feed, for example ``wss://live.example.com``; empty means
            the page's own host with the broadcaster's port.
        open_catalogue: open an unknown item with default terms on its first GET or bid. For laptops and load runs; off
            in production.
        open_identity: give anybody a feed token for any user id. For laptops and load runs; off in production, where
            the operator's own site signs the tokens of the users that it knows.
        feed_token_secret: the key with which those tokens are signed, at least 32 bytes; the broadcaster has the same.
        bid_ack: when an accepted bid is answered 201. ``redis``: after the Lua commit. ``replica``: after WAIT says
            that ``bid_ack_replicas`` replicas have it. ``log``: after JetStream acknowledged its event.
        bid_ack_replicas: replicas that must confirm with ``replica``.
        bid_ack_timeout_ms: after this long without confirmation the answer is 503 (outcome unknown), never a refusal.
            With ``replica`` it must be below ``redis_timeout_ms``, since Redis answers only then.
        bid_queue_max: bids that may wait for a flush before the answer is 503.
        redis_timeout_ms: bound of one round trip to Redis.
        resolve_ms: how long a bid whose answer got lost is looked for before the answer is OUTCOME_UNKNOWN.
        head_bytes_max: largest request line and headers together.
        body_bytes_max: largest request body, for bids and everything else.
        body_timeout_s: how long a request's head, and then its body, may take to arrive.
        outbox_entries_max: entries per shard that may wait to be archived; past it bids are refused with 503.
        outbox_alarm_entries: entries per shard past which ``/ready`` says that the archive is behind.
    """

    redis_url: str = "redis://127.0.0.1:6479/0"
    nats_url: str = "nats://127.0.0.1:4322"
    postgres_url: str = "postgresql://bidding@127.0.0.1:5532/bidding"
    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(default=8080, ge=0, le=65_535)
    broadcast_port: int = Field(default=8081, ge=0, le=65_535)
    broadcast_public_url: str = ""
    open_catalogue: bool = False
    open_identity: bool = False
    feed_token_secret: SecretStr = SecretStr("")
    bid_ack: Literal["redis", "replica", "log"] = "redis"
    bid_ack_replicas: int = Field(default=1, ge=1, le=5)
    bid_ack_timeout_ms: int = Field(default=2_000, ge=10)
    bid_queue_max: int = Field(default=20_000, ge=1)
    redis_timeout_ms: int = Field(default=5_000, ge=50)
    resolve_ms: int = Field(default=3_000, ge=0)
    head_bytes_max: int = Field(default=32 * 1024, ge=1024)
    body_bytes_max: int = Field(default=64 * 1024, ge=1024)
    body_timeout_s: float = Field(default=15, gt=0)
    outbox_entries_max: int = Field(default=50_000, ge=1)
    outbox_alarm_entries: int = Field(default=5_000, ge=1)
    log_level: LogLevel = "INFO"

    @field_validator("feed_token_secret")
    @classmethod
    def _secret_is_long_enough(cls, secret: SecretStr) -> SecretStr:
        checked_secret(secret.get_secret_value())
        return secret

    @model_validator(mode="after")
    def _replicas_are_waited_for_long_enough(self) -> Self:
        if self.bid_ack == "replica" and self.bid_ack_timeout_ms >= self.redis_timeout_ms:
            raise ValueError("BID_ACK_TIMEOUT_MS must be below REDIS_TIMEOUT_MS with BID_ACK=replica")
        return self
