"""Images in a bucket of S3: below ``images/waiting/`` until an item uses them, then below ``images/kept/``.

What is read is copied to a folder of this machine first, so that a slow reader holds no connection to S3. The copies
are bounded; the oldest goes first.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, Final

from api_gateway.images.addresses import kind_named
from api_gateway.images.errors import ImagesFull, StoreAway
from api_gateway.images.store import FILE_BYTES_MIN, REMOVED_MAX, UNUSED_KEEP_S, Swept

logger = logging.getLogger(__name__)

_WAITING: Final = "images/waiting/"
_KEPT: Final = "images/kept/"
_COPY_BYTES: Final = 64 * 1024
_KNOWN_MAX: Final = 10_000
_DAY_S: Final = 86_400
_NOT_FOUND: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class BucketStore:
    """See :class:`ImageStore`."""

    def __init__(self, client: Any, bucket: str, copies: Path, *, day_bytes_max: int, copies_bytes_max: int) -> None:
        """
        Args:
            client: of :func:`shared.aws.clients.open_s3`.
            copies: an empty folder of this process alone.
            day_bytes_max: what this process puts into the bucket on one day (UTC), each image as ``FILE_BYTES_MIN`` or
                more. What is in it already is not counted: it would have to be listed.
        """
        self._client = client
        self._bucket = bucket
        self._copies = copies
        self._day_bytes_max = day_bytes_max
        self._day = self._day_bytes = 0
        self._copies_bytes_max = copies_bytes_max
        self._sizes: dict[str, int] = {}
        self._lock = Lock()
        self._known: dict[str, None] = {}

    def put(self, path: Path, name: str) -> None:
        """See :class:`ImageStore`. S3 checks the content against its SHA-256, which is its name."""
        kind = kind_named(name)
        assert kind is not None
        with self._translated(name):
            is_kept = self._is_there(_KEPT + name)
        if is_kept:
            path.unlink()
            return
        size = path.stat().st_size
        self._require_room(size, time.time())
        with self._translated(name):
            with path.open("rb") as body:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=_WAITING + name,
                    Body=body,
                    ContentLength=size,
                    ContentType=kind.media_type,
                    ChecksumSHA256=base64.b64encode(bytes.fromhex(name[:64])).decode(),
                )
            path.unlink()

    def _require_room(self, size: int, now_s: float) -> None:
        """Count a file that is about to be stored; it stays counted even if it is then not stored."""
        with self._lock:
            day = int(now_s // _DAY_S)
            if day != self._day:
                self._day, self._day_bytes = day, 0
            counted = max(size, FILE_BYTES_MIN)
            if self._day_bytes + counted > self._day_bytes_max:
                raise ImagesFull
            self._day_bytes += counted

    def keep(self, name: str) -> bool:
        """See :class:`ImageStore`. What waits is left there, for the sweep."""
        if name in self._known:
            return True
        with self._translated(name):
            is_kept = self._is_there(_KEPT + name) or self._copied(name)
        if is_kept:
            with self._lock:
                self._known[name] = None
                if len(self._known) > _KNOWN_MAX:
                    self._known.pop(next(iter(self._known)))
        return is_kept

    def _copied(self, name: str) -> bool:
        source = {"Bucket": self._bucket, "Key": _WAITING + name}
        try:
            self._client.copy_object(Bucket=self._bucket, Key=_KEPT + name, CopySource=source)
        except Exception as error:
            if _is_missing(error):
                return False
            raise
        return True

    def has(self, name: str) -> bool:
        """See :class:`ImageStore`."""
        with self._translated(name):
            return self._is_there(_KEPT + name) or self._is_there(_WAITING + name)

    def find(self, name: str) -> Path | None:
        """See :class:`ImageStore`. Of two who fetch it at once, the later copy takes the place of the other."""
        path = self._copies / name
        if path.exists():
            return path
        with self._translated(name):
            for key in (_KEPT + name, _WAITING + name):
                size = self._fetched(key, path)
                if size is not None:
                    self._remember(name, size)
                    return path
        return None

    def _fetched(self, key: str, path: Path) -> int | None:
        """The size of what was fetched; None where there is nothing."""
        try:
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        except Exception as error:
            if _is_missing(error):
                return None
            raise
        scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
        try:
            with contextlib.closing(body), scratch.open("wb") as copy:
                for piece in body.iter_chunks(_COPY_BYTES):
                    copy.write(piece)
            size = scratch.stat().st_size
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
        return size

    def _remember(self, name: str, size: int) -> None:
        with self._lock:
            self._sizes.pop(name, None)
            self._sizes[name] = size
            while sum(self._sizes.values()) > self._copies_bytes_max and len(self._sizes) > 1:
                oldest = next(iter(self._sizes))
                del self._sizes[oldest]
                with contextlib.suppress(OSError):
                    os.unlink(self._copies / oldest)

    def sweep(self, now_s: float) -> Swept:
        """See :class:`ImageStore`."""
        removed = 0
        with self._translated(_WAITING):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=_WAITING)
            for page in pages:
                found = page.get("Contents", ())
                old = [
                    {"Key": each["Key"]} for each in found if each["LastModified"].timestamp() < now_s - UNUSED_KEEP_S
                ][: REMOVED_MAX - removed]
                if old:
                    self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": old, "Quiet": True})
                    removed += len(old)
                if removed >= REMOVED_MAX:
                    break
        return Swept(removed)

    def close(self) -> None:
        """See :class:`ImageStore`."""
        self._client.close()

    def _is_there(self, key: str) -> bool:
        try:
            self._client.head_object(Bucket=self._bucket, Key=key)
        except Exception as error:
            if _is_missing(error):
                return False
            raise
        return True

    @contextlib.contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # botocore makes its exceptions at run time; without importing it, no common base can be named.
            # Its texts name buckets, accounts and hosts: they are for the operator, and not for the caller.
            logger.warning("S3, %s in s3://%s: %s: %s", what, self._bucket, type(error).__name__, error)
            raise StoreAway("the images cannot be reached now; try again", retry_after_s=5) from error


def _is_missing(error: Exception) -> bool:
    told = getattr(error, "response", None)
    return isinstance(told, dict) and str(told.get("Error", {}).get("Code")) in _NOT_FOUND
