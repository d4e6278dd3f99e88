"""How peers are connected: the service's name and methods, bounds of messages, liveness, TLS, and the addresses on
which a node may listen."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import grpc

from shared.read_cache.keys import KEY_LENGTH_MAX
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.ring import NODES_MAX

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Peer"].full_name

MESSAGE_BYTES_MAX: Final = 4 * 1024**2
"""The largest message, in either direction."""

VALUE_BYTES_MAX: Final = 2 * 1024**2
"""A larger value is not sent: the reader asks the origin."""

ANSWER_BYTES: Final = 512 * 1024
"""A message is sent as soon as it has this many bytes, so that the largest value still fits on top."""

KEYS_PER_ASK_MAX: Final = 1_000
"""The most keys of a message; at 512 characters each they take half a megabyte."""

assert KEYS_PER_ASK_MAX * (KEY_LENGTH_MAX + 8) < MESSAGE_BYTES_MAX
assert ANSWER_BYTES + VALUE_BYTES_MAX + 64 * KEYS_PER_ASK_MAX < MESSAGE_BYTES_MAX

_THIS_NETWORK: Final = ipaddress.ip_network("0.0.0.0/8")
"""Python calls this network private, but its addresses belong to no host (RFC 1122, section 3.2.1.3)."""

_KEEPALIVE_MS: Final = 10_000
_KEEPALIVE_TIMEOUT_MS: Final = 2_000
_CONNECTIONS_MAX: Final = 4 * NODES_MAX

RPCS_MAX: Final = 1_000
"""The most calls of one node at a time. A stream of gets is one call, however many gets it carries."""

Options = Sequence[tuple[str, int | str]]

_COMMON: Final[list[tuple[str, int | str]]] = [
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_metadata_size", 8 * 1024),
]

SERVER_OPTIONS: Final[Options] = [
    *_COMMON,
    # A second node at the same port would take half of the connections, and nobody would notice.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", _KEEPALIVE_MS // 2),
    ("grpc.max_concurrent_streams", RPCS_MAX),
    ("grpc.max_allowed_incoming_connections", _CONNECTIONS_MAX),
]

CLIENT_OPTIONS: Final[Options] = [
    *_COMMON,
    # A breaker of our own waits between attempts; the library's pause of a second and more comes on top of that.
    ("grpc.initial_reconnect_backoff_ms", 50),
    # This is also the time-out of one attempt; the next one does not begin earlier.
    ("grpc.min_reconnect_backoff_ms", 300),
    ("grpc.max_reconnect_backoff_ms", 500),
    # This code retries by itself, within a budget.
    ("grpc.enable_retries", 0),
    # Two channels of a process to one peer are two connections.
    ("grpc.use_local_subchannel_pool", 1),
    # Peers are in the same network: nothing of the environment's proxies.
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM: this process' certificate and key, and the CA that has signed those of its peers.

    A certificate names the address under which its node is in the ring. The files are read once, at the start: if they
    change or vanish later, no get fails for that.
    """

    cert: bytes
    key: bytes
    ca: bytes

    def server(self) -> grpc.ServerCredentials:
        """Every caller must show a certificate."""
        return grpc.ssl_server_credentials([(self.key, self.cert)], self.ca, require_client_auth=True)

    def client(self) -> grpc.ChannelCredentials:
        """This process shows its own."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.cert)


def open_channel(address: str, tls: Tls | None) -> grpc.aio.Channel:
    """A channel that connects at the first call."""
    if tls is None:
        return grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)
    return grpc.aio.secure_channel(address, tls.client(), options=CLIENT_OPTIONS)


def checked_address(address: str) -> str:
    """The address, ``host:port``, which may be listened on: loopback, or of a private network.

    Raises:
        ValueError: it is anything else; a name is not looked up.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"a cache node's address is host:port, not {address!r}")
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise ValueError(f"a cache node listens on an IP address, not on {host!r}") from None
    # An IPv6 socket treats these as IPv4 addresses: ::ffff:0.0.0.0 listens everywhere.
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_unspecified or found in _THIS_NETWORK or not (found.is_loopback or found.is_private):
        raise ValueError(
            f"a cache node listens on loopback or an address of a private network, not on {host}: peers are trusted"
        )
    return address
