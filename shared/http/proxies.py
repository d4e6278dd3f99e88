"""Which peers are proxies of the operator's own. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final

EVERYBODY: Final = "*"
_HOPS_MAX: Final = 16


def listed(text: str) -> list[str]:
    """The parts of a setting that are separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def checked_proxies(text: str) -> str:
    """The setting itself.

    Raises:
        ValueError: something in it is no address and no network; it would never match anybody.
    """
    for proxy in listed(text):
        if text.strip() != EVERYBODY:
            try:
                ip_network(proxy)
            except ValueError:
                raise ValueError("must be addresses or networks such as 10.0.0.0/8, or *") from None
    return text


class Proxies:
    """Addresses and networks, separated by commas; ``*`` is everybody."""

    def __init__(self, text: str) -> None:
        self._everybody = text.strip() == EVERYBODY
        self._networks = [] if self._everybody else [ip_network(each) for each in listed(text)]

    def has(self, address: str) -> bool:
        """Whether the peer of this address is one."""
        if self._everybody or not self._networks:
            return self._everybody
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(mapped in network for network in self._networks)

    def client(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """The client whose request a proxy hands on; see :meth:`client_told`."""
        return self.client_told(forwarded_for(headers))

    def client_told(self, forwarded: bytes) -> str:
        """The client whose request a proxy hands on, by what the proxy says (:func:`forwarded_for`); empty where it
        does not say.

        Each proxy adds the address of its own peer at the end; anybody may have written what stands before that. So the
        client is the last address that is no proxy; where every address is one (``*``), the last address.
        """
        found = ""
        for hop in reversed(forwarded.decode("latin-1").split(",", -1)[-_HOPS_MAX:]):
            found = _without_port(hop.strip()) or found
            if self._everybody or not self.has(found):
                break
        return found


def forwarded_for(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """What ``X-Forwarded-For`` says, also where it is there several times; empty where it is not there."""
    return b",".join([value for name, value in headers if name == b"x-forwarded-for"])


def _without_port(hop: str) -> str:
    """Some proxies write the port too: ``192.0.2.1:4711``, ``[2001:db8::1]:4711``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
