"""The TCP ports of the stack: defaults, settings that change them, and the check that they are free."""

from __future__ import annotations

import atexit
import dataclasses
import errno
import random
import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import psutil

from infrastructure.local.errors import PortInUse, StackError

HOST = "127.0.0.1"

# Below the range from which Linux and macOS take the source ports of outgoing connections (32768 and 49152
# up), so that a port found free cannot be taken by a client's connection before its server binds it.
_FREE_RANGE = range(20_000, 32_000)
# As a rule, so many candidates have enough ports that are free.
_FIRST = 64
# How many ports that were given out are kept: far more than servers start at a time.
_KEPT_MAX = 256
_kept: deque[tuple[int, socket.socket]] = deque()
_keeping = threading.Lock()


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """One port per listener. The defaults avoid those of servers that a system may run already."""

    gateway: int = 8080
    broadcast: int = 8081
    archiver: int = 8082
    redis: int = 6479
    nats: int = 4322
    nats_monitor: int = 8322
    postgres: int = 5532
    # Of the front end of the read cache, and of its first node; further nodes have the ports after that.
    cache: int = 9999
    cache_node: int = 8001

    @classmethod
    def free(cls, among: Sequence[int] = _FREE_RANGE) -> Ports:
        """Ports as :func:`free_ports` finds them: for tests and second stacks."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**dict(zip(names, free_ports(len(names), among), strict=True)))


def setting_of(port_name: str) -> str:
    """The variable that sets a port: `nats_monitor` → `NATS_MONITOR_PORT`."""
    return f"{port_name.upper()}_PORT"


def is_free(port: int, host: str = HOST) -> bool:
    """True unless something listens on the port already; connections in TIME_WAIT do not count.

    Other reasons why a server cannot bind there (no such address, no permission) are not checked.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def free_ports(count: int, among: Sequence[int] = _FREE_RANGE) -> list[int]:
    """`count` different ports that are free and were not given out lately; StackError if there are not enough.

    It takes a while until a server listens. Meanwhile nobody else who asks here gets its port: this process remembers
    its last 256, and on Linux other processes cannot get them either.
    """
    found: list[int] = []
    for candidate in _at_random(among):
        if len(found) == count:
            break
        with _keeping:
            if _keep(candidate):
                found.append(candidate)
    if len(found) < count:
        raise StackError(f"Found no {count} free ports between {min(among)} and {max(among)}.")
    return found


def _at_random(among: Sequence[int]) -> Iterator[int]:
    """All of them in a random order, which is made for as many as are asked for: there are thousands."""
    first = random.sample(among, min(_FIRST, len(among)))
    yield from first
    rest = [port for port in among if port not in first]
    random.shuffle(rest)
    yield from rest


def _keep(port: int) -> bool:
    """Reserve a port for a server that is about to start; False if it is in use or reserved already, by any process.

    A socket is bound to it and does not listen. That keeps out every process that binds without SO_REUSEADDR, as this
    function does. Servers bind with it; Linux allows that beside a socket that has it too and does not listen.
    """
    if any(port == other for other, _ in _kept):
        return False
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # On every address: a server that binds 0.0.0.0 may follow.
        holder.bind(("0.0.0.0", port))
    except OSError:
        holder.close()
        return False
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not is_free(port):
        holder.close()  # No server could listen beside it on this system.
    _kept.append((port, holder))
    if len(_kept) > _KEPT_MAX:
        _kept.popleft()[1].close()
    return True


@atexit.register
def _let_go() -> None:
    while _kept:
        _kept.popleft()[1].close()


def holder_of(port: int) -> str | None:
    """`name (process 123)` of the process that listens on the port, or None if the system does not tell."""
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
    """Raise PortInUse for the first port in use, StackError for one that is wanted twice."""
    seen: dict[int, str] = {}
    for name, purpose, port, host in wanted:
        if port in seen:
            raise StackError(f"{setting_of(name)} and {setting_of(seen[port])} are both {port}; each needs its own.")
        seen[port] = name
        if not is_free(port, host):
            raise PortInUse(port, purpose, setting_of(name), holder_of(port))
