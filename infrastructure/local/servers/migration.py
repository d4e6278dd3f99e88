"""The schema of the archive, brought up to date by the archiver's own command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from infrastructure.local.errors import ProcessFailed
from infrastructure.local.processes import log_tail
from infrastructure.local.services import ARCHIVAL_WORKER

_TIMEOUT_S = 120.0
_LOG_TAIL_LINES = 15


async def migrate(env: Mapping[str, str], log: Path) -> None:
    """Run `python -m archival_worker migrate` to its end; it writes into ``log``.

    Raises:
        ProcessFailed: it ended with an error, or took longer than two minutes.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", ARCHIVAL_WORKER, "migrate"), env=env, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            code = await child.wait()
    except BaseException as error:
        child.kill()
        await child.wait()
        if isinstance(error, TimeoutError):
            reason = f"did not end within {_TIMEOUT_S:g} s"
            raise ProcessFailed("migration", reason, log, log_tail(log, _LOG_TAIL_LINES)) from None
        raise
    if code != 0:
        reason = f"ended with exit code {code}"
        raise ProcessFailed("migration", reason, log, log_tail(log, _LOG_TAIL_LINES))
