"""Takes images in and gives them out. What blocks runs in threads, in small pieces: the loop decides bids."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Final, TypeVar

from api_gateway.images.addresses import PREFIX, name_of, own_names
from api_gateway.images.errors import ImagesOff, ImageTooLarge, StoreAway, UploadTooSlow
from api_gateway.images.examine import START_BYTES, examine, kind_of, write_kept, wrong_type
from api_gateway.images.picture import Kind
from api_gateway.images.quota import BYTES_PER_S_MIN, SLOW_S, Pace, Quota
from api_gateway.images.store import FILE_BYTES_MIN, REMOVED_MAX, ImageStore
from shared.domain.errors import BiddingError, Overloaded, TermsInvalid

logger = logging.getLogger(__name__)

T = TypeVar("T")

PIECE_BYTES: Final = 64 * 1024
"""How much is read or written at once."""
READERS_MAX: Final = 256
"""The most images that are being sent."""
SWEEP_EVERY_S: Final = 600.0
SWEEP_AGAIN_S: Final = 1.0
"""The pause after a sweep that removed as many as one sweep may."""

_THREADS: Final = 4
"""Threads for images that arrive or that items begin to use, and as many again for reads. So uploads, of which twice as
many may be under way, do not keep images from being shown."""
_FINDS_MAX: Final = 3
"""How often an image is looked for, if its copy goes each time before it is opened."""
_ABANDONED_S: Final = 3_600
_KINDS: Final = {kind.media_type: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An image that waits for an item. ``size`` in bytes, of what is kept of the upload."""

    url: str
    kind: Kind
    size: int
    width: int
    height: int


