"""NATS JetStream: connect for ever with bounded buffers, and the one stream of the platform."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo
from nats.js.errors import NotFoundError
from typing_extensions import override

from shared import names
from shared.clients.stream_settings import StreamSettings
from shared.domain.errors import BiddingError
from shared.permissions.nats_users import inbox_of
from shared.server_urls import credentials_of, without_password

_NOT_IN_SUBJECTS: Final = str.maketrans(dict.fromkeys(".*> \t\r\n", "_"))

logger = logging.getLogger(__name__)


class StreamUnavailable(BiddingError, ConnectionError):
    """JetStream cannot be read now: no connection, or the stream or the consumer is gone. Try later, from the start."""

    code = "STREAM_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of the event stream.

    A full stream refuses messages (discard new): the outbox then keeps what cannot be published.
    ``duplicate_window_s`` is how long JetStream remembers a Nats-Msg-Id; consumers drop later duplicates by themselves.
    ``replicas`` is on how many servers of a cluster each message is kept.
    """

    bytes_max: int = 2 * 1024**3
    age_max_s: float = 3 * 86_400
    duplicate_window_s: float = 120
    replicas: int = field(default_factory=lambda: StreamSettings().nats_stream_replicas)


class _Client(Client):
    """The library's client, which lets go of a connection before it makes the next one."""

    @override
    async def _connect_to_server(self, s: Srv) -> None:
        # A connection that was accepted but never greeted would be forgotten while it is open.
        self._let_go()
        await super()._connect_to_server(s)

    @override
    async def _attempt_reconnect(self) -> None:
        # The library would close the connection only when the server has taken all that waits to be sent. A server that
        # vanished, or hangs, never does, and until then the client would try no server again. Nothing is lost that was
        # not in doubt: a caller who must know that a message arrived waits for an answer.
        self._let_go()
        await super()._attempt_reconnect()

    def _let_go(self) -> None:
        if isinstance(self._transport, TcpTransport) and self._transport._io_writer is not None:
            self._transport._io_writer.transport.abort()


def inbox_prefix(user: str | None) -> str:
    """The subject below which a user's answers come. Each user has its own, so that permissions can keep all others
    from hearing them."""
    return "_INBOX" if not user else inbox_of(user.translate(_NOT_IN_SUBJECTS))


async def open_nats(url: str, *, name: str, on_lost: Callable[[], object] | None = None) -> Client:
    """A connection that reconnects for ever. The first time, too, this waits until the server is there.

    Put a time-out around it, or use :class:`NatsLink`, where the caller has something else to do meanwhile.

    Args:
        url: ``nats://host:port`` or ``tls://user:password@host:port``, several separated by commas. A user and password
            in the first of them are used for all, also for servers that join later. They may be percent-encoded.
        name: shown in the server's monitoring.
        on_lost: called each time the connection is lost or closed.
    """
    shown = without_password(url)
    # The library would send them as they stand in the URL, and to that one server only.
    user, password = credentials_of(url) or (None, None)

    async def on_error(error: Exception) -> None:
        logger.warning("nats: %s: %s", type(error).__name__, error)

    async def on_disconnected() -> None:
        if on_lost is not None:
            on_lost()
        # The library calls this after an orderly close, too.
        if not client.is_closed:
            logger.warning("nats: disconnected from %s", shown)

    async def on_reconnected() -> None:
        logger.warning("nats: connected again to %s", shown)

    client = _Client()
    try:
        await client.connect(
            servers=url.split(","),
            name=name,
            user=user,
            password=password,
            connect_timeout=2,
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=16 * 1024**2,
            inbox_prefix=inbox_prefix(user),
            error_cb=on_error,
            disconnected_cb=on_disconnected,
            reconnected_cb=on_reconnected,
        )
    except asyncio.CancelledError:
        # A time-out of the caller between connecting and the greeting would leave the socket open.
        await client.close()
        raise
    return client


class NatsLink:
    """Holds a service's one client: opened when it is first needed, opened anew where it was closed for good.

    A service starts, and stops, whether NATS is there or not.
    """

    def __init__(self, url: str, *, name: str, timeout_s: float = 5.0) -> None:
        """``timeout_s`` bounds each try of :meth:`connected` and the close."""
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    @property
    def client(self) -> Client | None:
        """The client, if it is connected at this moment."""
        return self._client if self._client is not None and self._client.is_connected else None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self.client is not None

    async def connected(self) -> Client:
        """The client, connected.

        Raises:
            StreamUnavailable: NATS is not reachable now; a client that was connected once goes on trying by itself.
        """
        # Of many callers who find no client, one opens it: each of the others would leave a connection that nobody
        # closes.
        async with self._opening:
            if self._client is None or self._client.is_closed:
                self._client = await self._open()
        if not self._client.is_connected:
            raise StreamUnavailable("NATS is disconnected")
        return self._client

    async def _open(self) -> Client:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await open_nats(self._url, name=self._name)
        except (NatsError, OSError, TimeoutError) as error:
            shown = without_password(self._url)
            raise StreamUnavailable(f"NATS at {shown} is not reachable: {str(error) or 'timed out'}") from error

    async def close(self) -> None:
        """Send what is buffered, where that is possible, and close."""
        client, self._client = self._client, None
        if client is None:
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.close()
        except (NatsError, OSError, TimeoutError) as error:
            logger.warning("closing the NATS connection: %s: %s", type(error).__name__, error)


async def ensure_stream(jetstream: JetStreamContext, limits: StreamLimits | None = None) -> StreamInfo:
    """The event stream, made with these limits if it does not exist; those of one that exists are left alone.

    Raises:
        nats.errors.Error: JetStream is not reachable or refuses the configuration.
    """
    try:
        return await jetstream.stream_info(names.STREAM)
    except NotFoundError:
        limits = limits or StreamLimits()
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


__all__ = ["Client", "NatsLink", "StreamLimits", "StreamUnavailable", "ensure_stream", "open_nats"]
