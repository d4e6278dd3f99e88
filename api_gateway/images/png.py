"""Reads a PNG without decoding it (PNG, third edition, section 5). Pure but for the file."""

from __future__ import annotations

import zlib
from typing import Final

from api_gateway.images.errors import ImageBroken
from api_gateway.images.picture import PARTS_MAX, Kind, Part, Picture, Source, joined

START: Final = b"\x89PNG\r\n\x1a\n"

_KEPT: Final = frozenset(b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB iCCP cICP sBIT bKGD pHYs".split())
"""The picture, and what says how its colours are meant. Of a moving one the still picture is left."""
_HEAD_BYTES: Final = 13


def examine(source: Source) -> Picture:
    """What the file is, which begins as a PNG does.

    Raises:
        ImageBroken: it is cut off, or not put together as a PNG is.
    """
    parts: list[Part] = [(0, len(START))]
    size: tuple[int, int] | None = None
    has_data = False
    at = len(START)
    for _ in range(PARTS_MAX):
        head = source.read(at, 8)
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        source.read(at + length + 11, 1)  # it is all there
        if size is None:
            size = _dimensions(source, at, length, name)
        elif name == b"IHDR":
            raise ImageBroken("the PNG has several pictures in it")
        if name in _KEPT:
            joined(parts, at, length + 12)
        elif name[0] < ord("a"):
            raise ImageBroken("the PNG has a part that no browser knows")
        has_data = has_data or name == b"IDAT"
        if name == b"IEND":
            if not has_data:
                raise ImageBroken("the PNG has no picture in it")
            return Picture(Kind.PNG, *size, parts)
        at += length + 12
    raise ImageBroken(f"the PNG has more than {PARTS_MAX} parts")


def _dimensions(source: Source, at: int, length: int, name: bytes) -> tuple[int, int]:
    if name != b"IHDR" or length != _HEAD_BYTES:
        raise ImageBroken("the PNG does not begin with its dimensions")
    chunk = source.read(at + 4, 4 + _HEAD_BYTES + 4)
    if zlib.crc32(chunk[:-4]) != int.from_bytes(chunk[-4:], "big"):
        raise ImageBroken("the PNG is damaged where it tells its dimensions")
    return int.from_bytes(chunk[4:8], "big"), int.from_bytes(chunk[8:12], "big")