class Images:
    """The images of one gateway."""

    def __init__(
        self,
        store: ImageStore | None,
        scratch: Path | None,
        *,
        quota: Quota,
        bytes_max: int,
        hosts: frozenset[str] = frozenset(),
        pace: Pace | None = None,
        slow_s: float = SLOW_S,
    ) -> None:
        """
        Args:
            store: None where images are not kept here.
            scratch: a folder for what is arriving, of the same file system as a store that is a folder.
            bytes_max: of one image, as it is sent.
            hosts: other ones on which the images of items may be.
            pace: of all uploads together.
            slow_s: how long nothing of an upload needs to come.
        """
        self.hosts = hosts
        self._store = store
        self._scratch = scratch
        self._quota = quota
        self._bytes_max = bytes_max
        self._slow_s = slow_s
        self._threads = ThreadPoolExecutor(_THREADS, "images")
        self._reading = ThreadPoolExecutor(_THREADS, "images-read")
        # One at a time: it takes turns with the loop that decides bids, and several would take several turns.
        self._examiner = ThreadPoolExecutor(1, "images-examine")
        self._readers = 0
        self._pace = pace or Pace()
        self._turns: dict[str, _Turn] = {}

    # ------------------------------------------------------------------------------------------------ taking in

    async def take(self, pieces: AsyncIterable[bytes], media_type: str, uploader: str) -> Uploaded:
        """Take in the image whose file arrives in ``pieces``. ``media_type``: what the request calls it.

        Raises:
            ImagesOff, ImageTypeWrong, ImageTooLarge, ImageBroken, ImageDimensions, ImageQuota, ImagesFull: it is not
                taken.
            UploadTooSlow, Overloaded, StoreAway: it may be sent again.
        """
        if self._store is None or self._scratch is None:
            raise ImagesOff
        kind = _KINDS.get(media_type)
        if kind is None:
            raise wrong_type()
        self._quota.enter(uploader)
        arriving = _Arriving(self._scratch)
        try:
            await self._receive(pieces, kind, arriving, uploader)
            uploaded = await self._in_thread(_examined, arriving, kind, threads=self._examiner)
            await self._in_thread(_stored, self._store, arriving, uploaded)
            return uploaded
        finally:
            self._quota.leave(uploader)
            self._threads.submit(arriving.discard)

    async def _receive(self, pieces: AsyncIterable[bytes], kind: Kind, arriving: _Arriving, uploader: str) -> None:
        size, waiting = 0, bytearray()
        self._quota.count_file(uploader, time.time())
        free_s = self._paced(FILE_BYTES_MIN)
        async for piece in _in_time(pieces, self._slow_s):
            size += len(piece)
            if size > self._bytes_max:
                raise ImageTooLarge(self._bytes_max)
            # Its first bytes have been counted.
            more = max(size, FILE_BYTES_MIN) - max(size - len(piece), FILE_BYTES_MIN)
            self._quota.count(uploader, more, time.time())
            free_s = self._paced(more)
            if size - len(piece) < START_BYTES <= size and kind_of(bytes((waiting + piece)[:START_BYTES])) is not kind:
                raise wrong_type()
            waiting += piece
            if len(waiting) >= PIECE_BYTES:
                await self._in_thread(arriving.write, bytes(waiting))
                # Meanwhile the server reads no more of this connection than fits into its buffer.
                await asyncio.sleep(free_s - time.monotonic())
                waiting.clear()
        await self._in_thread(arriving.write, bytes(waiting))
        await asyncio.sleep(free_s - time.monotonic())

    def _paced(self, size: int) -> float:
        """The time, by the monotonic clock, until which a taker of this many bytes must take no more."""
        now_s = time.monotonic()
        return now_s + self._pace.wait_s(size, now_s)

    # -------------------------------------------------------------------------------------------- items use them

    async def keep(self, urls: Sequence[str]) -> None:
        """An item is about to have these images: keep those that are here, or none where one is missing.

        Raises:
            TermsInvalid: one of them is not here.
            StoreAway: they cannot be looked for now.
        """
        if len(urls) > 1:
            await self.require(urls)
        await self._require(urls, lambda store: store.keep)

    async def require(self, urls: Sequence[str]) -> None:
        """Check the same, and keep nothing."""
        await self._require(urls, lambda store: store.has)

    @contextlib.asynccontextmanager
    async def turn_of(self, item_id: str) -> AsyncIterator[None]:
        """Inside, no other request of this gateway creates an item with this id and images."""
        turn = self._turns.setdefault(item_id, _Turn())
        turn.takers += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.takers -= 1
            if not turn.takers:
                del self._turns[item_id]

    async def _require(self, urls: Sequence[str], look: Callable[[ImageStore], Callable[[str], bool]]) -> None:
        names = own_names(urls)
        if not names:
            return
        if self._store is None:
            raise TermsInvalid("image_urls", str(ImagesOff()))
        missing = await self._in_thread(_missing, look(self._store), names)
        if missing is not None:
            raise TermsInvalid("image_urls", f"there is no image {PREFIX}{missing}; upload it (again)")

    # ----------------------------------------------------------------------------------------------- giving out

    async def open(self, name: str) -> tuple[BinaryIO, int] | None:
        """The file of an image and its size; None where there is none. Each is given back to :meth:`close_file`.

        Raises:
            Overloaded: too many are being sent.
            StoreAway: it cannot be read now.
        """
        if self._store is None:
            return None
        if self._readers >= READERS_MAX:
            raise Overloaded("too many images are being read; try again")
        self._readers += 1
        found = None
        try:
            found = await self._in_thread(_opened, self._store, name, threads=self._reading)
            return found
        finally:
            if found is None:
                self._readers -= 1

    async def read(self, file: BinaryIO) -> bytes:
        """The next piece of it; empty at its end."""
        return await self._in_thread(file.read, PIECE_BYTES, threads=self._reading)

    def close_file(self, file: BinaryIO) -> None:
        """Close a file that nobody reads any more."""
        self._readers -= 1
        self._reading.submit(file.close)

    # ------------------------------------------------------------------------------------------------ all the time

    async def run(self) -> None:
        """Remove what no item uses, for ever."""
        while True:
            wait_s = SWEEP_EVERY_S
            if self._store is not None and self._scratch is not None:
                try:
                    swept = await self._in_thread(self._store.sweep, time.time())
                    await self._in_thread(_remove_abandoned, self._scratch, time.time())
                except BiddingError as error:
                    logger.warning("images are not swept: %s", error)
                else:
                    if swept.removed:
                        logger.info("%d images that no item uses were removed", swept.removed)
                    if swept.removed >= REMOVED_MAX:
                        wait_s = SWEEP_AGAIN_S
            await asyncio.sleep(wait_s)

    def close(self) -> None:
        """Leave the store. What runs is finished."""
        for threads in (self._examiner, self._threads, self._reading):
            threads.shutdown(wait=True, cancel_futures=False)
        if self._store is not None:
            self._store.close()

    async def _in_thread(self, call: Callable[..., T], *arguments: object, threads: Executor | None = None) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads or self._threads, call, *arguments)


