"""Viewers who write down all that they are shown."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from decimal import Decimal
from typing import Any

import websockets
from websockets.asyncio.client import connect

from tests.faults.clients.answers import minor, public_of_json
from tests.faults.rig.history import Frame, Viewer
from tests.waiting import eventually

NOT_EVENTS = ("snapshot", "state")
"""Types of frames that carry an item's state and are no event of it."""

_PAUSE_S = 0.02


class Watcher:
    """A viewer who comes back with ``since`` whenever the connection ends."""

    def __init__(self, name: str, feed_url: str, item_id: str) -> None:
        self.name = name
        self.item_id = item_id
        self.close_codes: list[int] = []
        self.frame_types: Counter[str] = Counter()
        self._url = f"{feed_url.replace('http://', 'ws://')}/ws/items/{item_id}"
        self._connections: list[list[Frame]] = []
        self._latest: Frame | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How often it has connected."""
        return len(self._connections)

    def view(self) -> Viewer:
        """What it was shown, for the judge."""
        return Viewer(self.name, [list(frames) for frames in self._connections if frames])

    async def start(self) -> None:
        """Watch in the background; returns after the first snapshot."""
        self._task = asyncio.create_task(self._watch())
        await self.reached(0)

    async def reached(self, seq: int, *, within_s: float = 30.0) -> None:
        """Wait until it was shown the state of ``seq`` or a later one."""

        def shown() -> bool:
            is_shown = self._latest is not None and self._latest.seq >= seq
            assert is_shown or (self._task is not None and not self._task.done()), "the viewer gave up"
            return is_shown

        await eventually(shown, f"seq {seq} of {self.name}", seconds=within_s)

    async def joined(self, connections: int, *, within_s: float = 30.0) -> None:
        """Wait until it was let in so often: with a snapshot, or with what it had missed."""

        def let_in() -> bool:
            return self.frame_types["snapshot"] + self.frame_types["resumed"] >= connections

        await eventually(let_in, f"{connections} times let in {self.name}", seconds=within_s)

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    async def _watch(self) -> None:
        while True:
            # Every single event, so that one which is missed is noticed.
            since = "" if self._latest is None else f"&since={self._latest.epoch}:{self._latest.seq}"
            try:
                async with connect(f"{self._url}?feed=full{since}", open_timeout=10, max_queue=None) as socket:
                    self._connections.append([])
                    async for text in socket:
                        self._take(json.loads(text, parse_float=Decimal))
                self.close_codes.append(socket.close_code or 1006)
            except websockets.ConnectionClosed as closed:
                self.close_codes.append(closed.rcvd.code if closed.rcvd else 1006)
            except (OSError, websockets.WebSocketException, TimeoutError, EOFError):
                pass
            await asyncio.sleep(_PAUSE_S)

    def _take(self, frame: dict[str, Any]) -> None:
        is_promise = frame["type"] == "resumed" and "replayed" in frame
        # The event of an operator who lets the item go on is of that type as well.
        self.frame_types["went on" if frame["type"] == "resumed" and not is_promise else frame["type"]] += 1
        if is_promise:
            epoch, _, seq = frame["since"].partition(":")
            self._connections[-1].append(
                Frame(
                    frame["epoch"],
                    frame["seq"],
                    None,
                    is_event=False,
                    type="resumed",
                    recovered=frame["recovered"],
                    replayed=frame["replayed"],
                    since=(int(epoch), int(seq)),
                )
            )
        if "seq" not in frame or frame.get("current_bid") is None or "status" not in frame:
            return
        latest = Frame(
            frame["epoch"],
            frame["seq"],
            minor(frame["current_bid"]),
            is_event=frame["type"] not in NOT_EVENTS,
            type=frame["type"],
            recovered=frame.get("recovered"),
            public=public_of_json(frame),
        )
        self._connections[-1].append(latest)
        self._latest = latest
