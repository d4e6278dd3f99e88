"""How values lie in the cache and travel between nodes: as they are, or as gzip where that pays.

A page of fifty bids has 8 KB and packs to a sixth. A single item has less than 1 KB; packing it would cost more time
than the room is worth. JSON never begins with the two bytes with which gzip does, so no mark is needed.
"""

from __future__ import annotations

import zlib
from typing import Final

PACK_FROM_BYTES: Final = 1_024
PAYS_BELOW: Final = 0.75
"""Packing pays below this packed size, as a share of the plain size."""
UNPACKED_BYTES_MAX: Final = 16 * 1024**2

_MAGIC: Final = b"\x1f\x8b"
_GZIP: Final = 16 + zlib.MAX_WBITS
_LEVEL: Final = 1
"""Higher levels save a tenth more and take up to four times as long."""


def pack(value: bytes) -> bytes:
    """``value``, a JSON text, as it is kept."""
    if len(value) < PACK_FROM_BYTES:
        return value
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    packed = packer.compress(value) + packer.flush()
    return packed if len(packed) < PAYS_BELOW * len(value) else value


def is_packed(kept: bytes) -> bool:
    """Whether it is gzip, which is sent as it is to clients that accept gzip."""
    return kept.startswith(_MAGIC)


def unpack(kept: bytes) -> bytes:
    """The inverse of :func:`pack`.

    Raises:
        ValueError: it was not packed here: it is damaged, or has more than ``UNPACKED_BYTES_MAX``.
    """
    if not is_packed(kept):
        return kept
    unpacker = zlib.decompressobj(_GZIP)
    try:
        value = unpacker.decompress(kept, UNPACKED_BYTES_MAX)
    except zlib.error as error:
        raise ValueError(f"a kept value cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise ValueError("a kept value is cut off, or too large")
    return value
