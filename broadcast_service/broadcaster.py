"""Carries out what the hub decides: frames to connections, loads to the loader. Everything here is synchronous.

The listener of both sources: events come from :mod:`broadcast_service.sources.nats_source`, snapshots from
:mod:`broadcast_service.sources.loader`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from broadcast_service.close_codes import ITEM_NOT_FOUND
from broadcast_service.connection import Connection
from broadcast_service.feed import Recovery
from broadcast_service.frames import Version, error_frame
from broadcast_service.hub import Effect, Hub, Load, NotFound, Send
from broadcast_service.metrics import Metrics
from shared import names
from shared.domain.errors import ItemNotFound
from shared.messages import DecodeError, decode_batch

logger = logging.getLogger(__name__)


class Broadcaster:
    """``request_load`` is set by the composition root before anything flows (the loader needs this object as well)."""

    request_load: Callable[[str], None]

    def __init__(self, hub: Hub[Connection], metrics: Metrics) -> None:
        self.hub = hub
        self._metrics = metrics

    def carry_out(self, effects: Iterable[Effect[Connection]]) -> None:
        """Do what the hub returned, in its order."""
        for effect in effects:
            match effect:
                case Send(frames, viewers):
                    for viewer in viewers:
                        viewer.send(frames)
                case Load(item_id):
                    self.request_load(item_id)
                case NotFound(item_id, viewers):
                    missing = ItemNotFound(item_id)
                    error = error_frame(missing.code, str(missing), item_id=item_id)
                    for viewer in viewers:
                        viewer.refuse(error, ITEM_NOT_FOUND)

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
        if batch.item_id != item_id or not batch.events:
            self._metrics.events_unreadable += 1
            logger.error("item %s: a message is about %s, with %d events", item_id, batch.item_id, len(batch.events))
            return
        self._metrics.events_watched += len(batch.events)
        self.carry_out(self.hub.publish(item_id, batch.events))
        self._metrics.observe_latency(time.time() - batch.events[-1].ts_us / 1_000_000)

    def on_stream_up(self) -> None:
        self.carry_out(self.hub.stream_up())

    def on_stream_down(self) -> None:
        self.hub.stream_down()

    # ---------------------------------------------------------------------------------------- from the loader

    def watches(self, item_id: str) -> bool:
        return self.hub.watches(item_id)

    def history_wanted(self, item_id: str) -> Version | None:
        return self.hub.history_wanted(item_id)

    def loaded(self, item_id: str, recovery: Recovery, *, again: bool) -> None:
        self.carry_out(self.hub.loaded(item_id, recovery, again=again))

    def missing(self, item_id: str) -> None:
        self.carry_out(self.hub.missing(item_id))

    def load_failed(self, item_id: str) -> None:
        self.carry_out(self.hub.load_failed(item_id))
