"""The judge of a fault run, pure: what clients did and saw, against what Redis and PostgreSQL hold in the end.

A client knows one of these of a request:

- ``ok``: it was told that its bid is accepted (201);
- ``refused``: it was told that the rules refuse it (200);
- ``declined``: it was told that nothing was changed (503);
- ``rejected``: it was told that the request is wrong in itself, such as another bid's key (422);
- ``absent``: it asked by key, and no bid under it was decided yet (404);
- ``unknown``: anything else, such as a broken connection. Such a bid may have been accepted or not.

Times are seconds of one monotonic clock of the process that ran all the clients. The parts are in ``judging/``.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

from tests.faults.judging.ledger import Ledger, ledger_of
from tests.faults.judging.order import order_violations
from tests.faults.judging.records import (
    Answer,
    Frame,
    KeyKind,
    Listed,
    LogEvent,
    Operation,
    Outcome,
    Public,
    Read,
    Records,
    Request,
    Row,
    Sealed,
    Viewer,
)
from tests.faults.judging.replay import Replay, replayed
from tests.faults.judging.stored import stored_violations
from tests.faults.judging.viewers import hidden_from, viewer_violations

__all__ = [
    "Answer",
    "Frame",
    "History",
    "KeyKind",
    "Listed",
    "LogEvent",
    "Operation",
    "Outcome",
    "Public",
    "Read",
    "Request",
    "Row",
    "Sealed",
    "Viewer",
    "violations",
]


@dataclass(frozen=True)
class History(Records):
    """Everything about one item, and what follows from it."""

    @cached_property
    def replay(self) -> Replay:
        """What is stored, decided once more by the rules."""
        return replayed(self)

    @cached_property
    def ledger(self) -> Ledger:
        """Who asked for what is stored."""
        return ledger_of(self, self.replay)

    @property
    def acknowledged(self) -> int:
        """How many different bids were acknowledged."""
        return len(self.ledger.acknowledged)

    @property
    def lost(self) -> int:
        """How many of them are not in PostgreSQL."""
        return sum(sent.position is None for sent in self.ledger.acknowledged)

    @property
    def doubled(self) -> int:
        """How many rows are there beyond one per bid."""
        return len(self.rows) - len({row.bid_id for row in self.rows})

    @property
    def hidden(self) -> int:
        """How many acknowledged bids some viewer was never shown, unannounced, or the history page never lists.

        A maximum that was raised without an event is shown to nobody.
        """
        decisions = self.replay.decisions
        told = [decisions[sent.position - 1] for sent in self.ledger.acknowledged if sent.position is not None]
        seqs = {decision.seq for decision in told if not decision.raised}
        unseen = set().union(*map(hidden_from, self.viewers))
        for viewer in self.viewers:
            last = max((frame.seq for frames in viewer.connections for frame in frames), default=-1)
            unseen |= {seq for seq in seqs if seq > last}
        if self.listed is not None:
            unseen |= seqs - {each.seq for each in self.listed}
        return len(seqs & unseen)


def violations(history: History) -> list[str]:
    """Every promise that the history breaks, in words; empty when it is sound."""
    rows = sorted(history.rows, key=lambda row: (row.epoch, row.seq))
    found = itertools.chain(
        stored_violations(history, rows, history.replay, history.ledger),
        order_violations(history, history.replay, history.ledger),
        viewer_violations(history, history.replay),
    )
    return [f"{history.item_id}: {violation}" for violation in found]
