"""Named places in the code where a fault test may kill the process; off unless the environment asks.

``CRASH_AT=relay.published:3`` kills the process (SIGKILL: no clean-up, no answer) when it comes to that place for the
third time. The places are those between two steps where a crash is most dangerous:

- ``bids.decided``: the script ran and Redis has answered; no client knows yet.
- ``relay.published``: JetStream has acknowledged entries; the `published` cursor does not know yet.
- ``relay.advanced``: the cursor has moved.
- ``archive.committed``: PostgreSQL has committed a batch; JetStream and Redis do not know yet.
- ``recover.items``: some items of a lost shard are rebuilt; the shard is still closed.
"""

from __future__ import annotations

import os
import signal
from typing import Final, Literal

Place = Literal["bids.decided", "relay.published", "relay.advanced", "archive.committed", "recover.items"]

_place, _, _times = os.environ.get("CRASH_AT", "").partition(":")
_ARMED: Final = _place
_left = int(_times or "1")


def crash_point(place: Place) -> None:
    """Die here, if the environment says so."""
    global _left
    if place != _ARMED:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
