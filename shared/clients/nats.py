"""NATS JetStream: connect for ever with bounded buffers, and the one stream of the platform."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import NotFoundError

from shared import names

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of the event stream.

    A full stream refuses messages (discard new): the outbox then keeps what cannot be published.
    ``duplicate_window_s`` is how long JetStream remembers a Nats-Msg-Id; consumers drop later duplicates by themselves.
    """

    bytes_max: int = 2 * 1024**3
    age_max_s: float = 3 * 86_400
    duplicate_window_s: float = 120
    replicas: int = 1


DEFAULT_LIMITS = StreamLimits()


async def open_nats(url: str, *, name: str, wait_for_server: bool = False) -> Client:
    """A connection that is re-established for ever.

    Args:
        url: ``nats://host:port``, several separated by commas.
        name: shown in the server's monitoring.
        wait_for_server: keep trying where the first connection fails, instead of raising.

    Raises:
        OSError, nats.errors.Error: the first connection failed and ``wait_for_server`` is false.
    """

    async def on_error(error: Exception) -> None:
        logger.warning("nats: %s: %s", type(error).__name__, error)

    async def on_disconnected() -> None:
        logger.warning("nats: disconnected from %s", url)

    async def on_reconnected() -> None:
        logger.warning("nats: connected again to %s", url)

    client = Client()
    await client.connect(
        servers=url.split(","),
        name=name,
        connect_timeout=2,
        allow_reconnect=True,
        max_reconnect_attempts=-1 if wait_for_server else 1_000_000_000,
        reconnect_time_wait=1,
        ping_interval=5,
        max_outstanding_pings=2,
        pending_size=16 * 1024**2,
        error_cb=on_error,
        disconnected_cb=on_disconnected,
        reconnected_cb=on_reconnected,
    )
    return client


async def ensure_stream(jetstream: JetStreamContext, limits: StreamLimits = DEFAULT_LIMITS) -> StreamInfo:
    """The event stream, made if it does not exist; the limits of one that exists are left alone.

    Raises:
        nats.errors.Error: JetStream is not reachable or refuses the configuration.
    """
    try:
        return await jetstream.stream_info(names.STREAM)
    except NotFoundError:
        config = StreamConfig(
            name=names.STREAM,
            subjects=[names.SUBJECT_ALL],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=limits.bytes_max,
            max_age=limits.age_max_s,
            duplicate_window=limits.duplicate_window_s,
            num_replicas=limits.replicas,
            allow_direct=True,
        )
        return await jetstream.add_stream(config)


__all__ = ["Client", "StreamLimits", "ensure_stream", "nats", "open_nats"]
