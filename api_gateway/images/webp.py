"""Reads a WebP without decoding it (RFC 9649). Pure but for the file."""

from __future__ import annotations

import struct
from typing import Final

from api_gateway.images.errors import ImageBroken
from api_gateway.images.picture import PARTS_MAX, Kind, Part, Picture, Source, cut_off, joined

RIFF: Final = b"RIFF"
NAME: Final = b"WEBP"
"""It begins with ``RIFF``, four bytes of its length, and this."""

_HEAD_BYTES: Final = 12
_PICTURES: Final = (b"VP8 ", b"VP8L")
_KEPT: Final = (b"ICCP", b"ALPH")
_EXTENDED: Final = b"VP8X"
_EXTENDED_BYTES: Final = 10
# Of the flags: that there are Exif data, XMP data, and that it moves.
_LEFT_OUT: Final = 0x08 | 0x04 | 0x02


def examine(source: Source) -> Picture:
    """Examine a file that begins like a WebP.

    Raises:
        ImageBroken: it is cut off, moves, or is not put together as a WebP is.
    """
    end = 8 + int.from_bytes(source.read(4, 4), "little")
    if end > source.size:
        raise cut_off()
    parts: list[Part] = [b""]
    canvas: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    at = _HEAD_BYTES
    for number in range(PARTS_MAX):
        if at >= end:
            break
        head = source.read(at, 8)
        name, length = head[:4], int.from_bytes(head[4:], "little")
        padded = length + length % 2
        if at + 8 + padded > end:
            raise cut_off()
        if name == _EXTENDED:
            if number != 0 or length < _EXTENDED_BYTES:
                raise ImageBroken("the WebP does not begin with its dimensions")
            canvas, chunk = _extended(source.read(at + 8, _EXTENDED_BYTES))
            parts.append(chunk)
        elif name in _PICTURES:
            if size is not None:
                raise ImageBroken("the WebP has several pictures in it")
            size = _dimensions(name, source.read(at + 8, min(length, 10)))
            joined(parts, at, 8 + padded)
        elif name in (b"ANIM", b"ANMF"):
            raise ImageBroken("the WebP moves; send a still picture")
        elif name in _KEPT and canvas is not None:
            joined(parts, at, 8 + padded)
        elif number == 0:
            raise ImageBroken("the WebP does not begin with its dimensions")
        at += 8 + padded
    else:
        raise ImageBroken(f"the WebP has more than {PARTS_MAX} parts")
    if size is None:
        raise ImageBroken("the WebP has no picture in it")
    if canvas not in (None, size):
        raise ImageBroken("the WebP tells two different dimensions")
    length = sum(len(part) if isinstance(part, bytes) else part[1] for part in parts)
    parts[0] = RIFF + struct.pack("<I", length + len(NAME)) + NAME
    return Picture(Kind.WEBP, *size, parts)


def _extended(body: bytes) -> tuple[tuple[int, int], bytes]:
    """The dimensions that it tells, and the part as it is kept."""
    width, height = (1 + int.from_bytes(body[start : start + 3], "little") for start in (4, 7))
    kept = bytes([body[0] & ~_LEFT_OUT & 0xFF]) + body[1:]
    return (width, height), _EXTENDED + struct.pack("<I", _EXTENDED_BYTES) + kept


def _dimensions(name: bytes, body: bytes) -> tuple[int, int]:
    if name == b"VP8L":
        if len(body) < 5 or body[0] != 0x2F:
            raise ImageBroken("the WebP is damaged where its picture begins")
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if len(body) < 10 or body[0] & 1 or body[3:6] != b"\x9d\x01\x2a":
        raise ImageBroken("the WebP is damaged where its picture begins")
    width, height = struct.unpack("<HH", body[6:10])
    return width & 0x3FFF, height & 0x3FFF
