"""Reads a JPEG without decoding it (ITU T.81, annex B; Exif 2.32 for its orientation). Pure but for the file."""

from __future__ import annotations

import re
import struct
from typing import Final

from api_gateway.images.errors import ImageBroken
from api_gateway.images.picture import PARTS_MAX, Kind, Part, Picture, Source, cut_off, joined

START: Final = b"\xff\xd8\xff"

_PIECE_BYTES: Final = 64 * 1024
_FILLS_MAX: Final = 1_024
"""Bytes that may stand before the markers of one file, in all. Writers make none, or a few to align a segment."""
_SCANS_MAX: Final = 100
"""The most scans of one file. A progressive JPEG has about ten. For each of them a piece is read anew."""
# In the data of a scan FF is followed by 00, and marks of resynchronisation stand in it. Whatever else follows FF ends
# the scan; FF itself may be repeated before that.
_END_OF_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

_END: Final = 0xD9
_SCAN: Final = 0xDA
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})
"""Baseline, extended and progressive. Of the other kinds browsers show none."""
_OTHER_FRAMES: Final = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8}
_TABLES: Final = frozenset({0xC4, 0xDB, 0xDD})
_NAMED: Final = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
"""Segments of applications that say how its colours are meant; all others are left out."""
_FIXED_BYTES: Final = {0xE0: 14, 0xEE: 12}
"""How long the fields of two of these are, with the name. Behind them may stand a thumbnail, or anything."""
_JFIF: Final = 0xE0
_EXIF: Final = 0xE1
_EXIF_START: Final = b"Exif\0\0"
_ORIENTATION: Final = 0x0112
_ENTRIES_MAX: Final = 200


def examine(source: Source) -> Picture:
    """Examine a file that begins like a JPEG.

    Raises:
        ImageBroken: it is cut off, or not put together as a JPEG is.
    """
    parts: list[Part] = [(0, 2)]
    size: tuple[int, int] | None = None
    turned = False
    scans = fills = 0
    at = 2
    for _ in range(PARTS_MAX):
        marker, at, more_fills = _marker(source, at, _FILLS_MAX - fills)
        fills += more_fills
        if marker == _END:
            if size is None or not scans:
                raise ImageBroken("the JPEG has no picture in it")
            joined(parts, at - 2, 2)
            return Picture(Kind.JPEG, *size, parts)
        length = int.from_bytes(source.read(at, 2), "big")
        if length < 2:
            raise ImageBroken("the JPEG has a segment without a length")
        body = at + 2
        if marker in _OTHER_FRAMES:
            raise ImageBroken("it is a kind of JPEG that browsers do not show; save it as an ordinary one")
        if marker in _FRAMES:
            if size is not None:
                raise ImageBroken("the JPEG has several pictures in it")
            height, width = struct.unpack(">HH", source.read(body, 5)[1:])
            size = width, height
        elif marker == _SCAN and size is None:
            raise ImageBroken("the JPEG has picture data before its dimensions")
        end = at + length
        source.read(end - 1, 1)  # it is all there
        if marker in _FRAMES or marker in _TABLES:
            joined(parts, at - 2, length + 2)
        elif _is_needed(source, marker, body, length - 2):
            fields = _FIXED_BYTES.get(marker, length - 2)
            if fields == length - 2:
                joined(parts, at - 2, length + 2)
            elif fields < length - 2:
                parts.append(_shortened(marker, source.read(body, fields)))
        elif marker == _SCAN:
            scans += 1
            if scans > _SCANS_MAX:
                raise ImageBroken(f"the JPEG has more than {_SCANS_MAX} scans; save it as an ordinary one")
            end = _end_of_scan(source, end)
            joined(parts, at - 2, end - at + 2)
        elif marker == _EXIF and not turned:
            segment = _only_orientation(source.read(body, length - 2))
            turned = segment != b""
            if turned:
                parts.append(segment)
        at = end
    raise ImageBroken(f"the JPEG has more than {PARTS_MAX} segments")


def _marker(source: Source, at: int, fills_max: int) -> tuple[int, int, int]:
    """The marker here, where it ends, and how many bytes stand before it to fill up."""
    start = source.read(at, 2)
    if start[0] != 0xFF:
        raise ImageBroken("the JPEG has something between two of its segments")
    marker, fills = start[1], 0
    if marker == 0xFF:
        # One read for all of them, because the sender chooses how many there are.
        filled = source.read_some(at, fills_max + 2)
        rest = filled.lstrip(b"\xff")
        if not rest:
            raise cut_off() if len(filled) < fills_max + 2 else ImageBroken("the JPEG has a marker without an end")
        marker, fills = rest[0], len(filled) - len(rest) - 1
    if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
        raise ImageBroken("the JPEG has a marker where none can be")
    return marker, at + fills + 2, fills


def _is_needed(source: Source, marker: int, body: int, length: int) -> bool:
    name = _NAMED.get(marker)
    return name is not None and length >= len(name) and source.read(body, len(name)) == name


def _shortened(marker: int, fields: bytes) -> bytes:
    """The segment with nothing behind its fields; of JFIF the last two are the size of a thumbnail."""
    content = fields[:-2] + b"\0\0" if marker == _JFIF else fields
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def _end_of_scan(source: Source, at: int) -> int:
    while True:
        piece = source.read_some(at, _PIECE_BYTES)
        found = _END_OF_SCAN.search(piece)
        if found is not None:
            return at + found.start()
        if len(piece) < 2:
            raise cut_off()
        at += len(piece) - 1  # the last byte may begin what the next piece ends


def _only_orientation(exif: bytes) -> bytes:
    """A segment that says how a camera was held, and nothing else; nothing where it was held upright."""
    orientation = _orientation(exif)
    if orientation in (0, 1):
        return b""
    directory = struct.pack(">HHHIHHI", 1, _ORIENTATION, 3, 1, orientation, 0, 0)
    content = _EXIF_START + b"MM\0*" + struct.pack(">I", 8) + directory
    return b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content


def _orientation(exif: bytes) -> int:
    """1 to 8; 0 where it is not told."""
    if not exif.startswith(_EXIF_START):
        return 0
    tiff = exif[len(_EXIF_START) :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 0
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for entry in range(min(count, _ENTRIES_MAX)):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 0
    except struct.error:
        pass  # it is damaged: no browser would turn the picture either
    return 0
