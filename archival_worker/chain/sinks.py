"""Where exports go: a directory, or an S3 bucket. Both block, so run them in a thread."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from archival_worker.errors import ExportFailed, ExportsMisconfigured
from shared.aws.clients import open_s3

_CHUNK_BYTES: Final = 1024 * 1024
_ABANDONED_S: Final = 3600.0
"""A file that was not written to for so long is that of an archiver that died, or of a call that was given up."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What identifies a file's content: its size in bytes and its SHA-256."""

    size: int
    sha256: bytes


def digest_of(chunks: Iterable[bytes]) -> Digest:
    """Size and SHA-256 of all chunks together."""
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
    return Digest(size, hasher.digest())


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """The rest of a file, a mebibyte at a time."""
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


class Sink(Protocol):
    """Takes finished files. At least once: the same key again replaces the same content."""

    def put(self, path: Path, key: str, digest: Digest) -> None:
        """Store the file under the key. Return once it is confirmed: what is stored was compared with ``digest``.

        Raises:
            ExportFailed: it is not stored, or not confirmed. Nobody finds half of a file under the key.
        """

    def close(self) -> None:
        """Close connections."""


class ReadableSink(Sink, Protocol):
    """One that gives back what it has."""

    @property
    def place(self) -> str:
        """Where it stores, for people: a folder, or ``s3://<bucket>``."""

    def fetch(self, key: str, path: Path, *, bytes_max: int) -> Digest:
        """Write what is stored under the key, at most ``bytes_max``, into a file. Returns its size and SHA-256.

        Raises:
            ExportFailed: nothing is stored there, it is larger, or it cannot be read now.
        """


class DirectorySink:
    """Files in a folder, each written under another name first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, path: Path, key: str, digest: Digest) -> None:
        target = self._folder / key
        # Each call has a file of its own: one that was given up may still write, and another archiver, perhaps in a
        # container where it has the same process number, tries the same export.
        scratch = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(target)
            try:
                with path.open("rb") as source, scratch.open("wb") as copy:
                    for chunk in chunks_of(source):
                        copy.write(chunk)
                    copy.flush()
                    os.fsync(copy.fileno())
                scratch.replace(target)
            finally:
                scratch.unlink(missing_ok=True)
            _sync_folder(target.parent)
            with target.open("rb") as stored:
                found = digest_of(chunks_of(stored))
        except OSError as error:
            raise ExportFailed(f"{error.strerror or error}: {target}") from error
        if found != digest:
            raise ExportFailed(f"{target} was written and reads back otherwise")

    @property
    def place(self) -> str:
        return str(self._folder.absolute())

    def fetch(self, key: str, path: Path, *, bytes_max: int) -> Digest:
        target = self._folder / key
        try:
            with target.open("rb") as stored:
                return _copied(chunks_of(stored), path, bytes_max, str(target))
        except OSError as error:
            raise ExportFailed(f"{error.strerror or error}: {target}") from error

    def close(self) -> None:
        return


def _copied(chunks: Iterable[bytes], path: Path, bytes_max: int, name: str) -> Digest:
    """Write the chunks into a file.

    Raises:
        ExportFailed: they are more than ``bytes_max``.
        OSError: the file cannot be written.
    """
    hasher, size = hashlib.sha256(), 0
    with path.open("wb") as copy:
        for chunk in chunks:
            size += len(chunk)
            if size > bytes_max:
                raise ExportFailed(f"{name} has more than the {bytes_max} bytes that were exported")
            hasher.update(chunk)
            copy.write(chunk)
    return Digest(size, hasher.digest())


def _remove_abandoned(target: Path) -> None:
    """Remove what was left of former attempts to write this file."""
    for path in target.parent.glob(f".{target.name}.*.tmp"):
        # Another archiver may remove it, too.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED_S:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Sync the folder: without that, a new name is not on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class S3Sink:
    """Objects in a bucket. S3 checks the content against its SHA-256 and keeps nothing of a broken upload."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, path: Path, key: str, digest: Digest) -> None:
        checksum = base64.b64encode(digest.sha256).decode()
        where = {"Bucket": self._bucket, "Key": key}
        try:
            with path.open("rb") as body:
                self._client.put_object(
                    **where,
                    Body=body,
                    ContentLength=digest.size,
                    ContentType="application/gzip",
                    ChecksumSHA256=checksum,
                    Metadata={"sha256": digest.sha256.hex()},
                )
            head = self._client.head_object(**where, ChecksumMode="ENABLED")
            found = head.get("ChecksumSHA256")
            is_it = head["ContentLength"] == digest.size and (
                # Not every S3 server returns the checksum; without it, the object is read back.
                found == checksum if found else self._read_back(where) == digest
            )
        except Exception as error:
            # botocore makes its exceptions at run time; without importing it, no common base can be named.
            raise ExportFailed(f"S3, s3://{self._bucket}/{key}: {type(error).__name__}: {error}") from error
        if not is_it:
            raise ExportFailed(f"s3://{self._bucket}/{key} was stored and is not what was sent")

    @property
    def place(self) -> str:
        return f"s3://{self._bucket}"

    def fetch(self, key: str, path: Path, *, bytes_max: int) -> Digest:
        name = f"s3://{self._bucket}/{key}"
        try:
            with contextlib.closing(self._client.get_object(Bucket=self._bucket, Key=key)["Body"]) as body:
                return _copied(body.iter_chunks(_CHUNK_BYTES), path, bytes_max, name)
        except ExportFailed:
            raise
        except Exception as error:
            raise ExportFailed(f"S3, {name}: {type(error).__name__}: {error}") from error

    def _read_back(self, where: dict[str, str]) -> Digest:
        with contextlib.closing(self._client.get_object(**where)["Body"]) as body:
            return digest_of(body.iter_chunks(_CHUNK_BYTES))

    def close(self) -> None:
        self._client.close()


def open_sink(*, folder: str, bucket: str, endpoint_url: str, timeout_s: float) -> ReadableSink | None:
    """The bucket if one is named, else the folder if one is named, else None: no exports.

    Raises:
        ExportsMisconfigured: a bucket is named and boto3 is missing, or cannot be set up.
    """
    if bucket:
        try:
            return S3Sink(open_s3(endpoint_url=endpoint_url or None, timeout_s=timeout_s), bucket)
        except ImportError as error:
            raise ExportsMisconfigured(
                "EXPORT_S3_BUCKET is set but boto3 is not installed; install the extra `aws` of this project, "
                "or set EXPORT_DIR instead"
            ) from error
        except Exception as error:
            raise ExportsMisconfigured(f"S3 (EXPORT_S3_BUCKET): {type(error).__name__}: {error}") from error
    return DirectorySink(Path(folder)) if folder else None
