"""Who watches what, and what follows from it. Pure: methods change the hub at once and return effects for the caller to
carry out, in order and before the next call.

A viewer is *pending* for an item until it got its first frame about it, then *live*: every live viewer of an item
gets the very same frames.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from broadcast_service.feed import Advance, ItemFeed, Recovery
from broadcast_service.frames import UNKNOWN, Frame, Version, resumed_frame
from shared.messages import Event

ViewerT = TypeVar("ViewerT", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Send(Generic[ViewerT]):
    """Send these frames, in this order, to each of these viewers.

    ``viewers`` may be the hub's own set: do not keep it.
    """

    frames: tuple[Frame, ...]
    viewers: Collection[ViewerT]


@dataclass(frozen=True, slots=True)
class Load:
    """Read the item from Redis, from now on at the earliest, then call ``loaded``, ``missing`` or ``load_failed``."""

    item_id: str


@dataclass(frozen=True, slots=True)
class NotFound(Generic[ViewerT]):
    """There is no such item; these viewers are not subscribed to it any more."""

    item_id: str
    viewers: Collection[ViewerT]


Effect = Send[ViewerT] | Load | NotFound[ViewerT]


class TooManyItems(Exception):
    """The viewer follows as many items as one connection may."""

    def __init__(self, items_max: int) -> None:
        self.items_max = items_max
        super().__init__(f"a connection may follow at most {items_max} items; unsubscribe or open another one")


@dataclass(slots=True)
class _Channel(Generic[ViewerT]):
    feed: ItemFeed
    live: set[ViewerT] = field(default_factory=set)
    pending: dict[ViewerT, Version | None] = field(default_factory=dict)
    # From which version on the load that is under way reads the events.
    history_from: Version | None = None


class Hub(Generic[ViewerT]):
    """Subscriptions of one process.

    Args:
        open_catalogue: whether an item that does not exist may be watched; see ``OPEN_CATALOGUE``.
        items_per_viewer_max: bound of the subscriptions of one viewer.
        make_feed: for tests and settings.
    """

    def __init__(
        self,
        *,
        open_catalogue: bool = False,
        items_per_viewer_max: int = 200,
        make_feed: Callable[[str], ItemFeed] = ItemFeed,
    ) -> None:
        self._open_catalogue = open_catalogue
        self._items_per_viewer_max = items_per_viewer_max
        self._make_feed = make_feed
        self._channels: dict[str, _Channel[ViewerT]] = {}
        self._items_of: dict[ViewerT, set[str]] = {}
        self._stream_up = False

    # ------------------------------------------------------------------------------------------------ viewers

    def subscribe(self, viewer: ViewerT, item_id: str, since: Version | None = None) -> list[Effect[ViewerT]]:
        """Let a viewer follow an item. Its first frame is a snapshot, or ``resumed`` where ``since`` can be met.

        A viewer that follows the item already gets a new first frame.

        Raises:
            TooManyItems: the viewer is at its bound; nothing was changed.
        """
        items = self._items_of.setdefault(viewer, set())
        if item_id not in items and len(items) >= self._items_per_viewer_max:
            raise TooManyItems(self._items_per_viewer_max)
        items.add(item_id)
        channel = self._channels.get(item_id)
        if channel is None:
            channel = self._channels[item_id] = _Channel(self._make_feed(item_id))
        channel.live.discard(viewer)
        channel.pending[viewer] = since
        # Without the stream this process may be behind: a newcomer is not shown what is known to be perhaps old. An
        # item that did not exist a moment ago is asked for again as well.
        feed = channel.feed
        is_current = self._stream_up and feed.version not in (None, UNKNOWN)
        if is_current and (since is None or feed.resume(since) is not None or not feed.may_recover(since)):
            return self._join(channel, [viewer])
        return [Load(item_id)]

    def unsubscribe(self, viewer: ViewerT, item_id: str) -> bool:
        """Whether the viewer followed the item until now."""
        items = self._items_of.get(viewer)
        if items is None or item_id not in items:
            return False
        items.discard(item_id)
        self._drop(viewer, item_id)
        return True

    def leave(self, viewer: ViewerT) -> None:
        """The viewer is gone."""
        for item_id in self._items_of.pop(viewer, ()):
            self._drop(viewer, item_id)

    def subscribers(self, item_id: str) -> int:
        """How many viewers follow the item in this process."""
        channel = self._channels.get(item_id)
        return 0 if channel is None else len(channel.live) + len(channel.pending)

    @property
    def item_count(self) -> int:
        """Items that somebody follows."""
        return len(self._channels)

    @property
    def subscription_count(self) -> int:
        """Viewers of all items together; who follows two items counts twice."""
        return sum(map(len, self._items_of.values()))

    def watches(self, item_id: str) -> bool:
        """Whether anybody follows the item: events of other items need not even be decoded."""
        return item_id in self._channels

    # --------------------------------------------------------------------------------------------- the stream

    def publish(self, item_id: str, events: Iterable[Event]) -> list[Effect[ViewerT]]:
        """Events of one item, as they came."""
        channel = self._channels.get(item_id)
        return [] if channel is None else self._advance(channel, channel.feed.offer(events), channel.live)

    def unreadable(self, item_id: str) -> list[Effect[ViewerT]]:
        """A message about this item could not be read: look at Redis now, do not wait for the gap to show."""
        return [Load(item_id)] if item_id in self._channels else []

    def stream_up(self) -> list[Effect[ViewerT]]:
        """Events flow from now on. What was published before may have been missed, so every item is looked at again."""
        self._stream_up = True
        return [Load(item_id) for item_id in self._channels]

    def stream_down(self) -> None:
        """Events do not flow. Viewers keep what they have; newcomers get their snapshot from Redis."""
        self._stream_up = False

    # ---------------------------------------------------------------------------------------------- snapshots

    def history_wanted(self, item_id: str) -> Version | None:
        """From which version on the events are of use to a load; None where the state alone will do."""
        channel = self._channels.get(item_id)
        if channel is None:
            return None
        wanted = [since for since in channel.pending.values() if since is not None]
        if channel.live and channel.feed.version is not None:
            wanted.append(channel.feed.version)
        channel.history_from = min(wanted, default=None)
        return channel.history_from

    def loaded(self, item_id: str, recovery: Recovery, *, again: bool = False) -> list[Effect[ViewerT]]:
        """Redis answered. Whoever is live is brought up to date, whoever is pending joins.

        Args:
            again: another load of the item follows at once, since it was asked for while this one was under way.
                A viewer waits for that one who has seen something newer than this answer, or who came back while it
                was under way and missed more than was asked for.
        """
        channel = self._channels.get(item_id)
        if channel is None:
            return []
        # A copy: whoever joins below starts after these frames and must not get them as well.
        live = tuple(channel.live)
        effects = self._advance(channel, channel.feed.recover(recovery), live)
        return effects + self._join_all(channel, recovery, again=again)

    def missing(self, item_id: str) -> list[Effect[ViewerT]]:
        """Redis has no such item."""
        channel = self._channels.get(item_id)
        if channel is None:
            return []
        known = channel.feed.version not in (None, UNKNOWN)
        if known or self._open_catalogue:
            channel.feed.absent()
            return self._join_all(channel)
        viewers = [*channel.live, *channel.pending]
        for viewer in viewers:
            self._items_of[viewer].discard(item_id)
        del self._channels[item_id]
        return [NotFound(item_id, viewers)]

    def load_failed(self, item_id: str) -> list[Effect[ViewerT]]:
        """Redis cannot be asked now (the load will be tried again).

        What this process knows has to do for those who wait, except for a viewer who has seen something newer.
        """
        channel = self._channels.get(item_id)
        if channel is None or channel.feed.version in (None, UNKNOWN):
            return []
        return self._join_all(channel, again=True)

    # ------------------------------------------------------------------------------------------------- inside

    def _advance(
        self, channel: _Channel[ViewerT], advance: Advance, live: Collection[ViewerT]
    ) -> list[Effect[ViewerT]]:
        effects: list[Effect[ViewerT]] = []
        if advance.frames and live:
            effects.append(Send(advance.frames, live))
        if advance.load:
            effects.append(Load(channel.feed.item_id))
        return effects

    def _join_all(
        self, channel: _Channel[ViewerT], recovery: Recovery | None = None, *, again: bool = False
    ) -> list[Effect[ViewerT]]:
        version = channel.feed.version
        assert version is not None

        def must_wait(since: Version) -> bool:
            if since > version:
                return True
            covered = channel.history_from is not None and channel.history_from <= since
            # The next load reads from this viewer's version on, so it waits once.
            return recovery is not None and not covered and channel.feed.resume(since, recovery) is None

        viewers = [v for v, since in channel.pending.items() if not again or since is None or not must_wait(since)]
        return self._join(channel, viewers, recovery)

    def _join(
        self, channel: _Channel[ViewerT], viewers: Iterable[ViewerT], recovery: Recovery | None = None
    ) -> list[Effect[ViewerT]]:
        """Make pending viewers live at the feed's version, by what they missed or else by a snapshot."""
        feed = channel.feed
        assert feed.version is not None
        effects: list[Effect[ViewerT]] = []
        # Viewers that start with the same frame share one effect; after a restart that is nearly everybody.
        fresh: dict[bool | None, list[ViewerT]] = {}
        for viewer in viewers:
            since = channel.pending[viewer]
            missed = None if since is None else feed.resume(since, recovery)
            if since is not None and missed is not None:
                marker = resumed_frame(feed.item_id, since, feed.version, len(missed))
                effects.append(Send((marker, *missed), (viewer,)))
            else:
                fresh.setdefault(None if since is None else False, []).append(viewer)
            del channel.pending[viewer]
            channel.live.add(viewer)
        for recovered, group in fresh.items():
            effects.append(Send((feed.snapshot(recovered=recovered),), group))
        return effects

    def _drop(self, viewer: ViewerT, item_id: str) -> None:
        channel = self._channels.get(item_id)
        if channel is None:
            return
        channel.live.discard(viewer)
        channel.pending.pop(viewer, None)
        if not channel.live and not channel.pending:
            del self._channels[item_id]
