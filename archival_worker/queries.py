"""The statements of ``sql/queries.sql``, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).parent / "sql" / "queries.sql"
_NAME_LINE: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Queries:
    """One field per statement of the file, under the same name."""

    make_safe: str
    lock_cursors: str
    read_cursors: str
    move_cursors: str
    insert_bids: str
    find_bid_clashes: str
    insert_events: str
    find_event_clashes: str
    apply_voids: str
    store_terms: str
    store_states: str
    insert_dead_letters: str
    count_dead_letters: str
    show_read_only: str


def load_queries(path: Path = _FILE) -> Queries:
    """Read the file.

    Raises:
        ValueError: it lacks a statement, has an unknown one, or has one twice.
    """
    _, *parts = _NAME_LINE.split(path.read_text())
    found: dict[str, str] = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        if name in found:
            raise ValueError(f"{path.name} has the statement {name} twice")
        found[name] = text.strip()
    expected = {field.name for field in fields(Queries)}
    if found.keys() != expected:
        raise ValueError(f"{path.name} does not fit the code: {sorted(found.keys() ^ expected)}")
    return Queries(**found)
