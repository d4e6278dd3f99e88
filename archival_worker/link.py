"""The connection to NATS, with this service's error."""

from __future__ import annotations

from typing_extensions import override

from archival_worker.errors import StreamUnavailable
from shared.clients import nats


class NatsLink(nats.NatsLink):
    """As the shared link, but its error is the one from which the worker backs off."""

    @override
    async def connected(self) -> nats.Client:
        """The client, connected.

        Raises:
            StreamUnavailable: NATS is not reachable now; the client goes on trying.
        """
        try:
            return await super().connected()
        except ConnectionError as error:
            raise StreamUnavailable(str(error)) from error
