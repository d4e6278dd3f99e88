"""What keeps images. All of it blocks: run it in a thread."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

UNUSED_KEEP_S: Final = 24 * 3_600
"""How long an uploaded image waits for an item."""
REMOVED_MAX: Final = 10_000
"""The most images that one sweep removes. It looks at all that wait: if it looked at some only, it might never reach
the others."""
FILE_BYTES_MIN: Final = 4_096
"""A smaller image counts as this many bytes: it takes a block of the disk, and a request."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep did. ``removed``: images that no item has used in time; if they are ``REMOVED_MAX``, more may be
    left."""

    removed: int = 0


class ImageStore(Protocol):
    """Images by their names. A name is that of its content, so two writers of one name write the same.

    A new image waits for an item. One that an item uses is kept for good: items stay in the archive for good.
    """

    def put(self, path: Path, name: str) -> None:
        """Let a finished file wait under the name, from now on; nothing where it is kept already. The file is gone
        afterwards. Nobody finds half of it.

        Raises:
            ImagesFull: there is no room.
            StoreAway: it is not stored.
        """

    def keep(self, name: str) -> bool:
        """Keep the image for good; False where there is none. May be repeated.

        Raises:
            StoreAway: whether it is kept is not known.
        """

    def has(self, name: str) -> bool:
        """Whether there is such an image. Raises StoreAway."""

    def find(self, name: str) -> Path | None:
        """A file of this machine with the image; None where there is none. Open it at once: it may be removed.

        Raises:
            StoreAway: it cannot be read now.
        """

    def sweep(self, now_s: float) -> Swept:
        """Remove images that have waited for longer than ``UNUSED_KEEP_S`` at this Unix time, ``REMOVED_MAX`` at most.

        Raises:
            StoreAway: the store cannot be looked at.
        """

    def close(self) -> None:
        """Close connections."""
