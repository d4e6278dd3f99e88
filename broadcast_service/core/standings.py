"""How bidders stand on one item, and who must be told. Pure; the clock is an argument.

Here are only the bidders who follow the item and have authenticated (:mod:`broadcast_service.endpoints.private`): a
few, however many watch. Their maxima are here too, and go only to connections of the same bidder that may see them.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from broadcast_service.core.frames import UNKNOWN, Frame, Standing, Version, standing_frame, struck_frame
from broadcast_service.core.pace import Pace
from shared.aliases import alias_of
from shared.domain.auction import Status
from shared.redis_layout.item_hash import ItemState

ListenerT = TypeVar("ListenerT", bound=Hashable)

_DEFAULT_CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Struck:
    """A bid of the bidder that an operator struck; ``amount`` in minor units, None for a raise."""

    version: Version
    bid_id: str
    amount: int | None
    reason: str
    ts_us: int
    currency: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What Redis has of one bidder on one item: whether a bid of theirs stands, their maximum in minor units, and their
    struck bids, oldest first, as far as events are kept."""

    has_bid: bool
    maximum: int | None = None
    struck: tuple[Struck, ...] = ()


def standing_of(user_id: str, item: ItemState | None, *, has_bid: bool) -> Standing:
    """The user's standing; ``none`` where no bid of theirs stands."""
    if item is None:
        return "none"
    state = item.state
    if state.leader == user_id:
        if state.status is Status.SOLD:
            return "won"
        return "lost" if state.status.is_final else "leading"
    if not has_bid:
        return "none"
    return "lost" if state.status.is_final else "outbid"


def maximum_to_tell(user_id: str, item: ItemState | None, facts: Facts) -> int | None:
    """The bidder's own maximum; None where there is none, or a later bid of theirs exceeded it."""
    if item is None or facts.maximum is None:
        return None
    if item.state.leader == user_id and facts.maximum < item.state.price:
        return None
    return facts.maximum


@dataclass(slots=True)
class _Bidder(Generic[ListenerT]):
    """One user.

    Attributes:
        facts: what was read; None before that, and while it may be out of date.
        bid_since: an event said that they bid after the last read began, so that read may not have it.
        told_struck: by listener, the last struck bid that it was told of.
        listeners: by listener, whether it may see the maximum, and what it was told last.
    """

    facts: Facts | None = None
    bid_since: bool = False
    told_struck: dict[ListenerT, Version] = field(default_factory=dict)
    listeners: dict[ListenerT, tuple[bool, tuple[Standing, int | None, str] | None]] = field(default_factory=dict)

    @property
    def sees_maximum(self) -> bool:
        return any(sees for sees, _ in self.listeners.values())


