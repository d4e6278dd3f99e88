"""Crash points: where a fault test may kill or suspend the process. Off unless the environment sets one.

``CRASH_AT=relay.published:3`` kills the process (SIGKILL: no clean-up, no answer) when it reaches that point for the
third time. The points are between two steps, where a crash is most dangerous:

- ``bids.decided``: the script ran and Redis has answered; no client knows yet.
- ``relay.published``: JetStream has acknowledged entries; the `published` cursor does not know yet.
- ``relay.advanced``: the cursor has moved.
- ``archive.committed``: PostgreSQL has committed a batch; JetStream and Redis do not know yet.
- ``recover.begun``: a lost shard is claimed, and has a new epoch in PostgreSQL; nothing of it is rebuilt.
- ``recover.writing``: items were read from PostgreSQL and are not written to Redis yet.
- ``recover.items``: some items of a lost shard are rebuilt; the shard is still closed.
- ``recover.opening``: all of them are rebuilt, and the shard is about to be opened.
- ``evict.asked``: the archive has said which closed items may leave Redis; they are still there.
- ``evict.removed``: some of them are gone.
- ``rulings.made``: a ruling for all items is made in its home; no other shard has it.
- ``accounts.begun``: all shards know an account, and what its bidder leads with is not counted yet.
- ``accounts.charged``: that is counted, and the account not open yet.
- ``accounts.leased``: an account has given credit, and the shard does not have it yet.
- ``accounts.collected``: shards have given credit back, and the account does not know yet.
- ``voids.secured``: the credit for a lead that a void brings back is in the shard, and the bid is not struck yet.
- ``return.staged``: a closed item is on its way back into Redis, and not to be seen yet.
- ``retire.checked``: Redis has nothing of an item whose export was read back; all of it is in the archive still.
- ``retire.begun``: the item is retired; its rows are still there.
- ``retire.removing``: some of its rows are removed.

``STOP_AT`` in place of ``CRASH_AT`` suspends the process there (SIGSTOP) until somebody resumes it.
"""

from __future__ import annotations

import os
import signal
from typing import Final, Literal

Point = Literal[
    "bids.decided",
    "relay.published",
    "relay.advanced",
    "archive.committed",
    "recover.begun",
    "recover.writing",
    "recover.items",
    "recover.opening",
    "evict.asked",
    "evict.removed",
    "return.staged",
    "rulings.made",
    "accounts.begun",
    "accounts.charged",
    "accounts.leased",
    "accounts.collected",
    "retire.checked",
    "retire.begun",
    "retire.removing",
    "voids.secured",
]

_IS_STOP: Final = "STOP_AT" in os.environ
_name, _, _times = os.environ.get("STOP_AT" if _IS_STOP else "CRASH_AT", "").partition(":")
_ARMED: Final = _name
_left = int(_times or "1")


def crash_point(point: Point) -> None:
    """Kill or suspend this process, if the environment says so."""
    global _left
    if point != _ARMED:
        return
    _left -= 1
    if _left == 0 or (_left < 0 and not _IS_STOP):
        os.kill(os.getpid(), signal.SIGSTOP if _IS_STOP else signal.SIGKILL)
