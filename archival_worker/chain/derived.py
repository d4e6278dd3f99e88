"""Compares an item's row, which no hash covers, with the item's log, from which it is derived. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from archival_worker.chain.export_file import Verified, state_after, terms_in
from archival_worker.chain.hashes import Row

# Members of the `created` event that have another name in the item's row: its `end_us` is the end as it is now.
_COLUMN_OF: Final = {"end_us": "original_end_us"}

_NOTHING_TOLD: Final[dict[str, Any]] = {"image_urls": []}
"""What the row has for a term that the event lacks."""


def disagreement(item: Row, created: Sequence[Row], last: Row) -> str | None:
    """How the item's row (of ``read_item``) differs from its log; None if they agree.

    Args:
        created: the events that created it, normally one. An item that was created again after Redis was lost has two,
            and the terms of one of them.
        last: its last event.
    """
    found = _difference(item, {key: (key, value) for key, value in state_after(last).items()})
    if found is not None or not created:
        return found
    bodies = [json.loads(row["body"]) for row in created]
    terms = [
        {key: (_COLUMN_OF.get(key, key), value) for key, value in (_NOTHING_TOLD | terms_in(body)).items()}
        for body in bodies
    ]
    differences = [_difference(item, each) for each in terms]
    return differences[0] if all(differences) else None


def disagreement_with_export(item: Row, exported: Verified) -> str | None:
    """The same for an item whose log is in its export alone. Its terms are not compared where it was created twice: the
    export begins with those of the first time."""
    found = _difference(item, {key: (key, value) for key, value in exported.state.items()})
    if found is not None or exported.creations > 1:
        return found
    terms = _NOTHING_TOLD | exported.terms
    return _difference(item, {key: (_COLUMN_OF.get(key, key), value) for key, value in terms.items()})


def _difference(item: Row, expected: dict[str, tuple[str, Any]]) -> str | None:
    for key, (column, value) in expected.items():
        if item[column] != value:
            return f"the item's row has {key} {item[column]!r}, and its log {value!r}"
    return None
