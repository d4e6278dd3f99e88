"""Carries out the hub's effects: frames go to connections, loads to the loader. Everything here is synchronous.

The listener of all sources: events come from :mod:`shared.streams.follower`, snapshots from
:mod:`broadcast_service.sources.loader`, the epochs of shards from :mod:`broadcast_service.sources.shards`.

A part that sends frames to single viewers passes two functions. Each is called once the frames that it is about were
handed to the connections:

``joined(item_id, viewers)``
    These viewers just got their first frame about the item. ``viewers`` may belong to the hub: do not keep it.
``standing_changed(item_id, user_ids)``
    How these users stand on the item may have changed: the leader before, the leader now, and who bid in between; or
    the leader alone, whose maximum was raised. An empty set means everybody: the item was opened, closed, paused,
    resumed or cancelled, a bid was voided, or there was a new snapshot. It is called once for all frames that were sent
    together, so it is called no more often than frames of the item are sent, except after a raised maximum. The
    present state is in ``hub.state_of(item_id)`` and ``hub.leader_of(item_id)``.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from broadcast_service.core.close_codes import ITEM_NOT_FOUND
from broadcast_service.core.effects import Effect, Joined, Load, NotFound, Send, StandingChanged, Wake
from broadcast_service.core.feed import Recovery, Wanted
from broadcast_service.core.frames import error_frame
from broadcast_service.core.hub import Hub
from broadcast_service.metrics import Metrics
from broadcast_service.transport.connection import Connection, send_to_all
from broadcast_service.transport.traces import FrameTraces
from shared import names
from shared.domain.errors import ItemNotFound
from shared.messages import DecodeError, EventBatch, decode_batch

logger = logging.getLogger(__name__)

CallAt = Callable[[float, Callable[[str], None], str], object]


class Broadcaster:
    """Args:
    request_load: asks for a new read of an item; see :meth:`~broadcast_service.sources.loader.Loader.request`.
    joined, standing_changed: see above.
    clock: the monotonic clock of ``call_at``, in seconds; both are those of the running loop if not given.
    call_at: calls a function with an argument at a time of the clock.
    traces: of sampled bids; None where none are.
    """

    def __init__(
        self,
        hub: Hub[Connection],
        metrics: Metrics,
        *,
        request_load: Callable[[str], None],
        joined: Callable[[str, Collection[Connection]], None],
        standing_changed: Callable[[str, frozenset[str]], None],
        clock: Callable[[], float] | None = None,
        call_at: CallAt | None = None,
        traces: FrameTraces | None = None,
    ) -> None:
        self.hub = hub
        self._metrics = metrics
        self._request_load = request_load
        self._joined = joined
        self._standing_changed = standing_changed
        self._traces = traces
        self._clock = clock or asyncio.get_running_loop().time
        self._call_at: CallAt = call_at or asyncio.get_running_loop().call_at

    def carry_out(self, effects: Iterable[Effect[Connection]]) -> None:
        """Carry out the hub's effects, in order."""
        for effect in effects:
            match effect:
                case Send(frames, viewers):
                    send_to_all(frames, viewers, self._metrics)
                    if self._traces is not None:
                        self._traces.sent(frames, viewers)
                case Wake(item_id, at_s):
                    self._call_at(at_s, self.flush, item_id)
                case StandingChanged(item_id, users):
                    self._standing_changed(item_id, users)
                case Joined(item_id, viewers):
                    self._joined(item_id, viewers)
                case Load(item_id):
                    self._request_load(item_id)
                case NotFound(item_id, viewers):
                    missing = ItemNotFound(item_id)
                    error = error_frame(missing.code, str(missing), item_id=item_id)
                    for viewer in viewers:
                        viewer.refuse(error, ITEM_NOT_FOUND)

    def flush(self, item_id: str) -> None:
        """Send the frames of an item that waited for the next slot."""
        self.carry_out(self.hub.flush(item_id, self._clock()))

    # ---------------------------------------------------------------------------------------- from the stream

    def on_message(self, subject: str, data: bytes) -> None:
        self._metrics.messages_received += 1
        item_id = names.item_of_subject(subject)
        if not self.hub.watches(item_id):
            return
        try:
            batch = decode_batch(data)
        except DecodeError as error:
            self._metrics.events_unreadable += 1
            logger.error("item %s: a message cannot be read: %s", item_id, error)
            self.carry_out(self.hub.unreadable(item_id))
            return
        if batch.item_id != item_id:
            self._metrics.events_unreadable += 1
            logger.error("item %s: a message is about %s", item_id, batch.item_id)
            return
        self.carry_out(self.hub.epoch_heard(batch.shard, batch.shard_epoch))
        if self.hub.is_over(batch.shard, batch.shard_epoch):
            # A relay sent it that was suspended while its shard was rebuilt: neither the archive nor the item has it.
            self._metrics.messages_former += 1
            logger.warning("item %s: a message of epoch %d of shard %s, which is over", *_place(batch))
            return
        if not batch.events:
            self.carry_out(self.hub.maximum_raised(item_id))
            return
        self._metrics.events_watched += len(batch.events)
        if self._traces is not None:
            self._traces.begin(batch)
        self.carry_out(self.hub.publish(item_id, batch.events, self._clock()))
        self._metrics.observe_latency(time.time() - batch.events[-1].ts_us / 1_000_000)

    def on_stream_up(self) -> None:
        self.carry_out(self.hub.stream_up())

    def on_stream_down(self) -> None:
        self.carry_out(self.hub.stream_down(self._clock()))

    # ---------------------------------------------------------------------------------------- from the shards

    def shards_watched(self) -> set[str]:
        return self.hub.shards_watched()

    def shards_seen(self, epochs: Mapping[str, int], rebuilt: Collection[str]) -> None:
        self.carry_out(self.hub.shards_seen(epochs, rebuilt))

    # ------------------------------------------------------------------------------------------- from the audience

    def tell_viewers(self, item_id: str, viewers: int, *, exact: bool) -> None:
        self.carry_out(self.hub.tell_viewers(item_id, viewers, exact=exact))

    # ---------------------------------------------------------------------------------------- from the loader

    def watches(self, item_id: str) -> bool:
        return self.hub.watches(item_id)

    def history_wanted(self, item_id: str) -> Wanted:
        return self.hub.history_wanted(item_id)

    def loaded(self, item_id: str, recovery: Recovery, *, again: bool) -> None:
        self.carry_out(self.hub.loaded(item_id, recovery, self._clock(), again=again))

    def missing(self, item_id: str) -> None:
        self.carry_out(self.hub.missing(item_id, self._clock()))

    def lost(self, item_id: str) -> None:
        self.carry_out(self.hub.lost(item_id, self._clock()))

    def load_failed(self, item_id: str) -> None:
        self.carry_out(self.hub.load_failed(item_id))


def _place(batch: EventBatch) -> tuple[str, int, str]:
    return batch.item_id, batch.shard_epoch, batch.shard
