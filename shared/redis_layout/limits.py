"""Bounds of what Redis keeps beside an item. The scripts get them from here (:meth:`.scripts.Script.read`)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

RECENT_EVENTS: Final = 512
"""The most events that are kept beside an item."""

ACCEPTED_KEPT: Final = 1_024
"""The most entries of an item's log of accepted bids."""

VERDICT_KEEP_S: Final = 86_400
"""How long verdicts of accepted bids are kept after an item is over; a void after that does not prolong it."""

RETURNED_KEEP_S: Final = 60
"""How long a closed item stays in Redis at least after it came back for a void, and after the void itself."""

IN_SCRIPTS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "ACCEPTED_KEPT": ACCEPTED_KEPT,
        "RECENT_EVENTS": RECENT_EVENTS,
        "RETURNED_KEEP_S": RETURNED_KEEP_S,
        "VERDICT_KEEP_S": VERDICT_KEEP_S,
    }
)
"""What a script may name in a line ``---@limit <name>``."""
