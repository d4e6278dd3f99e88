"""Membership and peers put together: what :class:`shared.read_cache.group.Group` uses in the mode ``cluster``."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from shared.read_cache.membership.view import Membership, View
from shared.read_cache.peers.server import TlsFiles
from shared.read_cache.remote import OnFetched, Remote
from shared.read_cache.stats import Stats


class Cluster(Remote):
    """The peers of this process."""

    def __init__(
        self, membership: Membership, stats: Stats, *, timeout_s: float = 0.25, tls: TlsFiles | None = None
    ) -> None:
        raise NotImplementedError

    def view(self) -> View | None:
        """The ring that this process relies on now."""
        raise NotImplementedError

    @override
    def owner(self, key: str) -> str | None:
        raise NotImplementedError

    @override
    def is_sure(self) -> bool:
        raise NotImplementedError

    @override
    def ask(self, owner: str, group: str, key: str, on_fetched: OnFetched) -> None:
        raise NotImplementedError

    @override
    async def forget(self, group: str, keys: Sequence[str] | None) -> list[str]:
        raise NotImplementedError

    async def close(self) -> None:
        """Hang up; whoever waits is told that the peer failed."""
        raise NotImplementedError
