"""Decides by the address of the caller who may be told how the platform is doing. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from shared.http.proxies import Proxies

_CLAIMS: Final = (b"x-forwarded-for", b"forwarded")

OWN_MACHINE: Final = "127.0.0.0/8, ::1"
"""The default: whoever is on this machine."""


class Insiders:
    """Addresses and networks of those who run the platform."""

    def __init__(self, networks: str, proxies: Proxies) -> None:
        """
        Args:
            networks: separated by commas; ``*`` is everybody.
            proxies: the peers whose word is believed about the client for whom they ask.
        """
        self._networks = Proxies(networks)
        self._proxies = proxies

    def has(self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the sender of a request is an insider.

        A proxy that is not named in the settings may run on this machine and ask for anybody. So a request that such a
        proxy hands on counts as a stranger's.

        Args:
            peer: the address of the other end of the connection; None where it has none.
            headers: names in lower case, and values.
        """
        if peer is None:
            return False
        headers = list(headers)
        if any(name in _CLAIMS for name, _ in headers):
            peer = self._proxies.client(headers) if self._proxies.has(peer) else ""
        return self._networks.has(peer)
