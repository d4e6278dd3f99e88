"""The hub: who watches which item. Pure: methods change the hub at once and return effects, which the caller carries
out in order and before the next call. :mod:`broadcast_service.core.channel` decides what the viewers of one item see.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Generic

from broadcast_service.core.channel import Channel, JoinRequest
from broadcast_service.core.effects import Effect, Load, NotFound, Send, ViewerT
from broadcast_service.core.feed import ItemFeed, Recovery, Wanted
from broadcast_service.core.frames import UNKNOWN, Version
from broadcast_service.core.pace import Pace
from shared import names
from shared.messages import Event
from shared.redis_layout.item_hash import ItemState


class TooManyItems(Exception):
    """The viewer already follows as many items as one connection may."""

    def __init__(self, items_max: int) -> None:
        self.items_max = items_max
        super().__init__(f"a connection may follow at most {items_max} items; unsubscribe or open another one")


class Hub(Generic[ViewerT]):
    """Subscriptions of one process. ``now_s`` is any monotonic clock, in seconds.

    Args:
        open_catalogue: whether an item that does not exist may be watched; see ``OPEN_CATALOGUE``.
        items_per_viewer_max: most subscriptions of one viewer.
        rate_max: frames per second and item for viewers who did not ask for every event; 0 for no limit.
        make_feed: makes the feed of an item id.
    """

    def __init__(
        self,
        *,
        open_catalogue: bool = False,
        items_per_viewer_max: int = 200,
        rate_max: float = 0,
        make_feed: Callable[[str], ItemFeed] = ItemFeed,
    ) -> None:
        self._open_catalogue = open_catalogue
        self._items_per_viewer_max = items_per_viewer_max
        self._rate_max = rate_max
        self._make_feed = make_feed
        self._channels: dict[str, Channel[ViewerT]] = {}
        self._items_of: dict[ViewerT, set[str]] = {}
        # Events flow from one start of the stream to its next loss. The flow's number, from 1; None while they do not.
        self._flow: int | None = None
        self._flows = 0
        # The newest known epoch of each shard, and the shards that take no bids now.
        self._epochs: dict[str, int] = {}
        self._closed: set[str] = set()
        # Items that Redis has lost and viewers wait for.
        self._lost: set[str] = set()
        # Items that Redis still has in a former epoch, and that were read once more already.
        self._behind: set[str] = set()

    # ------------------------------------------------------------------------------------------------ viewers

    def subscribe(
        self, viewer: ViewerT, item_id: str, since: Version | None = None, *, full: bool = False
    ) -> list[Effect[ViewerT]]:
        """Let a viewer follow an item. Its first frame is a snapshot, or ``resumed`` if all events after ``since`` are
        available.

        A viewer that follows the item already gets a new first frame, and from then on what it asks for now.

        Args:
            full: every event, instead of a limited number of frames per second.

        Raises:
            TooManyItems: the viewer is at its limit; nothing was changed.
        """
        items = self._items_of.setdefault(viewer, set())
        if item_id not in items and len(items) >= self._items_per_viewer_max:
            raise TooManyItems(self._items_per_viewer_max)
        items.add(item_id)
        channel = self._channels.get(item_id)
        if channel is None:
            channel = self._channels[item_id] = Channel(
                self._make_feed(item_id), Pace(self._rate_max), is_stale=self._flow is None
            )
        channel.make_pending(viewer, JoinRequest(since, full))
        # While events do not flow, this process may be behind, so Redis is read for each new viewer. It is also read
        # for each new viewer of an item that did not exist a moment ago.
        feed = channel.feed
        is_current = not channel.is_stale and feed.version not in (None, UNKNOWN)
        if not is_current:
            return [Load(item_id)]
        history = {} if since is None else feed.history()
        if since is None or feed.resume(since, history) is not None or not feed.may_recover(since):
            return channel.join([viewer], history)
        return [Load(item_id)]

    def unsubscribe(self, viewer: ViewerT, item_id: str) -> bool:
        """Stop following. False: the viewer did not follow the item."""
        items = self._items_of.get(viewer)
        if items is None or item_id not in items:
            return False
        items.discard(item_id)
        self._drop(viewer, item_id)
        return True

    def leave(self, viewer: ViewerT) -> None:
        for item_id in self._items_of.pop(viewer, ()):
            self._drop(viewer, item_id)

    def items_of(self, viewer: ViewerT) -> Collection[str]:
        """The items that the viewer follows. The hub's own set: do not keep it."""
        return self._items_of.get(viewer, ())

    def subscribers(self, item_id: str) -> int:
        """How many viewers follow the item in this process."""
        channel = self._channels.get(item_id)
        return 0 if channel is None else len(channel)

    def counts(self) -> Iterator[tuple[str, int]]:
        """All items that somebody follows, each with the number of viewers in this process."""
        for item_id, channel in self._channels.items():
            yield item_id, len(channel)

    @property
    def item_count(self) -> int:
        """Items that somebody follows."""
        return len(self._channels)

    @property
    def subscription_count(self) -> int:
        """Subscriptions in all; a viewer of two items counts twice."""
        return sum(map(len, self._items_of.values()))

    def watches(self, item_id: str) -> bool:
        """Whether anybody here follows the item; events of other items need not be decoded."""
        return item_id in self._channels

    def state_of(self, item_id: str) -> ItemState | None:
        """The item as it is known here, without the maxima; None where it is not known or nobody follows it."""
        channel = self._channels.get(item_id)
        return None if channel is None else channel.feed.item

    def leader_of(self, item_id: str) -> str | None:
        """The leader or winner; None for nobody, or where the item is not known here."""
        channel = self._channels.get(item_id)
        return None if channel is None else channel.feed.leader

    def tell_viewers(self, item_id: str, viewers: int, *, exact: bool) -> list[Effect[ViewerT]]:
        """Tell the viewers of an item how many they are, if that changed. Later viewers are told the same number."""
        channel = self._channels.get(item_id)
        return [] if channel is None else channel.tell_viewers(viewers, exact=exact)

    # --------------------------------------------------------------------------------------------- the stream

    def publish(self, item_id: str, events: Iterable[Event], now_s: float) -> list[Effect[ViewerT]]:
        """Events of one item arrived."""
        channel = self._channels.get(item_id)
        if channel is None:
            return []
        leader = channel.feed.leader
        return channel.advance(channel.feed.offer(events), leader, now_s)

    def maximum_raised(self, item_id: str) -> list[Effect[ViewerT]]:
        """A message without events arrived: the leader raised the maximum, which nobody else may know."""
        channel = self._channels.get(item_id)
        return [] if channel is None else channel.maximum_raised()

    def flush(self, item_id: str, now_s: float) -> list[Effect[ViewerT]]:
        """What :class:`Wake` asked for."""
        channel = self._channels.get(item_id)
        return [] if channel is None else channel.flush(now_s)

    def unreadable(self, item_id: str) -> list[Effect[ViewerT]]:
        """A message about this item could not be read: load the item now, before the gap shows."""
        return [Load(item_id)] if item_id in self._channels else []

    def stream_up(self) -> list[Effect[ViewerT]]:
        """Events flow from now on. Earlier ones may have been missed, so every item is loaded again."""
        self._flows += 1
        self._flow = self._flows
        return [Load(item_id) for item_id in self._channels]

    def stream_down(self, now_s: float) -> list[Effect[ViewerT]]:
        """Events no longer flow. Viewers are told; new viewers get their snapshot from Redis."""
        self._flow = None
        return [effect for channel in self._channels.values() for effect in channel.go_stale(now_s)]

    # ------------------------------------------------------------------------------------------- epochs of shards

    def is_over(self, shard: str, epoch: int) -> bool:
        """Whether messages of this epoch of the shard no longer count: the shard is being or was rebuilt, without what
        was not archived. What was archived comes with the snapshot."""
        return shard in self._closed or epoch < self._epochs.get(shard, 0)

    def epoch_heard(self, shard: str, epoch: int) -> list[Effect[ViewerT]]:
        """A message of this epoch arrived. If the epoch is new, the shard's other items may have changed too."""
        if epoch <= self._epochs.get(shard, 0):
            return []
        self._epochs[shard] = epoch
        return self._loads_behind({shard})

    def shards_seen(self, epochs: Mapping[str, int], rebuilt: Collection[str]) -> list[Effect[ViewerT]]:
        """The state of the watched items' shards in Redis.

        Args:
            epochs: the epoch of each shard that takes bids.
            rebuilt: the shards that are being rebuilt.
        """
        # 1. A shard is opened. 2. A viewer joins, by a snapshot. 3. A bid arrives before this call: its message is
        # taken for one of the former epoch and dropped, so that viewer misses it. So all items of the shard are loaded.
        opened = self._closed.intersection(epochs)
        self._closed = set(rebuilt)
        risen = {shard for shard, epoch in epochs.items() if epoch > self._epochs.get(shard, 0)}
        self._epochs |= {shard: epochs[shard] for shard in risen}
        effects = self._loads_behind(risen, opened) if risen or opened else []
        # Items of a lost shard are not loaded: it comes back with a higher epoch. Nor are items of a former epoch on
        # an older copy of a shard: that copy does not change until somebody rebuilds the shard.
        found: set[Effect[ViewerT]] = set(effects)
        again = [item_id for item_id in self._lost if names.shard_of(item_id) in epochs]
        again += (item_id for item_id in self._behind if self._is_current(names.shard_of(item_id), epochs))
        return effects + [load for item_id in again if (load := Load(item_id)) not in found]

    def _is_current(self, shard: str, epochs: Mapping[str, int]) -> bool:
        return shard in epochs and epochs[shard] >= self._epochs.get(shard, 0)

    def shards_watched(self) -> set[str]:
        return {names.shard_of(item_id) for item_id in self._channels}

    def _loads_behind(self, risen: Collection[str], opened: Collection[str] = ()) -> list[Effect[ViewerT]]:
        """Loads for the items of shards whose epoch has risen that are in a former epoch here or not known to exist,
        and for all items of opened shards."""
        return [
            Load(item_id)
            for item_id, channel in self._channels.items()
            if (shard := names.shard_of(item_id)) in opened
            or (shard in risen and (channel.feed.version == UNKNOWN or self._is_behind(item_id, channel.feed.version)))
        ]

    def _is_behind(self, item_id: str, version: Version | None) -> bool:
        """Whether the item was rebuilt since: it then has its shard's new epoch."""
        if version is None or version == UNKNOWN:
            return False
        return version[0] < self._epochs.get(names.shard_of(item_id), 0)

    # ---------------------------------------------------------------------------------------------- snapshots

    def history_wanted(self, item_id: str) -> Wanted:
        """Which events a load that begins now should read; empty where the state suffices."""
        channel = self._channels.get(item_id)
        if channel is None:
            return {}
        channel.begin_load(self._flow)
        return channel.history_from

    def loaded(self, item_id: str, recovery: Recovery, now_s: float, *, again: bool = False) -> list[Effect[ViewerT]]:
        """Redis answered: bring live viewers up to date, and let pending ones join.

        Args:
            again: another load of the item follows at once, since it was asked for during this one. Two kinds of
                viewers wait for it: those who have seen something newer than this answer, and those who reconnected
                during this load and missed more than it read.
        """
        channel = self._channels.get(item_id)
        if channel is None:
            return []
        self._lost.discard(item_id)
        leader = channel.feed.leader
        advance = channel.feed.recover(recovery)
        effects = channel.advance(advance, leader, now_s)
        if not self._is_behind(item_id, recovery.item.version):
            self._behind.discard(item_id)
        elif item_id not in self._behind:
            # Read before the item was rebuilt: read it once more at once, after that at the pace of `shards_seen`.
            self._behind.add(item_id)
            effects.append(Load(item_id))
        if not advance.load:
            effects += channel.caught_up(now_s, self._flow)
        if channel.pending:
            # Viewers who join below start after these frames and must not get them too.
            effects = [_frozen(effect) for effect in effects]
        return effects + channel.join_all(recovery, again=again)

    def missing(self, item_id: str, now_s: float) -> list[Effect[ViewerT]]:
        """Redis does not have the item."""
        channel = self._channels.get(item_id)
        if channel is None:
            return []
        self._lost.discard(item_id)
        known = channel.feed.version not in (None, UNKNOWN)
        if known or self._open_catalogue:
            channel.feed.absent()
            effects = [_frozen(effect) for effect in channel.caught_up(now_s, self._flow)]
            return effects + channel.join_all()
        viewers = [*(viewer for part in channel.live() for viewer in part), *channel.pending]
        for viewer in viewers:
            self._items_of[viewer].discard(item_id)
        self._forget(item_id)
        return [NotFound(item_id, viewers)]

    def lost(self, item_id: str, now_s: float) -> list[Effect[ViewerT]]:
        """Redis has lost the item. If this process knows it, viewers join with that, as while Redis is down. Otherwise
        pending viewers are told once and go on waiting: the item comes back.
        """
        channel = self._channels.get(item_id)
        if channel is None:
            return []
        if channel.feed.version not in (None, UNKNOWN):
            return self.missing(item_id, now_s)
        self._lost.add(item_id)
        return channel.tell_lost()

    @property
    def lost_count(self) -> int:
        """Items that Redis has lost and viewers here wait for."""
        return len(self._lost)

    def load_failed(self, item_id: str) -> list[Effect[ViewerT]]:
        """Redis could not be read; the load will be retried.

        Pending viewers join with what this process knows, except those who have seen something newer.
        """
        channel = self._channels.get(item_id)
        if channel is None or channel.feed.version in (None, UNKNOWN):
            return []
        return channel.join_all(again=True)

    # ------------------------------------------------------------------------------------------------- inside

    def _drop(self, viewer: ViewerT, item_id: str) -> None:
        channel = self._channels.get(item_id)
        if channel is None:
            return
        channel.drop(viewer)
        if not len(channel):
            self._forget(item_id)

    def _forget(self, item_id: str) -> None:
        del self._channels[item_id]
        self._lost.discard(item_id)
        self._behind.discard(item_id)


def _frozen(effect: Effect[ViewerT]) -> Effect[ViewerT]:
    """The effect with its present viewers: it does not change when others join."""
    return Send(effect.frames, tuple(effect.viewers)) if isinstance(effect, Send) else effect
