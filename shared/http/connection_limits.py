"""How many connections a server holds: in all, and of one address. Pure.

The connections themselves are counted, whatever is said on them: each takes a file descriptor, and a process may have
only so many. The live feed counts its viewers besides, by the address that a trusted proxy reports.
"""

from __future__ import annotations

import logging
from typing import Final, NamedTuple

from shared.http.addresses import Addresses, counted_as
from shared.http.proxies import Proxies
from shared.pacing.seldom import Seldom

logger = logging.getLogger(__name__)

TURNED_AWAY_MAX: Final = 100
"""Connections that are being told that there is no room. Further ones are cut off without a word."""

UNLIMITED: Final = 0


class Refusal(NamedTuple):
    """What a connection is told for which there is no room."""

    status: int
    code: str
    detail: str


_FULL: Final = Refusal(
    503, "TOO_MANY_CONNECTIONS", "this server has all the connections that it takes; try again later"
)
_ADDRESS_FULL: Final = Refusal(
    429, "TOO_MANY_CONNECTIONS_FROM_ADDRESS", "too many connections from this address; use those that are open"
)


class ConnectionLimits:
    """Counts the connections of one server.

    Args:
        connections_max: in all; 0 for no limit.
        each_max: of one address, as :func:`~shared.http.addresses.counted_as` has it; 0 for no limit.
        proxies: their connections carry the requests of many clients, and count in all only.
    """

    def __init__(self, connections_max: int, each_max: int, proxies: Proxies) -> None:
        self._connections_max = connections_max
        self._addresses = Addresses(each_max)
        self._proxies = proxies
        self._seldom = Seldom(logger)
        self.connections = 0
        self.turned_away = 0
        """Connections that are being told now that there is no room."""
        self.refused_total = 0

    def enter(self, address: str) -> str | Refusal:
        """Count a connection from this address. Returns the argument for :meth:`leave`, or the refusal."""
        counted = "" if self._proxies.has(address) else counted_as(address)
        refusal: Refusal | None = None
        if self._connections_max and self.connections >= self._connections_max:
            refusal = _FULL
        elif counted and self._addresses.is_full(counted):
            refusal = _ADDRESS_FULL
        if refusal is not None:
            self.refused_total += 1
            self._seldom.warning("no room for a connection from %s: %s", address, refusal.code)
            return refusal
        self.connections += 1
        if counted:
            self._addresses.enter(counted)
        return counted

    def leave(self, counted: str) -> None:
        """The connection has gone. ``counted``: what :meth:`enter` returned."""
        self.connections -= 1
        if counted:
            self._addresses.leave(counted)
