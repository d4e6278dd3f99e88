"""The TCP ports of the stack: defaults, settings that change them, and the check that they are free."""

from __future__ import annotations

import dataclasses
import errno
import random
import socket
from collections.abc import Iterable
from typing import NamedTuple

import psutil

from infrastructure.local.errors import PortInUse, StackError

HOST = "127.0.0.1"

# Below the range from which Linux and macOS take the source ports of outgoing connections (32768 and 49152
# up), so that a port found free cannot be taken by a client's connection before its server binds it.
_FREE_RANGE = range(20_000, 32_000)
_FREE_ATTEMPTS_MAX = 500


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """One port per listener. The defaults keep away from those of servers that a system may run already."""

    gateway: int = 8080
    broadcast: int = 8081
    archiver: int = 8082
    redis: int = 6479
    nats: int = 4322
    nats_monitor: int = 8322
    postgres: int = 5532

    @classmethod
    def free(cls) -> Ports:
        """Ports that nothing listens on at this moment, all different: for tests and second stacks."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**dict(zip(names, free_ports(len(names)), strict=True)))


def setting_of(port_name: str) -> str:
    """The environment name that sets a port: `nats_monitor` → `NATS_MONITOR_PORT`."""
    return f"{port_name.upper()}_PORT"


def is_free(port: int, host: str = HOST) -> bool:
    """True unless something listens on the port already; connections in TIME_WAIT do not count.

    Other reasons that a server cannot bind there (no such address, no right to) are not looked at.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def free_ports(count: int) -> list[int]:
    """`count` different ports, each free when looked at; StackError when the machine has none left."""
    found: set[int] = set()
    for _ in range(_FREE_ATTEMPTS_MAX):
        if len(found) == count:
            break
        candidate = random.choice(_FREE_RANGE)
        # Also free on every address: a server that binds 0.0.0.0 may follow.
        if candidate not in found and is_free(candidate) and is_free(candidate, "0.0.0.0"):
            found.add(candidate)
    if len(found) < count:
        raise StackError(f"Found no {count} free ports between {_FREE_RANGE.start} and {_FREE_RANGE.stop}.")
    return list(found)


def holder_of(port: int) -> str | None:
    """`name (process 123)` of whoever listens on the port, or None where the system does not tell us."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None  # macOS, or a system that hides other users' sockets
    for connection in connections:
        if not connection.laddr or connection.status != psutil.CONN_LISTEN:
            continue
        if connection.laddr.port == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
            except psutil.Error:
                return f"process {connection.pid}"
    return None


class Wanted(NamedTuple):
    """A port that something is about to listen on."""

    name: str
    purpose: str
    port: int
    host: str = HOST


def require_free(wanted: Iterable[Wanted]) -> None:
    """Raise PortInUse for the first port that is taken, StackError for one that is wanted twice."""
    seen: dict[int, str] = {}
    for name, purpose, port, host in wanted:
        if port in seen:
            raise StackError(f"{setting_of(name)} and {setting_of(seen[port])} are both {port}; each needs its own.")
        seen[port] = name
        if not is_free(port, host):
            raise PortInUse(port, purpose, setting_of(name), holder_of(port))
