"""One item with its viewers: what each of them is sent when something becomes known, joins or goes. Pure.

A viewer is *pending* until it got its first frame about the item, then *live*. Live viewers who asked for everything
get the very same frames at the same time; the others get what :mod:`broadcast_service.core.conflation` makes of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Generic, NamedTuple

from broadcast_service.core.conflation import Conflated
from broadcast_service.core.effects import Effect, Joined, Load, Send, StandingChanged, ViewerT, Wake
from broadcast_service.core.feed import Advance, ItemFeed, Recovery, Wanted
from broadcast_service.core.frames import Frame, Version, lost_frame, resumed_frame, stale_frame, viewers_frame
from broadcast_service.core.pace import Pace
from shared.messages import AuctionExtended, BidAccepted


class Wish(NamedTuple):
    """What a pending viewer asked for."""

    since: Version | None
    full: bool


class Channel(Generic[ViewerT]):
    """Methods return effects, as those of the hub do.

    Attributes:
        is_stale: live viewers were told that events do not flow. Of a channel without any this says what the first
            ones will be told.
        history_from, read_in_flow: which events the load that is under way reads, and which flow of events there was
            when it began.
    """

    __slots__ = (
        "_concerned",
        "_conflated",
        "_full",
        "_is_woken",
        "_told",
        "_told_frame",
        "_told_lost",
        "feed",
        "history_from",
        "is_stale",
        "pending",
        "read_in_flow",
    )

    def __init__(self, feed: ItemFeed, pace: Pace, *, is_stale: bool) -> None:
        self.feed = feed
        self.pending: dict[ViewerT, Wish] = {}
        self.is_stale = is_stale
        self.history_from: Wanted = {}
        self.read_in_flow: int | None = None
        # A dictionary as an ordered set: walked in the order in which the viewers came, which is mostly the order in
        # which they lie in memory.
        self._full: dict[ViewerT, None] = {}
        self._conflated: Conflated[ViewerT] = Conflated(pace)
        # Whether a call of `flush` is on its way.
        self._is_woken = False
        # Whose standing may have changed by what waits; None for everybody's.
        self._concerned: set[str] | None = set()
        # The number of viewers that was told last.
        self._told: tuple[int, bool] | None = None
        self._told_frame: Frame | None = None
        # Pending viewers who were told that the item is lost.
        self._told_lost: set[ViewerT] = set()

    def __len__(self) -> int:
        """Viewers, live or pending."""
        return len(self._full) + len(self._conflated) + len(self.pending)

    @property
    def version(self) -> Version:
        """Of a channel that has live viewers, or is about to."""
        assert self.feed.version is not None
        return self.feed.version

    def live(self) -> list[Collection[ViewerT]]:
        """All live viewers, in parts that are not empty."""
        return [part for part in (self._full, self._conflated.everybody()) if part]

    def has_live(self) -> bool:
        """Whether there is any live viewer."""
        return bool(self._full) or len(self._conflated) > 0

    def make_pending(self, viewer: ViewerT, wish: Wish) -> None:
        """The viewer gets nothing until it joins, whatever it was before."""
        self._full.pop(viewer, None)
        self._conflated.discard(viewer)
        self._told_lost.discard(viewer)
        self.pending[viewer] = wish

    def drop(self, viewer: ViewerT) -> None:
        """The viewer is gone."""
        self._full.pop(viewer, None)
        self._conflated.discard(viewer)
        self._told_lost.discard(viewer)
        self.pending.pop(viewer, None)

    # -------------------------------------------------------------------------------------------------- frames

    def advance(self, advance: Advance, leader: str | None, now_s: float) -> list[Effect[ViewerT]]:
        """What new knowledge means for the live viewers; ``leader`` is who led before it."""
        effects: list[Effect[ViewerT]] = []
        if advance.frames and self.has_live():
            if self._full:
                effects.append(Send(advance.frames, self._full))
            effects += self._conflated.show(advance.frames, now_s)
            self._note_concerned(advance.frames, leader)
            effects += self._what_follows()
        if advance.load:
            effects.append(Load(self.feed.item_id))
        return effects

    def maximum_raised(self) -> list[Effect[ViewerT]]:
        """Only the leader raises a maximum without an event, and only the leader is told, after what waits."""
        self._note_leader()
        return self._what_follows()

    def flush(self, now_s: float) -> list[Effect[ViewerT]]:
        """What :class:`Wake` asked for."""
        self._is_woken = False
        return [*self._conflated.flush(now_s), *self._what_follows()]

    def go_stale(self, now_s: float) -> list[Effect[ViewerT]]:
        """Events do not flow any more: what waits goes out, and who is here is told."""
        if self.is_stale:
            return []
        self.is_stale = True
        return self._release(now_s) + self._tell_stale()

    def caught_up(self, now_s: float, flow: int | None) -> list[Effect[ViewerT]]:
        """The item was looked at. Viewers are told that events flow again if they did when that began, and still do:
        then nothing is missing any more.
        """
        if not self.is_stale or flow is None or self.read_in_flow != flow:
            return []
        self.is_stale = False
        # A maximum that was raised meanwhile has left no event that could be missed.
        self._note_leader()
        return self._release(now_s) + self._tell_stale()

    def tell_lost(self) -> list[Effect[ViewerT]]:
        """Tell whoever waits, and was not told yet, that Redis has lost the item."""
        untold = [viewer for viewer in self.pending if viewer not in self._told_lost]
        self._told_lost.update(untold)
        return [Send((lost_frame(self.feed.item_id),), untold)] if untold else []

    def tell_viewers(self, viewers: int, *, exact: bool) -> list[Effect[ViewerT]]:
        """Tell the viewers how many they are, if that is news; newcomers are told the same until it changes."""
        if (viewers, exact) == self._told:
            return []
        self._told = (viewers, exact)
        self._told_frame = viewers_frame(self.feed.item_id, viewers, exact)
        return [Send((self._told_frame,), part) for part in self.live()]

    def _release(self, now_s: float) -> list[Effect[ViewerT]]:
        return [*self._conflated.release(now_s), *self._what_follows()]

    def _tell_stale(self) -> list[Effect[ViewerT]]:
        if not self.has_live():
            return []
        frame = stale_frame(self.feed.item_id, self.version, self.is_stale)
        return [Send((frame,), part) for part in self.live()]

    def _what_follows(self) -> list[Effect[ViewerT]]:
        """Something waits, so there must be a call later; or nothing does, so bidders learn how they stand."""
        due_s = self._conflated.due_s
        if due_s is not None:
            if self._is_woken:
                return []
            self._is_woken = True
            return [Wake(self.feed.item_id, due_s)]
        if self._concerned is not None and not self._concerned:
            return []
        users = frozenset(self._concerned or ())
        self._concerned = set()
        return [StandingChanged(self.feed.item_id, users)]

    def _note_leader(self) -> None:
        leader = self.feed.leader
        if leader is not None and self._concerned is not None:
            self._concerned.add(leader)

    def _note_concerned(self, frames: Iterable[Frame], leader: str | None) -> None:
        """Remember whose standing these frames may have changed; ``leader`` is who led before them."""
        for frame in frames:
            if self._concerned is None:
                return
            if isinstance(frame.event, BidAccepted):
                self._concerned.add(frame.event.user_id)
            elif not isinstance(frame.event, AuctionExtended):
                self._concerned = None
        if self._concerned is not None:
            self._concerned.update(user for user in (leader, self.feed.leader) if user is not None)

    # ------------------------------------------------------------------------------------------------- joining

    def begin_load(self, flow: int | None) -> None:
        """A load begins, while events flow or not."""
        wanted: dict[int, int] = {}
        known = [wish.since for wish in self.pending.values() if wish.since is not None]
        if self.has_live():
            known.append(self.version)
        for epoch, seq in known:
            wanted[epoch] = min(seq, wanted.get(epoch, seq))
        self.history_from, self.read_in_flow = wanted, flow

    def _has_read(self, since: Version) -> bool:
        """Whether the load that is under way reads all that a viewer with this version has missed."""
        epoch, seq = since
        return any(self.history_from.get(each, seq + 1) <= seq for each in (0, epoch))

    def join_all(self, recovery: Recovery | None = None, *, again: bool = False) -> list[Effect[ViewerT]]:
        """Let in whoever is pending; ``again``: but for those who are better served by the load that follows."""
        if not self.pending:
            return []
        version, history = self.version, self.feed.history(recovery)

        def must_wait(since: Version) -> bool:
            if since > version:
                return True
            # The next load reads from this viewer's version on, so it waits once.
            return recovery is not None and not self._has_read(since) and self.feed.resume(since, history) is None

        viewers = [
            viewer for viewer, (since, _) in self.pending.items() if not again or since is None or not must_wait(since)
        ]
        return self.join(viewers, history)

    def join(self, viewers: list[ViewerT], history: Mapping[Version, Frame]) -> list[Effect[ViewerT]]:
        """Make pending viewers live at the feed's version, by what they missed or else by a snapshot."""
        if not viewers:
            return []
        # Viewers that come from the same place share their frames; after a restart that is nearly everybody.
        groups: dict[Version | None, list[ViewerT]] = {}
        conflated: list[ViewerT] = []
        self._told_lost.difference_update(viewers)
        for viewer in viewers:
            since, full = self.pending.pop(viewer)
            groups.setdefault(since, []).append(viewer)
            if full:
                self._full[viewer] = None
            else:
                conflated.append(viewer)
        self._conflated.add(conflated)
        effects: list[Effect[ViewerT]] = [Send(self._first(since, history), group) for since, group in groups.items()]
        effects.append(Joined(self.feed.item_id, viewers))
        return effects

    def _first(self, since: Version | None, history: Mapping[Version, Frame]) -> tuple[Frame, ...]:
        """The first frames of a newcomer."""
        feed, version = self.feed, self.version
        missed = None if since is None else feed.resume(since, history)
        if since is None or missed is None:
            first: tuple[Frame, ...] = (feed.snapshot(recovered=None if since is None else False),)
        else:
            first = (resumed_frame(feed.item_id, since, version, len(missed)), *missed)
        if self.is_stale:
            first = (*first, stale_frame(feed.item_id, version, True))
        return first if self._told_frame is None else (*first, self._told_frame)
