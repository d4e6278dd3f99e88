"""Disks that are full, and disks that forget what nobody has forced onto them."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

_ENDED_S = 15.0
_TOOLS = ("mkfs.ext4", "mount", "umount", "losetup")

_Test = TypeVar("_Test", bound=Callable[..., object])
_skip_without_tools = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, _TOOLS)), reason="needs root and " + ", ".join(_TOOLS)
)
# `sync` forces all disks of the machine: where several processes run tests, one of them runs all that call it.
_in_one_process = pytest.mark.xdist_group("disks")


def needs_own_disk(test: _Test) -> _Test:
    """Marks a test that uses an :class:`OwnDisk`."""
    marked: _Test = _in_one_process(_skip_without_tools(test))
    return marked


needs_prlimit = pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit, of util-linux")


def limit_files(pid: int, bytes_max: int) -> None:
    """No file of the process and its descendants may grow past so many bytes, nor be written behind them; -1: no limit.

    Through the program, as whom the process belongs to: a root without all capabilities may not limit another user's.
    """
    first = psutil.Process(pid)
    _limit(first, bytes_max)
    for descendant in first.children(recursive=True):
        # It may just have ended.
        with contextlib.suppress(psutil.NoSuchProcess, subprocess.CalledProcessError):
            _limit(descendant, bytes_max)


def _limit(process: psutil.Process, bytes_max: int) -> None:
    limit = "unlimited" if bytes_max < 0 else str(bytes_max)
    user, group = process.uids().real, process.gids().real
    _run("prlimit", "--pid", str(process.pid), f"--fsize={limit}:unlimited", user=user, group=group)


class OwnDisk:
    """A file system in a file, on the folder of a server that does not run; the content of the folder moves there."""

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image

    def fill(self, but_bytes: int) -> None:
        """Take all space but so many bytes."""
        space = os.statvfs(self.folder)
        with (self.folder / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, space.f_bavail * space.f_bsize - but_bytes)

    def make_room(self) -> None:
        """Give back what :meth:`fill` took."""
        (self.folder / "filler").unlink()

    def cut_power(self) -> None:
        """Keep a copy of what is on the disk at this moment, without what is only in the memory of the kernel."""
        _run("cp", "--sparse=always", str(self._image), f"{self._image}.kept")

    def power_again(self) -> None:
        """Go on with that copy. Nothing may run on the disk."""
        _unmount(self.folder)
        Path(f"{self._image}.kept").replace(self._image)
        _mount(self._image, self.folder)


@contextlib.contextmanager
def own_disk_or_skip(folder: Path, *, megabytes: int) -> Iterator[OwnDisk]:
    """An :class:`OwnDisk` while the block runs, its content thrown away after it; the server must be ended in time.

    Skips the test where root may not mount either, as in most containers.
    """
    with tempfile.TemporaryDirectory(prefix="bidding-disk-") as directory:
        image = Path(directory) / "image"
        with image.open("wb") as file:
            file.truncate(megabytes * 1024**2)
        _run("mkfs.ext4", "-q", "-m", "0", str(image))
        old = folder.with_name(f"{folder.name}.before")
        folder.rename(old)
        folder.mkdir()
        try:
            _mount(image, folder)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"cannot mount a file here: {error.stderr.decode(errors='replace').strip()}")
        try:
            # With their owners: PostgreSQL has a user of its own.
            _run("cp", "-a", f"{old}/.", str(folder))
            yield OwnDisk(folder, image)
        finally:
            # Lazily, since a test that failed leaves its server running, which is ended afterwards.
            _run("umount", "--lazy", str(folder))


def _unmount(folder: Path) -> None:
    # The children of a server that was killed end a moment later than itself.
    deadline_s = time.monotonic() + _ENDED_S
    while True:
        try:
            return _run("umount", str(folder))
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)


def _mount(image: Path, folder: Path) -> None:
    _run("mount", "-o", "loop", str(image), str(folder))


def _run(*words: str, user: int | None = None, group: int | None = None) -> None:
    if user == os.geteuid():
        user = group = None
    subprocess.run(words, check=True, capture_output=True, timeout=60, user=user, group=group)
