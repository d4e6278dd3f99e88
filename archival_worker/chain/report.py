"""What an audit found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


class AuditImpossible(Exception):
    """No answer is possible: PostgreSQL is unreachable, lacks the schema or does not know the item."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The first row that does not fit: its place ``<epoch>:<seq>``, its type if it exists, and what is wrong."""

    place: str
    type: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found.

    Attributes:
        item_id: whose chain it is.
        fits: how many events fit, from the first one on.
        up_to: the place of the last one that fits, ``<epoch>:<seq>``, or None.
        head: its hash in hex, or None.
        waiting: events past the chain's end; it follows within a second, unless one before them is missing.
        finding: what does not fit, or None.
        export: of a retired item, where its log is; nothing of it is in PostgreSQL then.
    """

    item_id: str
    fits: int
    up_to: str | None
    head: str | None
    waiting: int
    finding: Finding | None
    export: str | None = None

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return self.finding is None

    def text(self) -> str:
        """One sentence, for people."""
        fit = f"{self.fits} events fit" + (f", up to {self.up_to}" if self.up_to else "")
        fit += f", in {self.export} alone" if self.export else ""
        if self.finding is None:
            waiting = f"; {self.waiting} wait to be chained" if self.waiting else ""
            return f"{self.item_id}: {fit}{waiting}. Head: {self.head or 'none'}"
        what = f"{self.finding.type or 'event'} {self.finding.place}"
        return f"{self.item_id}: {what} does not fit: {self.finding.reason} ({fit})"

    def json(self) -> str:
        """One line of JSON, for programs."""
        return json.dumps(asdict(self) | {"sound": self.is_sound})
