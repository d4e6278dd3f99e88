"""Makes room in the stream before it is full.

The stream holds a bounded number of bytes and refuses new messages past it. Archived messages stay only for consumers
that look back a little, so above a fill level the oldest of them are purged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nats.aio.client import Client
from nats.errors import Error as NatsError

from archival_worker.metrics import Metrics
from shared import names
from shared.clients.nats import StreamUnavailable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """When to purge, and how much.

    Attributes:
        interval_s: between two looks.
        full_ratio: share of the stream's bytes above which there is a purge.
        margin_messages: newest messages that stay in any case ...
        margin_ratio: ... unless they alone are more than this share of the stream's bytes: large messages must not
            keep it full for ever.
    """

    interval_s: float = 15.0
    full_ratio: float = 0.70
    margin_messages: int = 100_000
    margin_ratio: float = 0.35


@dataclass(frozen=True, slots=True)
class Fill:
    """The stream and the archive's place in it. ``archived_seq``: everything up to it is acknowledged, so committed."""

    messages: int
    bytes: int
    bytes_max: int
    first_seq: int
    last_seq: int
    archived_seq: int

    @property
    def ratio(self) -> float:
        """How full the stream is, 0 to 1; 0 where it has no bound."""
        return self.bytes / self.bytes_max if self.bytes_max > 0 else 0.0


def keep_from(fill: Fill, options: RetentionOptions) -> int | None:
    """The sequence number below which everything is to be purged, or None if nothing is. Pure."""
    if fill.ratio <= options.full_ratio or fill.messages == 0:
        return None
    message_bytes = max(1.0, fill.bytes / fill.messages)
    margin = min(options.margin_messages, int(options.margin_ratio * fill.bytes_max / message_bytes))
    first_kept = min(fill.archived_seq, fill.last_seq - margin) + 1
    return first_kept if first_kept > fill.first_seq else None


class Retention:
    """Looks at the stream from time to time. Several archivers may: a second purge does no harm."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Client]],
        metrics: Metrics,
        options: RetentionOptions = RetentionOptions(),
    ) -> None:
        self._connect = connect
        self._metrics = metrics
        self._options = options

    async def run(self) -> None:
        """Look, and purge where needed, until cancelled."""
        while True:
            await asyncio.sleep(self._options.interval_s)
            try:
                await self.once()
            except StreamUnavailable as error:
                logger.info("cannot look at the stream: %s", error)

    async def once(self) -> int:
        """Look once, purge at most once. Returns how many messages were removed.

        Raises:
            StreamUnavailable: JetStream cannot be asked now.
        """
        client = await self._connect()
        jetstream = client.jetstream()
        try:
            stream = await jetstream.stream_info(names.STREAM)
            consumer = await jetstream.consumer_info(names.STREAM, names.ARCHIVER_DURABLE)
            floor = consumer.ack_floor
            fill = Fill(
                messages=stream.state.messages,
                bytes=stream.state.bytes,
                bytes_max=stream.config.max_bytes or -1,
                first_seq=stream.state.first_seq,
                last_seq=stream.state.last_seq,
                archived_seq=floor.stream_seq if floor is not None else 0,
            )
            first_kept = keep_from(fill, self._options)
            if first_kept is None:
                if fill.ratio > self._options.full_ratio:
                    logger.warning("the stream is %.0f %% full and nothing in it may go yet", 100 * fill.ratio)
                return 0
            await jetstream.purge_stream(names.STREAM, seq=first_kept)
        except (NatsError, OSError, TimeoutError) as error:
            raise StreamUnavailable(f"{type(error).__name__}: {error}") from error
        purged = first_kept - fill.first_seq
        self._metrics.purged += purged
        logger.info("the stream was %.0f %% full: purged up to #%d, all archived", 100 * fill.ratio, first_kept - 1)
        return purged
