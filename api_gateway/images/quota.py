"""How much may be uploaded: at a time, in a second, and on one day (UTC). Pure; the clock is an argument."""

from __future__ import annotations

from typing import Final

from api_gateway.images.errors import ImageQuota
from api_gateway.images.store import FILE_BYTES_MIN
from shared.domain.errors import Overloaded

AT_ONCE_MAX: Final = 8
AT_ONCE_EACH_MAX: Final = 3
"""The most uploads at a time: of all, and of one uploader."""
BYTES_PER_S: Final = 10 * 1024**2
"""The rate of all uploads together. The loop that decides bids takes these bytes from the connections."""
FILES_EACH_MAX: Final = 2_000
FILES_ALL_MAX: Final = 20 * FILES_EACH_MAX
"""The most uploads on one day: of one uploader, and of all."""
SLOW_S: Final = 5.0
BYTES_PER_S_MIN: Final = 32 * 1024
"""An upload may be silent for ``SLOW_S``; after that it has to bring ``BYTES_PER_S_MIN``, on average. Without this a
few idle connections would hold all the places."""

_UPLOADERS_MAX: Final = 10_000
_OTHERS: Final = "\0others"
"""The name under which further uploaders are counted together, once ``_UPLOADERS_MAX`` are counted."""
_DAY_S: Final = 86_400


class Quota:
    """Counts what arrives, also what is refused later. A restart forgets it."""

    def __init__(self, *, each_bytes_max: int, all_bytes_max: int) -> None:
        """Bytes of one uploader, and of all, on one day."""
        self._each_bytes_max = each_bytes_max
        self._all_bytes_max = all_bytes_max
        self._day = 0
        self._used: dict[str, tuple[int, int]] = {}
        self._used_by_all = self._files_of_all = 0
        self._running: dict[str, int] = {}

    def enter(self, uploader: str) -> None:
        """An upload begins. Each is ended by :meth:`leave`.

        Raises:
            Overloaded: too many are under way.
        """
        mine = self._running.get(uploader, 0)
        if mine >= AT_ONCE_EACH_MAX:
            raise Overloaded(f"{AT_ONCE_EACH_MAX} of your uploads are under way; wait for one of them")
        if sum(self._running.values()) >= AT_ONCE_MAX:
            raise Overloaded("too many images are being uploaded; try again")
        self._running[uploader] = mine + 1

    def leave(self, uploader: str) -> None:
        """The upload has ended."""
        left = self._running[uploader] - 1
        if left:
            self._running[uploader] = left
        else:
            del self._running[uploader]

    def count_file(self, uploader: str, now_s: float) -> None:
        """A file begins to arrive, at this Unix time. Counts its first ``FILE_BYTES_MIN`` as well, however small it is.

        Raises:
            ImageQuota: that is more than may on one day.
        """
        self.count(uploader, FILE_BYTES_MIN, now_s, files=1)

    def count(self, uploader: str, size: int, now_s: float, *, files: int = 0) -> None:
        """So many bytes have arrived, at this Unix time, and so many files.

        Raises:
            ImageQuota: that is more than may on one day.
        """
        day = int(now_s // _DAY_S)
        if day != self._day:
            self._day = day
            self._used.clear()
            self._used_by_all = self._files_of_all = 0
        counted = uploader if uploader in self._used or len(self._used) < _UPLOADERS_MAX else _OTHERS
        mine, my_files = self._used.get(counted, (0, 0))
        mine += size
        my_files += files
        left_s = int((day + 1) * _DAY_S - now_s) + 1
        if mine > self._each_bytes_max:
            raise ImageQuota(f"your room of {self._each_bytes_max} bytes", left_s)
        if self._used_by_all + size > self._all_bytes_max:
            raise ImageQuota(f"the room of {self._all_bytes_max} bytes that all share", left_s)
        if my_files > FILES_EACH_MAX:
            raise ImageQuota(f"your room of {FILES_EACH_MAX} images", left_s)
        if self._files_of_all + files > FILES_ALL_MAX:
            raise ImageQuota(f"the room of {FILES_ALL_MAX} images that all share", left_s)
        self._used[counted] = mine, my_files
        self._used_by_all += size
        self._files_of_all += files


class Pace:
    """Spreads what arrives over time."""

    def __init__(self) -> None:
        self._free_s = 0.0

    def wait_s(self, size: int, now_s: float) -> float:
        """For how long, in seconds, a taker of this many bytes must take no more."""
        self._free_s = max(self._free_s, now_s) + size / BYTES_PER_S
        return self._free_s - now_s
