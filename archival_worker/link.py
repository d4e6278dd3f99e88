"""The connection to NATS: opened when it is first needed, opened again where it was closed for good."""

from __future__ import annotations

import asyncio
import logging

from nats.errors import Error as NatsError

from archival_worker.errors import StreamUnavailable
from shared.clients.nats import Client, open_nats

logger = logging.getLogger(__name__)


class NatsLink:
    """Holds the one client. It reconnects by itself; this is for the first time, and for a client that closed."""

    def __init__(self, url: str, *, name: str, timeout_s: float = 5.0) -> None:
        self._url = url
        self._name = name
        self._timeout_s = timeout_s
        self._client: Client | None = None

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return self._client is not None and self._client.is_connected

    async def connected(self) -> Client:
        """The client, connected.

        Raises:
            StreamUnavailable: NATS is not reachable now; the client goes on trying.
        """
        if self._client is None or self._client.is_closed:
            try:
                async with asyncio.timeout(self._timeout_s):
                    self._client = await open_nats(self._url, name=self._name, wait_for_server=True)
            except (NatsError, OSError, TimeoutError) as error:
                raise StreamUnavailable(f"NATS at {self._url} is not reachable: {error or 'timed out'}") from error
        if not self._client.is_connected:
            raise StreamUnavailable("NATS is disconnected")
        return self._client

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