class Standings(Generic[ListenerT]):
    """The bidders of one item who want to know how they stand.

    A standing is told once it is known and whenever it changes, at most at the given pace; of faster changes only the
    last one is told.
    """

    def __init__(self, item_id: str, pace: Pace) -> None:
        self.item_id = item_id
        self._pace = pace
        self._bidders: dict[str, _Bidder[ListenerT]] = {}
        self._dirty: set[str] = set()

    def __len__(self) -> int:
        return len(self._bidders)

    # ----------------------------------------------------------------------------------------------- who listens

    def listen(self, listener: ListenerT, user_id: str, *, sees_maximum: bool) -> None:
        """Tell this listener how the user stands, now and at each change; again where it listens already."""
        self._bidders.setdefault(user_id, _Bidder()).listeners[listener] = (sees_maximum, None)
        self._dirty.add(user_id)

    def leave(self, listener: ListenerT, user_id: str) -> None:
        """Stop telling this listener."""
        bidder = self._bidders.get(user_id)
        if bidder is None:
            return
        bidder.listeners.pop(listener, None)
        bidder.told_struck.pop(listener, None)
        if not bidder.listeners:
            del self._bidders[user_id]
            self._dirty.discard(user_id)

    # ------------------------------------------------------------------------------------------------- what is known

    def changed(self, users: Collection[str]) -> list[str]:
        """The standing of these users may have changed, because they bid. No users: that of everybody.

        Returns:
            The users whose facts must be read before they are told. For users who bid, that is their maximum, which no
            event tells. For everybody, also whether a bid of theirs stands: one may have been struck or not shown.
        """
        to_read: list[str] = []
        for user_id in users or self._bidders:
            bidder = self._bidders.get(user_id)
            if bidder is None:
                continue
            bidder.bid_since = bidder.bid_since or bool(users)
            if bidder.sees_maximum or not users:
                bidder.facts = None
                to_read.append(user_id)
            self._dirty.add(user_id)
        return to_read

    def reading(self, users: Iterable[str]) -> None:
        """A read of these users begins; it will include all that events told up to now."""
        for user_id in users:
            bidder = self._bidders.get(user_id)
            if bidder is not None and bidder.bid_since:
                bidder.bid_since = False
                if bidder.facts is not None:
                    bidder.facts = replace(bidder.facts, has_bid=True)

    def learn(self, facts: dict[str, Facts]) -> None:
        """Take in what was read."""
        for user_id, read in facts.items():
            bidder = self._bidders.get(user_id)
            if bidder is not None:
                bidder.facts = read
                self._dirty.add(user_id)

    # ------------------------------------------------------------------------------------------------- what to send

    def due_s(self) -> float | None:
        """When to call :meth:`flush`; None while there is nothing to tell."""
        return self._pace.due_s if self._dirty else None

    def flush(self, item: ItemState | None, now_s: float) -> list[tuple[ListenerT, Frame]]:
        """The frames that are due, each for one listener. ``item``: as viewers last saw it."""
        if not self._dirty or not self._pace.is_free(now_s):
            return []
        told: list[tuple[ListenerT, Frame]] = []
        for user_id in self._dirty:
            bidder = self._bidders.get(user_id)
            # Bidders without facts are told when the read in progress ends.
            if bidder is not None and bidder.facts is not None:
                told += self._tell(user_id, bidder, bidder.facts, item)
        self._dirty.clear()
        if told:
            self._pace.take(now_s, 1)
        return told

    def _tell(
        self, user_id: str, bidder: _Bidder[ListenerT], facts: Facts, item: ItemState | None
    ) -> Iterable[tuple[ListenerT, Frame]]:
        has_bid = facts.has_bid or bidder.bid_since
        if item is None and has_bid:
            # The item is still being loaded, and standing and alias cannot be told without it. This is called again
            # once viewers have the item's first frame, or hear that somebody has bid.
            return
        standing = standing_of(user_id, item, has_bid=has_bid)
        maximum = maximum_to_tell(user_id, item, facts)
        # Aliases depend on the instant of creation; an item that does not exist yet has none.
        alias = alias_of(self.item_id, user_id, None if item is None else item.created_us)
        frames: dict[int | None, Frame] = {}
        for listener, (sees_maximum, before) in list(bidder.listeners.items()):
            for struck in facts.struck:
                if struck.version > bidder.told_struck.get(listener, UNKNOWN):
                    bidder.told_struck[listener] = struck.version
                    yield listener, self._struck(struck)
            its_maximum = maximum if sees_maximum else None
            if before == (standing, its_maximum, alias):
                continue
            if its_maximum not in frames:
                frames[its_maximum] = self._frame(alias, standing, item, its_maximum)
            bidder.listeners[listener] = (sees_maximum, (standing, its_maximum, alias))
            yield listener, frames[its_maximum]

    def _struck(self, struck: Struck) -> Frame:
        return struck_frame(
            self.item_id,
            struck.version,
            bid_id=struck.bid_id,
            amount=struck.amount,
            reason=struck.reason,
            ts_us=struck.ts_us,
            currency=struck.currency,
        )

    def _frame(self, alias: str, standing: Standing, item: ItemState | None, maximum: int | None) -> Frame:
        return standing_frame(
            self.item_id,
            UNKNOWN if item is None else item.version,
            standing,
            alias=alias,
            current_bid=None if item is None else item.state.price,
            min_next_bid=None if item is None else item.min_next_bid,
            currency=_DEFAULT_CURRENCY if item is None else item.terms.currency,
            your_maximum=maximum,
        )
