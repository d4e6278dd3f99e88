"""Images in a folder: ``waiting/`` until an item uses them, then ``kept/``.

Both lie in one file system, so an image moves from one to the other in one step. Interleavings with a sweep, which may
run in another gateway on the same folder:

1. The sweep finds an image old. 2. An item takes it: it moves to ``kept/``. 3. The sweep finds
   nothing to remove.
1. The sweep finds an image old, and removes it. 2. An item wants it: it is told to upload it again.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Final

from api_gateway.images.errors import ImagesFull, StoreAway
from api_gateway.images.store import FILE_BYTES_MIN, REMOVED_MAX, UNUSED_KEEP_S, Swept

_WAITING: Final = "waiting"
_KEPT: Final = "kept"
_COUNT_EVERY_S: Final = 3_600.0
FREE_FILES_MIN: Final = 10_000
"""Files for which the file system must keep room: others need some as well."""


class FolderStore:
    """See :class:`ImageStore`."""

    def __init__(
        self, folder: Path, *, bytes_max: int, free_bytes_min: int, free_files_min: int = FREE_FILES_MIN
    ) -> None:
        """
        Args:
            bytes_max: of all images together, each of ``FILE_BYTES_MIN`` or more. Counted every hour, and in between
                by what this process adds.
            free_bytes_min: what must stay free on the disk, which others need as well.
            free_files_min: how many more files the file system must have room for.
        """
        self._folder = folder
        self._bytes_max = bytes_max
        self._free_bytes_min = free_bytes_min
        self._free_files_min = free_files_min
        self._bytes = 0
        self._counted_s: float | None = None
        self._lock = Lock()

    def put(self, path: Path, name: str) -> None:
        """See :class:`ImageStore`."""
        with _translated():
            if self._path(_KEPT, name).exists():
                path.unlink()
                return
            waiting = self._path(_WAITING, name)
            if not waiting.exists():  # otherwise it would replace the same content
                self._require_room(path.stat().st_size)
            waiting.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.utime(path)
            path.replace(waiting)

    def keep(self, name: str) -> bool:
        """See :class:`ImageStore`."""
        kept = self._path(_KEPT, name)
        with _translated():
            if kept.exists():
                return True
            kept.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._path(_WAITING, name).replace(kept)
            except FileNotFoundError:
                return kept.exists()  # perhaps another item has taken it meanwhile
            _sync(kept.parent)
            return True

    def has(self, name: str) -> bool:
        """See :class:`ImageStore`."""
        return self.find(name) is not None

    def find(self, name: str) -> Path | None:
        """See :class:`ImageStore`."""
        # Twice `kept`: it may move there between the first two looks.
        for state in (_KEPT, _WAITING, _KEPT):
            path = self._path(state, name)
            if path.exists():
                return path
        return None

    def sweep(self, now_s: float) -> Swept:
        """See :class:`ImageStore`."""
        removed = 0
        with _translated():
            for path in _files(self._folder / _WAITING):
                if removed >= REMOVED_MAX:
                    break
                with contextlib.suppress(FileNotFoundError):
                    stat = path.stat()
                    if stat.st_mtime < now_s - UNUSED_KEEP_S:
                        path.unlink()
                        removed += 1
        if removed:
            self._counted_s = None  # count anew
        return Swept(removed)

    def close(self) -> None:
        """See :class:`ImageStore`."""

    def _path(self, state: str, name: str) -> Path:
        return self._folder / state / name[:2] / name

    def _require_room(self, size: int) -> None:
        """Count a file that is about to be stored."""
        with self._lock:
            now_s = time.monotonic()
            if self._counted_s is None or now_s - self._counted_s > _COUNT_EVERY_S:
                self._counted_s = now_s
                self._bytes = sum(_sizes(self._folder / _KEPT)) + sum(_sizes(self._folder / _WAITING))
            counted = max(size, FILE_BYTES_MIN)
            if self._bytes + counted > self._bytes_max:
                raise ImagesFull
            disk = os.statvfs(self._folder)
            if disk.f_bavail * disk.f_frsize - counted < self._free_bytes_min:
                raise ImagesFull
            # Some file systems make room for files as they come, and tell 0 for all of them.
            if disk.f_files and disk.f_favail < self._free_files_min:
                raise ImagesFull
            self._bytes += counted


def _sizes(folder: Path) -> Iterator[int]:
    for path in _files(folder):
        with contextlib.suppress(FileNotFoundError):
            yield max(path.stat().st_size, FILE_BYTES_MIN)


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, or none where it is not there."""
    for root, _, names in os.walk(folder):
        for name in names:
            yield Path(root, name)


def _sync(folder: Path) -> None:
    """Without that, a new name is not on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreAway(f"the folder of the images: {error.strerror or error}", retry_after_s=5) from error
