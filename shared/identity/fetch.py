"""Fetches a small document over HTTP, for a thread: bounded in size and time, and without following redirects.

Not urllib: it follows redirects, also from https to http, and reads proxies from the environment.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from typing import Final
from urllib.parse import urlsplit

BYTES_MAX: Final = 64 * 1024
WITHIN_S: Final = 5.0


class FetchFailed(Exception):
    """There is no answer that can be used; the text says why."""


def is_loopback(host: str | None) -> bool:
    """Whether the name is one of this machine."""
    return host in ("localhost", "127.0.0.1", "::1")


def checked_url(url: str) -> str:
    """The URL itself.

    Raises:
        ValueError: it is not https, and not http of this machine: on such a way, others could put keys of their own in
        place of the issuer's.
    """
    try:
        parts = urlsplit(url)
        is_good = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
        is_good = is_good and bool(parts.hostname) and parts.username is None and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise ValueError("must be an https address without a password, or http of this machine")
    return url


def fetch(url: str, *, within_s: float = WITHIN_S, bytes_max: int = BYTES_MAX) -> bytes:
    """The body of a 200.

    Args:
        within_s: bound of connecting, and again of the whole answer.

    Raises:
        FetchFailed: no answer in time, another status, or more than ``bytes_max``.
    """
    parts = urlsplit(checked_url(url))
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=within_s)
    late = threading.Event()
    try:
        connection.connect()
        # The time-out of a socket is that of one read. A server that sends a byte now and then would never run into it.
        watchdog = threading.Timer(within_s, _cut, (connection.sock, late))
        watchdog.start()
        try:
            body = _answer(connection, f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", bytes_max)
        finally:
            watchdog.cancel()
    except (OSError, http.client.HTTPException, ValueError) as error:
        detail = f"no answer within {within_s:g} s" if late.is_set() else f"{type(error).__name__}: {error}"
        raise FetchFailed(detail) from error
    finally:
        connection.close()
    if late.is_set():  # perhaps only a part was read
        raise FetchFailed(f"no answer within {within_s:g} s")
    return body


def _answer(connection: http.client.HTTPConnection, target: str, bytes_max: int) -> bytes:
    connection.request("GET", target, headers={"Accept": "application/json", "Connection": "close"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise FetchFailed(f"the answer has the status {answer.status}")
    body = answer.read(bytes_max + 1)
    if len(body) > bytes_max:
        raise FetchFailed(f"the answer has more than {bytes_max} bytes")
    if answer.length:  # less came than was announced: ``read(n)`` does not raise for that
        raise FetchFailed("the answer is cut short")
    return body


def _cut(sock: socket.socket, late: threading.Event) -> None:
    """End a connection that another thread reads."""
    late.set()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
