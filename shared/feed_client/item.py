"""One followed item as a client knows it: a register that takes only newer versions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shared.feed_client.updates import ItemUpdate, Version

EVENT_TYPES: Final = frozenset(
    {"bid", "extended", "opened", "paused", "resumed", "closed", "cancelled", "voided", "state"}
)

# The fields of an event that are about the item; all others are about the event itself.
_STATE_FIELDS: Final = (
    "epoch",
    "seq",
    "current_bid",
    "highest_bidder_id",
    "highest_bidder",
    "bid_count",
    "min_next_bid",
    "status",
    "end_time",
    "original_end_time",
    "extensions",
    "reserve_met",
    "currency",
    "suggested_bids",
    "buy_now_available",
)
# These belong to one version and are not in every frame: they must not outlive their version.
_FLEETING_FIELDS: Final = ("suggested_bids", "buy_now_available")


class Gap(Exception):
    """Events are missing before this one, and every event is wanted."""


def version_of(frame: Mapping[str, Any]) -> Version | None:
    """The version of a frame, None if it has none."""
    epoch, seq = frame.get("epoch"), frame.get("seq")
    return (epoch, seq) if type(epoch) is int and type(seq) is int else None


def is_marker(frame: Mapping[str, Any]) -> bool:
    """Whether the frame is the ``resumed`` that answers ``since``, not the event of the same name after a pause."""
    return frame.get("type") == "resumed" and "replayed" in frame


class FollowedItem:
    """What is known of one item, over any number of connections.

    Args:
        every_event: whether every event is wanted, so that a gap is asked for again.
    """

    __slots__ = ("_asked_again", "_every_event", "is_joined", "is_stale", "item_id", "standing", "version", "view")

    def __init__(self, item_id: str, *, every_event: bool) -> None:
        self.item_id = item_id
        self.version: Version | None = None
        self.view: dict[str, Any] = {}
        # Whether the first frame of the last subscription came. Events before it belong to an older subscription.
        self.is_joined = False
        self.is_stale = False
        self.standing: Version | None = None
        self._every_event = every_event
        self._asked_again = False

    @property
    def since(self) -> str | None:
        """The version to resume from, as text; None before the first one."""
        return None if self.version is None else f"{self.version[0]}:{self.version[1]}"

    def disconnected(self) -> None:
        """The last subscription has ended."""
        self.is_joined = False
        self.is_stale = False
        self._asked_again = False

    def take(self, frame: Mapping[str, Any]) -> ItemUpdate | None:
        """Take a frame about this item; None if it has nothing new.

        Raises:
            Gap: events before it are missing; subscribe again with :attr:`since`. Raised once per gap: if the second
                answer has the gap too, the events are gone, and the next update is not ``complete``.
        """
        version = version_of(frame)
        if version is None:
            return None
        kind = frame["type"]
        if kind == "snapshot":
            return self._snapshot(frame, version)
        if is_marker(frame):
            self.is_joined = self.version is not None
            return None
        if kind not in EVENT_TYPES or not self.is_joined or self.version is None or version <= self.version:
            return None
        follows = version == (self.version[0], self.version[1] + 1)
        if follows:
            self._asked_again = False
        elif self._every_event and kind != "state" and not self._asked_again:
            # Not for a `state`, which says that events were left out because this viewer was too slow.
            self._asked_again = True
            # Frames in flight belong to the old subscription: the answer to the new one repeats them in order.
            self.is_joined = False
            raise Gap
        self._merge(frame, version)
        bids = frame.get("bids_since_last") if kind == "state" else int(kind == "bid")
        return self._update(frame, version, bids, complete=follows)

    def _snapshot(self, frame: Mapping[str, Any], version: Version) -> ItemUpdate | None:
        self.is_joined = True
        known = self.version
        if known is not None and version < known:
            # The service is behind. Keep what is known; newer events follow.
            return None
        self.view = {name: value for name, value in frame.items() if name not in ("type", "recovered")}
        if version == known:
            return None
        self.version = version
        self._asked_again = False
        # The first snapshot leaves nothing out, because nothing was known. After that of an item that did not exist,
        # the next event is its creation, which comes as a snapshot.
        created = known == (0, -1) and version[1] == 0
        complete = known is None or created or version == (known[0], known[1] + 1)
        return self._update(frame, version, None, complete=complete)

    def _merge(self, frame: Mapping[str, Any], version: Version) -> None:
        # A new dict: earlier updates keep theirs.
        view = {name: value for name, value in self.view.items() if name not in _FLEETING_FIELDS}
        view |= {name: frame[name] for name in _STATE_FIELDS if name in frame}
        if "timestamp" in frame:
            view["updated_at"] = frame["timestamp"]
        self.view = view
        self.version = version

    def _update(self, frame: Mapping[str, Any], version: Version, bids: int | None, *, complete: bool) -> ItemUpdate:
        return ItemUpdate(self.item_id, frame["type"], version, frame, self.view, bids, complete)
