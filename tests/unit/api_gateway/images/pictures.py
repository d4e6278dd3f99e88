"""Images put together byte by byte, as writers of files do: whole ones, damaged ones, and what only looks like one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from api_gateway.images.picture import Kind

HTML = b"<html><script>alert(document.domain)</script></html>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
PLACE = b"N 52.5163 E 13.3777"
"""Where it was taken: must never be given out."""


def chunk(name: bytes, data: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    width: int = 3, height: int = 2, *, colour: tuple[int, int, int] = (90, 140, 60), more: bytes = b"", rows: int = -1
) -> bytes:
    """One colour, getting darker to the bottom. ``more``: chunks before its data. ``rows``: of data, where there are to
    be others than it says."""
    lines = bytearray()
    for row in range(height if rows < 0 else rows):
        shade = 1 - 0.6 * row / max(height, 1)
        lines += b"\0" + bytes(round(part * shade) for part in colour) * width
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", data) + chunk(b"IEND")


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def frame(width: int, height: int) -> bytes:
    return struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"


def exif(orientation: int, order: str = "<") -> bytes:
    """The body of a segment: how the camera was held, and where it was."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + start + struct.pack(order + "H", 1) + entry + bytes(4) + PLACE


def jpeg(
    width: int = 40,
    height: int = 30,
    *,
    more: bytes = b"",
    scan: bytes = b"\x12\xff\x00\x34\xff\xd0\x56",
    end: bytes = b"",
) -> bytes:
    """Put together as a JPEG is; what it shows is nothing. ``more``: segments before its frame. ``end``: behind it."""
    return (
        b"\xff\xd8"
        + segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
        + more
        + segment(0xDB, b"\0" + bytes(range(1, 65)))
        + segment(0xC0, frame(width, height))
        + segment(0xC4, b"\0" + bytes(16))
        + segment(0xDA, b"\1\1\0\0\x3f\0")
        + scan
        + b"\xff\xd9"
        + end
    )


def riff(*chunks: tuple[bytes, bytes], name: bytes = b"WEBP") -> bytes:
    body = name
    for fourcc, data in chunks:
        body += fourcc + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossy(width: int, height: int) -> tuple[bytes, bytes]:
    return b"VP8 ", b"\x10\x02\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) + b"data"


def lossless(width: int, height: int) -> tuple[bytes, bytes]:
    return b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + b"data"


def extended(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    sides = b"".join(struct.pack("<I", side - 1)[:3] for side in (width, height))
    return b"VP8X", bytes((flags, 0, 0, 0)) + sides


def webp(width: int = 16, height: int = 9) -> bytes:
    return riff(lossy(width, height))


WHOLE: dict[Kind, Callable[..., bytes]] = {Kind.JPEG: jpeg, Kind.PNG: png, Kind.WEBP: webp}
"""By type: makes one of this width and height."""
