"""Retired items: closed ones whose log (bids, events, their hashes) is in its export alone.

The item itself is told as before. Where somebody asks for its bids, the answer says where they are.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from shared.archive_reads.asking import Fetch
from shared.archive_reads.statements import statements
from shared.domain.errors import HistoryRetired
from shared.timefmt import to_rfc3339

_SQL: Final = statements("retired")
_PREFIX: Final = b'{"retired":'


class Retired(msgspec.Struct, frozen=True):
    """Where the log of a retired item is, as anybody may know it.

    Attributes:
        export: the name of the export in the operator's bucket or folder.
        head: the hash of the last event, in hex: no other log of the item leads to it.
        bids, events: how many it has; events count bids too.
        retired_at: in microseconds since 1970.
    """

    export: str
    head: str
    bids: int
    events: int
    retired_at: int

    def error(self, item_id: str) -> HistoryRetired:
        """The error for those who ask for the log."""
        return HistoryRetired(item_id, export=self.export, head=self.head, bids=self.bids, retired_us=self.retired_at)


def members_of(error: HistoryRetired) -> dict[str, Any]:
    """What a problem document tells beside the error's text."""
    return {
        "export": error.export,
        "head": error.head,
        "bids": error.bids,
        "retired_at": to_rfc3339(error.retired_us),
    }


class _Told(msgspec.Struct):
    retired: Retired


_decoder: Final = msgspec.json.Decoder(_Told)


async def retired_item(fetch: Fetch, item_id: str) -> Retired | None:
    """Where the item's log is; None where it is in the archive. Ask after the log was read: then it was all there.

    Raises:
        Unavailable: PostgreSQL cannot be asked.
    """
    rows = await fetch(_SQL["read_retired"], item_id)
    return Retired(**dict(rows[0])) if rows else None


async def is_retiring(fetch: Fetch, item_id: str) -> bool:
    """Whether the retention is checking right now if the item may retire. Until that is over it must not come back into
    Redis.

    Raises:
        Unavailable: PostgreSQL cannot be asked.
    """
    rows = await fetch(_SQL["read_check"], item_id)
    return bool(rows)


def encode_retired(retired: Retired) -> bytes:
    """The value that a key of the item's history has in place of a page."""
    return msgspec.json.encode(_Told(retired))


def decode_retired(value: bytes) -> Retired | None:
    """The inverse; None where the value is a page."""
    return _decoder.decode(value).retired if value.startswith(_PREFIX) else None
