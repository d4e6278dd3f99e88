"""Says what an uploaded file is, from its bytes alone and without decoding it. Pure but for the file.

What a client calls it counts for nothing here. A file that is two things at once, such as an image with a page in its
comments, is told by its beginning; of the rest only what belongs to the image is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO, Final

from api_gateway.images import jpeg, png, webp
from api_gateway.images.errors import ImageDimensions, ImageTypeWrong
from api_gateway.images.picture import Kind, Picture, Source

START_BYTES: Final = 12
"""How many bytes tell the type."""
SIDE_MAX: Final = 16_000
PIXELS_MAX: Final = 25_000_000
"""A browser takes four bytes for each, 100 MB for the largest image."""
PIXELS_PER_BYTE_MAX: Final = 400
PIXELS_FREE: Final = 4_000_000
"""Images with more pixels than this have at most ``PIXELS_PER_BYTE_MAX`` for each byte that is kept. Photographs have
at most 30, drawings with large plain areas a hundred or two. A file of a few kilobytes that takes 100 MB of each viewer
was made to do harm."""

_COPY_BYTES: Final = 64 * 1024
_EXAMINE: Final = {Kind.JPEG: jpeg.examine, Kind.PNG: png.examine, Kind.WEBP: webp.examine}


def kind_of(start: bytes) -> Kind | None:
    """The type of a file that begins like this; None for any other."""
    if start.startswith(jpeg.START):
        return Kind.JPEG
    if start.startswith(png.START):
        return Kind.PNG
    if start.startswith(webp.RIFF) and start[8:12] == webp.NAME:
        return Kind.WEBP
    return None


def wrong_type() -> ImageTypeWrong:
    """The error for a file that is not a JPEG, PNG or WebP."""
    return ImageTypeWrong("send a JPEG, PNG or WebP image, with its type as Content-Type")


def examine(file: BinaryIO) -> Picture:
    """The image in a file.

    Raises:
        ImageTypeWrong: it is none of the types that are taken.
        ImageBroken: it is none that can be shown.
        ImageDimensions: it has too many pixels, or none.
    """
    source = Source(file)
    kind = kind_of(source.read_some(0, START_BYTES))
    if kind is None:
        raise wrong_type()
    picture = _EXAMINE[kind](source)
    width, height = picture.width, picture.height
    if not (0 < width <= SIDE_MAX and 0 < height <= SIDE_MAX and width * height <= PIXELS_MAX):
        raise ImageDimensions(
            f"the image has {width} by {height} pixels; it may have {PIXELS_MAX // 1_000_000} million in all, and"
            f" {SIDE_MAX} on a side"
        )
    kept_bytes = sum(len(part) if isinstance(part, bytes) else part[1] for part in picture.parts)
    if width * height > max(PIXELS_FREE, PIXELS_PER_BYTE_MAX * kept_bytes):
        raise ImageDimensions(
            f"the image has {width} by {height} pixels in {kept_bytes} bytes; above {PIXELS_FREE // 1_000_000} million"
            f" it may have {PIXELS_PER_BYTE_MAX} for each byte"
        )
    return picture


def write_kept(picture: Picture, file: BinaryIO, copy: BinaryIO) -> tuple[str, int]:
    """Write what is kept of the file. Returns the SHA-256 of that, in hexadecimal, and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    for part in picture.parts:
        for piece in (part,) if isinstance(part, bytes) else _pieces(file, *part):
            digest.update(piece)
            copy.write(piece)
            size += len(piece)
    return digest.hexdigest(), size


def _pieces(file: BinaryIO, offset: int, length: int) -> Iterator[bytes]:
    file.seek(offset)
    while length > 0:
        piece = file.read(min(length, _COPY_BYTES))
        if not piece:
            return
        length -= len(piece)
        yield piece
