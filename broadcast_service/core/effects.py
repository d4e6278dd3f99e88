"""Effects: what the caller of the hub must do, in order, before it calls the hub again. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from broadcast_service.core.frames import Frame

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
    """Read the item from Redis, by a read that begins after this, then call ``loaded``, ``missing``, ``lost`` or
    ``load_failed``."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Call ``flush`` for the item at this time of the monotonic clock. Calling it early, late or twice is harmless."""

    item_id: str
    at_s: float


@dataclass(frozen=True, slots=True)
class NotFound(Generic[ViewerT]):
    """The item does not exist; these viewers are no longer subscribed to it."""

    item_id: str
    viewers: Collection[ViewerT]


@dataclass(frozen=True, slots=True)
class Joined(Generic[ViewerT]):
    """These viewers just got their first frame about the item."""

    item_id: str
    viewers: Collection[ViewerT]


@dataclass(frozen=True, slots=True)
class StandingChanged:
    """The standing of these users may have changed, and the cause was just sent. Empty ``users`` means everybody."""

    item_id: str
    users: frozenset[str]


Effect = Send[ViewerT] | Load | Wake | NotFound[ViewerT] | Joined[ViewerT] | StandingChanged
