"""The auction room of the demo: which lots are open, who is interested in which, and who bids next. Pure."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from infrastructure.local.demo.bidders import Bidder, LotView, Offer, Seat, seat_bidders
from infrastructure.local.demo.lots import Lot, LotPlanner

_URGENT_S = 20.0
_WEIGHT_URGENT = 8.0
_WEIGHT_NEW = 4.0


@dataclass(frozen=True, slots=True)
class Turn:
    """A bid that is about to be placed."""

    lot: Lot
    seat: Seat
    offer: Offer


@dataclass(slots=True)
class Tally:
    """What happened so far.

    ``refused`` counts the bids that the rules refused, ``troubles`` everything that the platform did not do, by code.
    """

    opened: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    troubles: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    bids_of: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Table:
    lot: Lot
    seats: list[Seat]
    view: LotView | None = None


class Room:
    """Keeps ``lots`` lots going.

    Args:
        planner: makes the lots.
        people: who bids.
        lots: how many lots are open or about to open at any time.
        chance: who bids what when.
    """

    def __init__(self, planner: LotPlanner, people: Sequence[Bidder], *, lots: int, chance: random.Random) -> None:
        self.tally = Tally()
        self._planner = planner
        self._people = people
        self._chance = chance
        self._wanted = planner.first(lots)
        self._tables: dict[str, _Table] = {}

    @property
    def wanted(self) -> tuple[Lot, ...]:
        """Lots that are still to be opened."""
        return tuple(self._wanted)

    @property
    def open_ids(self) -> tuple[str, ...]:
        """Lots that were opened and have not ended."""
        return tuple(self._tables)

    def opened(self, lot: Lot) -> None:
        """The platform accepted the lot."""
        self._wanted.remove(lot)
        self._tables[lot.item_id] = _Table(lot, seat_bidders(lot, self._people, self._chance))
        self.tally.opened += 1

    def refused(self, lot: Lot, code: str) -> None:
        """The platform refused the lot: plan another one in its place."""
        self._wanted.remove(lot)
        self._wanted.append(self._planner.next())
        self.tally.troubles[code] += 1

    def seen(self, item_id: str, view: LotView) -> Lot | None:
        """Note a lot's present state. Returns the lot if it is over; then another one is planned."""
        table = self._tables.get(item_id)
        if table is None:
            return None
        table.view = view
        if not view.is_over:
            return None
        del self._tables[item_id]
        self.tally.ended[view.status] += 1
        self._wanted.append(self._planner.next())
        return table.lot

    def lost(self, item_id: str, code: str) -> None:
        """The platform does not know the lot any more: plan another one in its place."""
        if self._tables.pop(item_id, None) is not None:
            self._wanted.append(self._planner.next())
            self.tally.troubles[code] += 1

    def next_turn(self, now_s: float) -> Turn | None:
        """The next bid; None if nobody wants to bid. Lots that end soon or have no bid yet get more bids."""
        turns: list[Turn] = []
        weights: list[float] = []
        for table in self._tables.values():
            view = table.view
            if view is None:
                continue
            is_urgent = view.ends_s is not None and view.ends_s - now_s <= _URGENT_S
            weight = _WEIGHT_URGENT if is_urgent else _WEIGHT_NEW if view.bid_count == 0 else 1.0
            offers = [(seat, seat.offer(view, now_s, self._chance)) for seat in table.seats]
            willing = [Turn(table.lot, seat, offer) for seat, offer in offers if offer is not None]
            turns += willing
            # Per lot, not per bidder: otherwise the lots with most bidders would take all the bids.
            weights += [weight / len(willing) for _ in willing]
        return self._chance.choices(turns, weights)[0] if turns else None

    def bid_made(self, turn: Turn, now_s: float) -> None:
        """The bid was sent; its bidder sends no other one before the answer."""
        turn.seat.noted(turn.offer, now_s)

    def bid_answered(self, turn: Turn, *, code: str | None, price: int, minimum: int, leads: bool) -> None:
        """The answer to a bid: ``code`` is None where it was accepted."""
        if code is None:
            self.tally.accepted += 1
            self.tally.bids_of[turn.lot.item_id] += 1
        else:
            self.tally.refused[code] += 1
        table = self._tables.get(turn.lot.item_id)
        if table is None or table.view is None or price < table.view.price:
            return
        view = table.view
        leader = turn.seat.bidder.user_id if leads else None if view.leader == turn.seat.bidder.user_id else view.leader
        table.view = replace(
            view, price=price, minimum=minimum, leader=leader, bid_count=view.bid_count + (code is None)
        )

    def trouble(self, code: str) -> None:
        """The platform gave an error, or no answer at all."""
        self.tally.troubles[code] += 1
