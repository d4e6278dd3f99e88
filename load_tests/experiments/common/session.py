"""One run of an experiment: its file has what was found after every step, and a run that is cut off says so there."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import click
import nats.errors
from redis.exceptions import RedisError

from infrastructure.local.errors import StackError
from load_tests.experiments.common import facts
from load_tests.experiments.common.guard import Refused
from load_tests.experiments.common.results import Backend, Kind, Result, write_result
from load_tests.generator.driver import LoadError
from load_tests.run.stopping import run_until_stopped
from load_tests.targets import TargetError

EXIT_NOT_PROVED: Final = 1
EXIT_NO_RUN: Final = 2
EXIT_INTERRUPTED: Final = 130

_REFUSALS = (Refused, TargetError, LoadError, StackError)
_STORE_ERRORS = (OSError, RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, nats.errors.Error)


class Session:
    """The result of a run in its making, kept at ``out``."""

    def __init__(self, kind: Kind, out: Path, settings: dict[str, Any]) -> None:
        self.out = out
        self.result = Result(
            kind=kind,
            backend="embedded",
            place="",
            started_at=_now(),
            machine=facts.machine(),
            versions=facts.versions(),
            commit=facts.commit(),
            settings=settings,
        )
        self._begun = False

    def begin(self, backend: Backend, place: str) -> None:
        """The platform answers, and the first step is about to start: from now on there is a file."""
        self.result.backend, self.result.place = backend, place
        self._begun = True
        self.save()

    def save(self) -> None:
        """Write down what there is."""
        self.result.ended_at = _now()
        write_result(self.out, self.result)

    def cut(self, why: str) -> None:
        """The run ends before its time; what it has found stays, marked."""
        if self._begun:
            self.result.cut_off = why
            self.save()

    def finish(self) -> None:
        """All steps are done."""
        self.result.complete = True
        self.save()


def conduct(session: Session, work: Callable[[Session], Awaitable[bool]]) -> None:
    """Run ``work``, and end this program: 0 done and proved, 1 not proved, 2 no run was possible, 130 stopped."""

    # Some experiments cut connections on purpose: the drivers' notices about that are not wanted.
    logging.basicConfig(level=logging.CRITICAL, format="%(name)s: %(message)s")

    async def guarded() -> bool:
        ok = await work(session)
        session.finish()
        return ok

    try:
        ok = run_until_stopped(guarded())
    except KeyboardInterrupt:
        session.cut("stopped by a signal")
        _end(session, "Stopped.", EXIT_INTERRUPTED)
    except _REFUSALS as error:
        session.cut(str(error))
        _end(session, f"No run: {error}", EXIT_NO_RUN)
    except _STORE_ERRORS as error:
        session.cut(f"{type(error).__name__}: {error}")
        _end(session, f"The run broke off: {type(error).__name__}: {error}", EXIT_NO_RUN)
    except (asyncio.CancelledError, Exception) as error:
        session.cut(f"{type(error).__name__}: {error}")
        raise
    click.echo(f"Result: {session.out}")
    sys.exit(0 if ok else EXIT_NOT_PROVED)


def _end(session: Session, text: str, code: int) -> None:
    click.echo(text, err=True)
    if session.out.exists() and session.result.cut_off:
        click.echo(f"What was measured before is in {session.out}, marked as cut off.", err=True)
    sys.exit(code)


def settings_of(options: object) -> dict[str, Any]:
    """The settings of a run for its result, without addresses: these may hold passwords."""
    assert is_dataclass(options)
    assert not isinstance(options, type)
    fields = asdict(options)
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in fields.items()
        if not name.endswith("_url") and name not in ("asked", "out")
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
