"""Who asked for what is stored: every bid of a client beside the decision that it led to, if any."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.faults.judging.records import Records, Request
from tests.faults.judging.replay import Decision, Replay

KEPT_REFUSALS = frozenset({None, "TOO_LOW", "MAX_NOT_RAISED", "OWN_ITEM"})
"""Refusals that stand under the bid's key; the others depend on the hour, and the bid may be sent again."""


@dataclass(slots=True)
class Sent:
    """A bid of a client, with all requests about it. ``position`` counts decisions from 1; None where it has none."""

    name: str
    requests: list[Request] = field(default_factory=list)
    position: int | None = None

    @property
    def content(self) -> tuple[str, int | None, int | None]:
        """Who bid how much, and up to which maximum."""
        first = self.requests[0]
        return first.user_id, first.amount, first.max_amount

    @property
    def oks(self) -> list[Request]:
        """The requests that were told of its acceptance."""
        return [each for each in self.requests if each.outcome == "ok"]

    @property
    def told_ids(self) -> set[str]:
        """The ids that the platform named to its client."""
        return {each.told.bid_id for each in self.oks if each.told is not None and each.told.bid_id is not None}

    @property
    def effects(self) -> list[Request]:
        """The requests that may have placed it."""
        return [each for each in self.requests if not each.is_lookup and each.outcome in ("ok", "unknown")]

    @property
    def sent_s(self) -> float:
        """Before this nobody could have accepted it."""
        return min((each.invoked_s for each in self.effects), default=math.inf)

    @property
    def acknowledged_s(self) -> float:
        """After this it is known to be accepted."""
        return min((each.completed_s for each in self.oks), default=math.inf)

    @property
    def may_be_unknown(self) -> bool:
        """Whether a request of unknown outcome may have placed it."""
        return any(each.outcome == "unknown" for each in self.effects)


@dataclass(slots=True)
class Ledger:
    """Every bid that was sent, by its name, and the decisions that nobody asked for."""

    sent: dict[str, Sent]
    asked_for: dict[int, Sent]
    unasked: list[Decision]

    @property
    def acknowledged(self) -> list[Sent]:
        """The bids whose clients were told of an acceptance."""
        return [each for each in self.sent.values() if each.oks]


def ledger_of(records: Records, replay: Replay) -> Ledger:
    """Match requests and decisions: by the id, by the key, and a bid without either by who bid how much."""
    sent: dict[str, Sent] = {}
    for request in records.requests:
        if not request.is_misuse:
            sent.setdefault(request.bid_id, Sent(request.bid_id)).requests.append(request)
    by_id = {each.requests[0].bid_id: each for each in sent.values() if each.requests[0].key == "bid_id"}
    by_key = {(each.requests[0].user_id, each.name): each for each in sent.values() if each.requests[0].key == "header"}
    by_told = {told: each for each in sent.values() for told in each.told_ids}
    ledger = Ledger(sent, {}, [])
    nameless: list[tuple[int, Decision]] = []
    for position, decision in enumerate(replay.decisions, 1):
        bid = decision.bid
        if bid is None:
            continue
        found = by_id.get(bid.bid_id) or by_key.get((bid.user_id, decision.key or ""))
        told = by_told.get(bid.bid_id)
        # Not where somebody else's bid stands under the id that this client was told: then its own is lost.
        if found is None and told is not None and told.content == (bid.user_id, bid.amount, bid.maximum):
            found = told
        if found is None:
            nameless.append((position, decision))
        else:
            found.position = found.position or position
            ledger.asked_for[position] = found
    _match_by_content(ledger, nameless)
    return ledger


def _match_by_content(ledger: Ledger, nameless: Iterable[tuple[int, Decision]]) -> None:
    """Bids without a key and without an answer: whichever of them were stored, each was stored once at most.

    Those of equal content cannot be told apart. They are matched in the order in which they were sent: if any matching
    fits the times, this one does.
    """
    waiting: dict[tuple[str, int | None, int | None], list[Sent]] = defaultdict(list)
    for each in ledger.sent.values():
        if each.position is None and each.requests[0].key == "none" and each.may_be_unknown and not each.oks:
            waiting[each.content].append(each)
    for several in waiting.values():
        several.sort(key=lambda each: each.sent_s, reverse=True)
    for position, decision in nameless:
        bid = decision.bid
        assert bid is not None
        candidates = waiting.get((bid.user_id, bid.amount, bid.maximum))
        if candidates:
            found = candidates.pop()
            found.position = position
            ledger.asked_for[position] = found
        else:
            ledger.unasked.append(decision)
