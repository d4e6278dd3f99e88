"""The live feed for Locust's users: a WebSocket whose frames are told to Locust as requests of the type WS."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from locust.env import Environment
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

_OPEN_TIMEOUT_S: Final = 10.0
_BACK_OFF_S: Final = 0.5
_FRAMES_MAX: Final = 100
"""Kept for a viewer who does something else; older ones are dropped."""
CONNECT_NAME: Final = "connect"
FRAME_NAME: Final = "frame of a bid"


class Watch:
    """One viewer's connection to one item. Times are told in milliseconds: of a frame, from the decision by the
    platform's clock until it is here, which across machines includes the difference of their clocks."""

    def __init__(self, environment: Environment, feed_url: str, item_id: str) -> None:
        self._environment = environment
        self._url = f"{feed_url.rstrip('/').replace('http', 'ws', 1)}/ws/items/{item_id}"
        self._socket: ClientConnection | None = None
        self._frames: queue.Queue[Mapping[str, Any]] = queue.Queue(_FRAMES_MAX)

    def frame(self, timeout_s: float) -> Mapping[str, Any] | None:
        """The next frame that nobody has taken yet; None where none came in ``timeout_s``, or the connection failed and
        will be made anew."""
        if self._socket is None and self._connect() is None:
            return None
        try:
            return self._frames.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _read(self, socket: ClientConnection) -> None:
        """In a greenlet of its own: frames are timed when they arrive, whatever their viewer is doing."""
        while True:
            try:
                text = socket.recv()
            except ConnectionClosed as error:
                if self._socket is socket:
                    self._socket = None
                    self._tell(FRAME_NAME, 0.0, 0, error)
                return
            frame: dict[str, Any] = msgspec.json.decode(text)
            if frame.get("type") in ("bid", "state") and "timestamp" in frame:
                late_s = time.time() - datetime.fromisoformat(frame["timestamp"]).timestamp()
                self._tell(FRAME_NAME, late_s * 1_000, len(text), None)
            if self._frames.full():
                self._frames.get_nowait()
            self._frames.put_nowait(frame)

    def close(self) -> None:
        """Hang up."""
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _connect(self) -> ClientConnection | None:
        began_s = time.monotonic()
        try:
            self._socket = connect(self._url, open_timeout=_OPEN_TIMEOUT_S, compression=None, proxy=None)
        except (OSError, WebSocketException, TimeoutError) as error:
            self._tell(CONNECT_NAME, (time.monotonic() - began_s) * 1_000, 0, error)
            time.sleep(_BACK_OFF_S)
            return None
        self._tell(CONNECT_NAME, (time.monotonic() - began_s) * 1_000, 0, None)
        threading.Thread(target=self._read, args=(self._socket,), daemon=True, name="feed").start()
        return self._socket

    def _tell(self, name: str, milliseconds: float, size: int, error: BaseException | None) -> None:
        # Locust's hooks carry no types.
        request: Any = self._environment.events.request
        request.fire(
            request_type="WS", name=name, response_time=milliseconds, response_length=size, exception=error, context={}
        )
