"""One item with its viewers: decides what each viewer is sent. Pure.

A viewer is *pending* until its first frame about the item, then *live*. Live viewers who asked for every event all get
the same frames at the same time; the others get conflated frames (:mod:`broadcast_service.core.conflation`).
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


class JoinRequest(NamedTuple):
    """What a pending viewer asked for: the version that it has, and whether it wants every event."""

    since: Version | None
    full: bool


class Channel(Generic[ViewerT]):
    """Methods return effects, like those of the hub.

    Attributes:
        is_stale: whether live viewers were told that events do not flow. While there are none, whether the first ones
            will be told so.
        history_from: which events the load in progress reads.
        read_in_flow: the flow of events (see the hub) in which that load began; None: events did not flow.
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
        self.pending: dict[ViewerT, JoinRequest] = {}
        self.is_stale = is_stale
        self.history_from: Wanted = {}
        self.read_in_flow: int | None = None
        # A dictionary as an ordered set: viewers are visited in order of arrival, mostly their order in memory.
        self._full: dict[ViewerT, None] = {}
        self._conflated: Conflated[ViewerT] = Conflated(pace)
        # Whether a call of `flush` was asked for.
        self._is_woken = False
        # Users whose standing may have changed since they were last told; None: everybody.
        self._concerned: set[str] | None = set()
        # The number of viewers, and whether it is exact, as last told.
        self._told: tuple[int, bool] | None = None
        self._told_frame: Frame | None = None
        # Pending viewers who were told that the item is lost.
        self._told_lost: set[ViewerT] = set()

    def __len__(self) -> int:
        """Viewers, live or pending."""
        return len(self._full) + len(self._conflated) + len(self.pending)

    @property
    def version(self) -> Version:
        """The version of the feed. Only for a channel that has live viewers, or is about to."""
        assert self.feed.version is not None
        return self.feed.version

    def live(self) -> list[Collection[ViewerT]]:
        """All live viewers, as non-empty groups."""
        return [part for part in (self._full, self._conflated.everybody()) if part]

    def has_live(self) -> bool:
        return bool(self._full) or len(self._conflated) > 0

    def make_pending(self, viewer: ViewerT, request: JoinRequest) -> None:
        """Send the viewer nothing until it joins, even where it was live."""
        self._full.pop(viewer, None)
        self._conflated.discard(viewer)
        self._told_lost.discard(viewer)
        self.pending[viewer] = request

    def drop(self, viewer: ViewerT) -> None:
        self._full.pop(viewer, None)
        self._conflated.discard(viewer)
        self._told_lost.discard(viewer)
        self.pending.pop(viewer, None)

    # -------------------------------------------------------------------------------------------------- frames

    def advance(self, advance: Advance, leader: str | None, now_s: float) -> list[Effect[ViewerT]]:
        """Show the live viewers what the feed learned. ``leader``: who led before."""
        effects: list[Effect[ViewerT]] = []
        if advance.frames and self.has_live():
            if self._full:
                effects.append(Send(advance.frames, self._full))
            effects += self._conflated.show(advance.frames, now_s)
            self._note_concerned(advance.frames, leader)
            effects += self._follow_up()
        if advance.load:
            effects.append(Load(self.feed.item_id))
        return effects

    def maximum_raised(self) -> list[Effect[ViewerT]]:
        """Tell the leader, and nobody else, after the frames that wait: only a leader can raise without an event."""
        self._note_leader()
        return self._follow_up()

    def flush(self, now_s: float) -> list[Effect[ViewerT]]:
        """What :class:`Wake` asked for."""
        self._is_woken = False
        return [*self._conflated.flush(now_s), *self._follow_up()]

    def go_stale(self, now_s: float) -> list[Effect[ViewerT]]:
        """Events stopped flowing: send what waits, then tell the live viewers."""
        if self.is_stale:
            return []
        self.is_stale = True
        return self._release(now_s) + self._tell_stale()

    def caught_up(self, now_s: float, flow: int | None) -> list[Effect[ViewerT]]:
        """A load has finished. Tell viewers that events flow again, if the same flow lasted from the load's begin until
        now: then nothing is missing.
        """
        if not self.is_stale or flow is None or self.read_in_flow != flow:
            return []
        self.is_stale = False
        # A maximum that was raised meanwhile has no event, so the load did not show it.
        self._note_leader()
        return self._release(now_s) + self._tell_stale()

    def tell_lost(self) -> list[Effect[ViewerT]]:
        """Tell pending viewers, each once, that Redis has lost the item."""
        untold = [viewer for viewer in self.pending if viewer not in self._told_lost]
        self._told_lost.update(untold)
        return [Send((lost_frame(self.feed.item_id),), untold)] if untold else []

    def tell_viewers(self, viewers: int, *, exact: bool) -> list[Effect[ViewerT]]:
        """Tell the viewers how many they are, if that changed. Viewers who join later are told the same number."""
        if (viewers, exact) == self._told:
            return []
        self._told = (viewers, exact)
        self._told_frame = viewers_frame(self.feed.item_id, viewers, exact)
        return [Send((self._told_frame,), part) for part in self.live()]

    def _release(self, now_s: float) -> list[Effect[ViewerT]]:
        return [*self._conflated.release(now_s), *self._follow_up()]

    def _tell_stale(self) -> list[Effect[ViewerT]]:
        if not self.has_live():
            return []
        frame = stale_frame(self.feed.item_id, self.version, self.is_stale)
        return [Send((frame,), part) for part in self.live()]

    def _follow_up(self) -> list[Effect[ViewerT]]:
        """While frames wait, ask for a call of `flush`; once none wait, have bidders told how they stand."""
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
        """Note whose standing these frames may have changed. ``leader``: who led before them."""
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
        """A load begins. ``flow``: the flow of events, None where they do not flow."""
        wanted: dict[int, int] = {}
        known = [request.since for request in self.pending.values() if request.since is not None]
        if self.has_live():
            known.append(self.version)
        for epoch, seq in known:
            wanted[epoch] = min(seq, wanted.get(epoch, seq))
        self.history_from, self.read_in_flow = wanted, flow

    def _has_read(self, since: Version) -> bool:
        """Whether the load in progress reads all that a viewer with this version has missed."""
        epoch, seq = since
        return any(self.history_from.get(each, seq + 1) <= seq for each in (0, epoch))

    def join_all(self, recovery: Recovery | None = None, *, again: bool = False) -> list[Effect[ViewerT]]:
        """Make pending viewers live. ``again``: another load follows; viewers who need that one stay pending."""
        if not self.pending:
            return []
        version, history = self.version, self.feed.history(recovery)

        def must_wait(since: Version) -> bool:
            if since > version:
                return True
            # The next load reads from this viewer's version on, so the viewer waits only once.
            return recovery is not None and not self._has_read(since) and self.feed.resume(since, history) is None

        viewers = [
            viewer for viewer, (since, _) in self.pending.items() if not again or since is None or not must_wait(since)
        ]
        return self.join(viewers, history)

    def join(self, viewers: list[ViewerT], history: Mapping[Version, Frame]) -> list[Effect[ViewerT]]:
        """Make pending viewers live: send each the events that it missed, or else a snapshot."""
        if not viewers:
            return []
        # Viewers with the same `since` share their frames; after a restart that is nearly everybody.
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
        """The first frames of a viewer who joins."""
        feed, version = self.feed, self.version
        missed = None if since is None else feed.resume(since, history)
        if since is None or missed is None:
            first: tuple[Frame, ...] = (feed.snapshot(recovered=None if since is None else False),)
        else:
            first = (resumed_frame(feed.item_id, since, version, len(missed)), *missed)
        if self.is_stale:
            first = (*first, stale_frame(feed.item_id, version, True))
        return first if self._told_frame is None else (*first, self._told_frame)
