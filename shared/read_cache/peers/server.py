"""A node's gRPC server: answers peers, and readers without a ring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.read_cache.group import Group
from shared.read_cache.membership.view import Membership
from shared.read_cache.stats import Stats

STOP_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM: this process' certificate and key, and the CA that has signed those of its peers."""

    cert: str
    key: str
    ca: str


class PeerServer:
    """Listens on loopback or a private address only."""

    def __init__(
        self,
        groups: Mapping[str, Group],
        membership: Membership,
        stats: Stats,
        *,
        address: str,
        tls: TlsFiles | None = None,
    ) -> None:
        """
        Raises:
            ValueError: the address is not ``host:port`` of loopback or a private network.
        """
        raise NotImplementedError

    async def start(self) -> int:
        """Serve; the port, where ``address`` had 0.

        Raises:
            OSError: the address is taken.
        """
        raise NotImplementedError

    async def stop(self, grace_s: float = STOP_S) -> None:
        """Take no new call; those under way have ``grace_s`` seconds."""
        raise NotImplementedError
