"""Asks the other parts of the platform how they are: their ``/ready``, and a few figures of their ``/metrics``.

Each is asked at its own address, within a second, and answers at most 256 KiB; what they said is kept for a second, so
that many operators together cause no more questions than one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

WITHIN_S: Final = 1.0
KEPT_S: Final = 1.0
PARTS_MAX: Final = 32
BYTES_MAX: Final = 256 * 1024

FIGURES: Final = {
    "bidding_bids_decided_total": "bids_decided",
    "bidding_bids_waiting": "bids_waiting",
    "bidding_outbox_entries": "outbox_entries",
    "feed_connections": "viewers",
    "feed_items": "items_followed",
    "feed_frames_sent_total": "frames_sent",
    "archiver_lag_messages": "messages_waiting",
    "archiver_messages_total": "messages_archived",
}
"""What is shown of a part's metrics, and under which name."""

DETAILS_MAX: Final = 32
CHARACTERS_MAX: Final = 300
"""The most details of a part that are shown, and the most characters of each."""

_WELL: Final[tuple[Any, ...]] = (None, "", "ok", "up", [], {})
_LINE: Final = re.compile(rb"^(\w+) ([0-9.eE+-]+)$", re.MULTILINE)
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,40}")


class PartAddress(NamedTuple):
    """A part's name, and where it answers."""

    name: str
    host: str
    port: int


class Part(msgspec.Struct):
    """How a part is. ``status``: ready, degraded or unavailable, as it says; ``unreachable`` where it says nothing."""

    name: str
    status: str
    details: dict[str, str]
    figures: dict[str, float]


def parse_parts(text: str) -> tuple[PartAddress, ...]:
    """``name=http://host:port``, several separated by commas.

    Raises:
        ValueError: anything else.
    """
    found = []
    for each in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, url = each.partition("=")
        try:
            parts = urlsplit(url)
            is_good = parts.scheme == "http" and parts.hostname is not None and parts.path in ("", "/")
            port = parts.port or 80
        except ValueError:
            is_good, port = False, 0
        if not is_good or not _NAME.fullmatch(name):
            raise ValueError(f"{each!r} is no part; write for example archival_worker=http://127.0.0.1:8082")
        found.append(PartAddress(name, parts.hostname or "", port))
    if len(found) > PARTS_MAX:
        raise ValueError(f"at most {PARTS_MAX} parts")
    return tuple(found)


class Parts:
    """Asks them all at once, for whoever wants to know now."""

    def __init__(self, addresses: Sequence[PartAddress]) -> None:
        self._addresses = addresses
        self._asking: asyncio.Task[list[Part]] | None = None
        self._told: list[Part] = []
        self._told_at_s = float("-inf")

    async def ask(self) -> list[Part]:
        """How each part is; a second old at most. Never raises."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._told_at_s < KEPT_S:
            return self._told
        if self._asking is None:
            self._asking = loop.create_task(self._ask_all(), name="ask-parts")
        # A caller that gives up must not end the questions for the others.
        return await asyncio.shield(self._asking)

    async def _ask_all(self) -> list[Part]:
        try:
            self._told = list(await asyncio.gather(*(_ask(address) for address in self._addresses)))
            self._told_at_s = asyncio.get_running_loop().time()
            return self._told
        finally:
            self._asking = None


async def _ask(address: PartAddress) -> Part:
    try:
        async with asyncio.timeout(WITHIN_S):
            ready, metrics = await asyncio.gather(_get(address, "/ready"), _get(address, "/metrics"))
        told = msgspec.json.decode(ready)
        figures = {
            FIGURES[name]: float(value) for raw, value in _LINE.findall(metrics) if (name := raw.decode()) in FIGURES
        }
    except (OSError, TimeoutError, EOFError, ValueError, RecursionError, msgspec.DecodeError) as error:
        return Part(address.name, "unreachable", {"error": f"{type(error).__name__}: {error}".rstrip(": ")}, {})
    if not isinstance(told, dict) or not isinstance(told.get("status"), str):
        return Part(address.name, "unreachable", {"error": "its answer is not that of a part"}, {})
    details = told_of({name: value for name, value in told.items() if name not in ("status", "service")})
    return Part(address.name, told["status"], details, figures)


def told_of(members: Mapping[str, Any]) -> dict[str, str]:
    """What a part says beside its status, as names and texts: without what says that all is well."""
    found: dict[str, str] = {}
    for name, value in members.items():
        # A count of none is no trouble, and no text that somebody has to read.
        if value in _WELL or value is True or (value == 0 and value is not False):
            continue
        inner = value.items() if isinstance(value, dict) else ((name, value),)
        for key, text in inner:
            shown = ", ".join(map(str, text)) if isinstance(text, list) else str(text)
            found[str(key)[:CHARACTERS_MAX]] = shown[:CHARACTERS_MAX]
            if len(found) >= DETAILS_MAX:
                return found
    return found


async def _get(address: PartAddress, path: str) -> bytes:
    """The body of any answer: a part that is not ready says so with a 503.

    Raises:
        OSError, EOFError: it is not there, or does not answer in full.
        ValueError: it answers with something else, or too much.
    """
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=BYTES_MAX)
    try:
        host = f"[{address.host}]" if ":" in address.host else address.host
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{address.port}\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d{1,9})\r\n", head)
        if not head.startswith(b"HTTP/1.1 ") or length is None or int(length[1]) > BYTES_MAX:
            raise ValueError("it does not answer as a part does")
        return await reader.readexactly(int(length[1]))
    except asyncio.LimitOverrunError as error:
        raise ValueError("its answer is too large") from error
    finally:
        writer.close()
