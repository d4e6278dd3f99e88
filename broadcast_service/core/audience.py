"""Counts the viewers of an item over all broadcasters. Pure; the clock is an argument.

Each broadcaster tells the others once per period how many viewers it has of each item. There is no central count: each
broadcaster adds up what it heard from the others. It forgets a count that was not repeated for three periods, because
the other broadcaster is gone then, or cannot be heard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

SUBJECT: Final = "feed.viewers"
"""Core NATS, at most once: the next message makes up for a lost one."""

SILENT_PERIODS_MAX: Final = 3
ITEMS_PER_MESSAGE: Final = 2_000
"""About 150 KB; NATS accepts 1 MB."""

ENTRIES_MAX: Final = 500_000
"""Most counts of other broadcasters that are kept; further ones are missing from the sums."""


class Announcement(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """Viewer counts of one broadcaster. The count of an item that is not named stays: a count of 0 is announced too."""

    v: Literal[1]
    sender: str
    counts: dict[str, Annotated[int, msgspec.Meta(ge=0)]]


class Sum(NamedTuple):
    """``exact``: no other broadcaster contributed."""

    viewers: int
    exact: bool


class _Heard(NamedTuple):
    viewers: int
    at_s: float


_decoder: Final = msgspec.json.Decoder(Announcement)


class Audience:
    """``now_s`` is any monotonic clock, in seconds.

    Args:
        broadcaster_id: unique id of this process.
        period_s: seconds between two announcements of a broadcaster; the same for all.
    """

    def __init__(self, broadcaster_id: str, period_s: float) -> None:
        self._id = broadcaster_id
        self.period_s = period_s
        self._announced: set[str] = set()
        self._others: dict[str, dict[str, _Heard]] = {}
        self._entries = 0

    def announce(self, counts: Iterable[tuple[str, int]]) -> list[bytes]:
        """The messages for the others: all counts of this process, and 0 for items that lost their last viewer."""
        now = dict(counts)
        gone = dict.fromkeys(self._announced - now.keys(), 0)
        self._announced = set(now)
        told = [*now.items(), *gone.items()]
        return [
            msgspec.json.encode(Announcement(1, self._id, dict(told[start : start + ITEMS_PER_MESSAGE])))
            for start in range(0, len(told), ITEMS_PER_MESSAGE)
        ]

    def hear(self, data: bytes, now_s: float) -> bool:
        """Take in an announcement, perhaps this broadcaster's own. False: it cannot be read."""
        try:
            announcement = _decoder.decode(data)
        except msgspec.DecodeError:
            return False
        if announcement.sender != self._id:
            for item_id, viewers in announcement.counts.items():
                self._note(item_id, announcement.sender, viewers, now_s)
        return True

    def viewers(self, item_id: str, own: int, now_s: float) -> Sum:
        """All viewers of the item; this process has ``own`` of them."""
        others = sum(
            heard.viewers for heard in self._others.get(item_id, {}).values() if not self._is_old(heard, now_s)
        )
        return Sum(own + others, others == 0)

    def forget_silent(self, now_s: float) -> None:
        """Drop counts that are too old. Call it once per period."""
        for item_id, of_item in list(self._others.items()):
            for sender, heard in list(of_item.items()):
                if self._is_old(heard, now_s):
                    self._remove(item_id, sender)

    def _note(self, item_id: str, sender: str, viewers: int, now_s: float) -> None:
        known = sender in self._others.get(item_id, {})
        if viewers == 0:
            if known:
                self._remove(item_id, sender)
        elif known or self._entries < ENTRIES_MAX:
            self._others.setdefault(item_id, {})[sender] = _Heard(viewers, now_s)
            self._entries += not known

    def _remove(self, item_id: str, sender: str) -> None:
        of_item = self._others[item_id]
        del of_item[sender]
        self._entries -= 1
        if not of_item:
            del self._others[item_id]

    def _is_old(self, heard: _Heard, now_s: float) -> bool:
        return now_s - heard.at_s > SILENT_PERIODS_MAX * self.period_s
