"""What an image is found to be, and the bounded look at its file. Pure but for the file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO, Final

from api_gateway.images.errors import ImageBroken

Part = bytes | tuple[int, int]
"""A part of the file that is kept: the bytes themselves, or offset and length in the file that was examined."""

PARTS_MAX: Final = 20_000
"""Segments or chunks of one image. Writers make a few hundred of the largest image that is taken."""


class Kind(Enum):
    """The types that are taken. Each is shown by every browser, and none can hold a script that one would run."""

    JPEG = "image/jpeg", "jpg"
    PNG = "image/png", "png"
    WEBP = "image/webp", "webp"

    @property
    def media_type(self) -> str:
        """The type as Content-Type names it."""
        return self.value[0]

    @property
    def suffix(self) -> str:
        """The end of the file's name, without the dot."""
        return self.value[1]


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that can be shown. ``width`` and ``height`` in pixels, as they are stored.

    ``parts``: what is kept of its file, in order. Left out is what a browser does not need to show it: comments, the
    place and time of the shot, the camera's number, thumbnails, and whatever stands behind its end.
    """

    kind: Kind
    width: int
    height: int
    parts: Sequence[Part]


class Source:
    """A file of which a few bytes are read at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, io.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes.

        Raises:
            ImageBroken: the file ends before.
        """
        found = self.read_some(offset, length)
        if len(found) < length:
            raise cut_off()
        return found

    def read_some(self, offset: int, length_max: int) -> bytes:
        """These bytes, fewer at the end of the file."""
        self._file.seek(offset)
        return self._file.read(length_max)


def cut_off() -> ImageBroken:
    """The error for a file that ends before its image does."""
    return ImageBroken("the image is cut off; send the whole file")


def joined(parts: list[Part], offset: int, length: int) -> None:
    """Add a part of the file; one that follows the last one directly becomes one with it."""
    last = parts[-1] if parts else b""
    if isinstance(last, tuple) and sum(last) == offset:
        parts[-1] = last[0], last[1] + length
    else:
        parts.append((offset, length))