@dataclass(slots=True, eq=False)
class _Turn:
    """``takers``: who has it, and who waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    takers: int = 0


class _Arriving:
    """The files of one upload. Made and written in threads, one after another; a call that was cancelled may still run
    when they are discarded."""

    def __init__(self, scratch: Path) -> None:
        name = secrets.token_hex(8)
        self._path = scratch / f"{name}.sent"
        self.kept_path = scratch / f"{name}.kept"
        self._file: BinaryIO | None = None
        self._lock = Lock()
        self._is_discarded = False

    @property
    def file(self) -> BinaryIO:
        """The file with what has arrived."""
        if self._file is None:
            self._file = self._path.open("w+b")
        return self._file

    def write(self, data: bytes) -> None:
        with self.held():
            self.file.write(data)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Inside, the files are not discarded.

        Raises:
            StoreAway: they are discarded already, or cannot be read or written.
        """
        with self._lock:
            if self._is_discarded:
                raise StoreAway("the upload was given up")
            try:
                yield
            except OSError as error:
                raise StoreAway(f"the folder for uploads: {error.strerror or error}", retry_after_s=5) from error

    def discard(self) -> None:
        """Remove what is left of it."""
        with self._lock:
            self._is_discarded = True
            try:
                if self._file is not None:
                    self._file.close()  # Writes what is left, which a full disk refuses.
            finally:
                for path in (self._path, self.kept_path):
                    path.unlink(missing_ok=True)


async def _in_time(pieces: AsyncIterable[bytes], slow_s: float) -> AsyncIterator[bytes]:
    """The same pieces. The time that their taker needs, for example for the pace, does not count.

    Raises:
        UploadTooSlow: the next one does not come in time.
    """
    size, waited_s = 0, 0.0
    coming = aiter(pieces)
    while True:
        asked_s = time.monotonic()
        try:
            async with asyncio.timeout(slow_s + size / BYTES_PER_S_MIN - waited_s):
                piece = await anext(coming)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise UploadTooSlow from error
        waited_s += time.monotonic() - asked_s
        size += len(piece)
        yield piece


def _examined(arriving: _Arriving, kind: Kind) -> Uploaded:
    """Examine what has arrived, and write what is kept of it."""
    with arriving.held():
        picture = examine(arriving.file)
        if picture.kind is not kind:
            raise wrong_type()
        with arriving.kept_path.open("wb") as copy:
            sha256, size = write_kept(picture, arriving.file, copy)
    return Uploaded(PREFIX + name_of(sha256, kind), kind, size, picture.width, picture.height)


def _stored(store: ImageStore, arriving: _Arriving, uploaded: Uploaded) -> None:
    with arriving.held():
        store.put(arriving.kept_path, uploaded.url.removeprefix(PREFIX))


def _missing(is_there: Callable[[str], bool], names: Sequence[str]) -> str | None:
    return next((name for name in names if not is_there(name)), None)


def _opened(store: ImageStore, name: str) -> tuple[BinaryIO, int] | None:
    for _ in range(_FINDS_MAX):
        path = store.find(name)
        if path is None:
            break
        # 1. It is found. 2. Others are read, and the copy has to make room; or an item takes it, and it moves. 3. It is
        # not there any more, and the store still has it.
        with contextlib.suppress(FileNotFoundError):
            file = path.open("rb")
            return file, os.fstat(file.fileno()).st_size
    return None


def _remove_abandoned(scratch: Path, now_s: float) -> None:
    """Remove what a gateway left that ended in the middle of an upload."""
    for path in scratch.iterdir():
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < now_s - _ABANDONED_S:
                path.unlink()
