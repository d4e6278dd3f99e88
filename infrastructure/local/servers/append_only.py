"""Drops a transaction that a power cut tore apart, before Redis reads its append-only file.

Redis accepts a file that ends within a command, and cuts that command off. But the effects of a script are written
between MULTI and EXEC. If the end is missing, the cut leaves the beginning of the transaction in the file. Redis goes
on correctly, and appends after it. The next start reads the orphaned MULTI, takes the next transaction into it, and
carries out what never happened: verdicts of bids that nobody got, numbers that were given out twice. So the whole torn
transaction is dropped. None of it was ever answered: with ``appendfsync always`` an answer waits for the whole.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

_MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"
_ANALYSED: Final = re.compile(rb"ok_up_to=(\d+)")


def drop_torn_transaction(redis_server: Path, folder: Path) -> int:
    """Cut a torn transaction off the end of the append-only file in Redis' folder. Returns the number of bytes cut.

    Other damage is left as it is: Redis itself cuts off a torn command, and does not start with a file that is broken
    in the middle.

    Args:
        redis_server: the executable, which acts as ``redis-check-aof`` if it is called by that name.
    """
    file = _newest_part(folder)
    if file is None:
        return 0
    analysis = subprocess.run(
        ("redis-check-aof", str(file)), executable=redis_server, capture_output=True, stdin=subprocess.DEVNULL
    )
    sound = _ANALYSED.search(analysis.stdout)
    if sound is None:
        return 0
    sound_bytes = int(sound[1])
    with file.open("rb") as content:
        content.seek(sound_bytes)
        tail = content.read()
    if not tail.startswith(_MULTI) or _EXEC in tail:
        return 0
    os.truncate(file, sound_bytes)
    return len(tail)


def _newest_part(folder: Path) -> Path | None:
    """The file that Redis appends to: from version 7 on the last one of several."""
    parts = sorted((folder / "appendonlydir").glob("*.incr.aof"), key=lambda part: int(part.name.split(".")[-3]))
    single = folder / "appendonly.aof"
    return parts[-1] if parts else single if single.is_file() else None
