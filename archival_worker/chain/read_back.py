"""Reads an export back, and checks that it is the one that was confirmed, and whole. Blocks, so run it in a thread."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archival_worker.chain.export_file import BadLine, NotAnExport, Verified, verify
from archival_worker.chain.hashes import Head, Version
from archival_worker.chain.sinks import Digest, ReadableSink
from archival_worker.errors import ExportDamaged


@dataclass(frozen=True, slots=True)
class Exported:
    """A confirmed export, as PostgreSQL knows it."""

    item_id: str
    head: Head
    key: str
    digest: Digest

    @classmethod
    def of(cls, row: Any) -> Exported:
        """From a row of ``exports`` or ``retired_items``."""
        head = Head(Version(row["epoch"], row["seq"]), row["head"])
        return cls(row["item_id"], head, row["object_key"], Digest(row["bytes"], row["sha256"]))


def read_back(sink: ReadableSink, exported: Exported) -> Verified:
    """What the export holds.

    Raises:
        ExportFailed: it is not there, or cannot be read now.
        ExportDamaged: something else is there than was confirmed, or it does not fit itself.
    """
    with tempfile.TemporaryDirectory(prefix="bidding-read-back-") as folder:
        path = Path(folder) / "export.jsonl.gz"
        found = sink.fetch(exported.key, path, bytes_max=exported.digest.size)
        name = f"{sink.place}/{exported.key}"
        if found != exported.digest:
            raise ExportDamaged(f"{name} is not what was exported: its size ({found.size} bytes) or content differs")
        try:
            verified = verify(path)
        except (NotAnExport, BadLine) as error:
            raise ExportDamaged(f"{name}: {error}") from error
    if (verified.item_id, verified.head) != (exported.item_id, exported.head):
        raise ExportDamaged(f"{name} is an export of something else: {verified.item_id} up to {verified.head.place}")
    return verified
