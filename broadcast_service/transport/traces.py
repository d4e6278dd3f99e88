"""The traces of sampled bids on their way to viewers: from the message to the first frame that shows what it tells."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from broadcast_service.core.frames import Frame, FrameKind, Version
from shared.messages import EventBatch
from shared.tracing.spans import Span, Tracer, trace_of_task, traces_in

ITEMS_MAX: Final = 1_024
"""Items with sampled bids that wait for a frame. Past that the oldest is forgotten: its traces end without a frame."""
WAITING_MAX: Final = 64
"""Sampled bids of one item that wait for a frame."""
_SHOWN: Final = (FrameKind.EVENT, FrameKind.SNAPSHOT)


class _Waiting(NamedTuple):
    version: Version
    span: Span


class FrameTraces:
    """The sampled bids that no viewer was shown yet. Only of items that somebody watches."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._header = ""
        self._waiting: dict[str, list[_Waiting]] = {}

    def __len__(self) -> int:
        """Items with bids that wait."""
        return len(self._waiting)

    def heard(self, header: str) -> None:
        """The next message has this header of traces."""
        self._header = header
        parents = traces_in(header) if header else []
        trace_of_task.set(f"{parents[0].trace_id:032x}" if parents else "")

    def begin(self, batch: EventBatch) -> None:
        """The message whose header was :meth:`heard` is about an item with viewers, who get its events now or soon."""
        header, self._header = self._header, ""
        if not header or not batch.events:
            return
        facts: dict[str, str | int] = {
            "bidding.item_id": batch.item_id,
            "bidding.shard": batch.shard,
            "bidding.entry": f"{batch.shard_epoch}:{batch.n}",
        }
        version = batch.events[-1].version
        begun = (self._tracer.start("show", parent=each, kind="consumer", facts=facts) for each in traces_in(header))
        new = [_Waiting(version, span) for span in begun if span is not None]
        if new:
            while len(self._waiting) >= ITEMS_MAX:
                del self._waiting[next(iter(self._waiting))]
            self._waiting[batch.item_id] = [*self._waiting.pop(batch.item_id, []), *new][-WAITING_MAX:]

    def sent(self, frames: Iterable[Frame], viewers: Collection[object]) -> None:
        """These frames were handed to the connections of these viewers."""
        if not self._waiting or not viewers:
            return
        for frame in frames:
            if frame.kind not in _SHOWN or frame.item_id not in self._waiting:
                continue
            left: list[_Waiting] = []
            for one in self._waiting[frame.item_id]:
                if one.version > frame.version:
                    left.append(one)
                    continue
                one.span.note({"bidding.frame": frame.kind.value, "bidding.viewers": len(viewers)})
                one.span.end()
            if left:
                self._waiting[frame.item_id] = left
            else:
                del self._waiting[frame.item_id]
