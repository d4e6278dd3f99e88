"""The file that a run of the benches leaves: what was measured, when, on what, with what."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from load_tests.experiments.common import facts

FORMAT: Final = 1


def plain(value: object) -> Any:
    """The same as JSON has it: dataclasses as objects, keys of several parts as one text, what is no number as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_name(key): plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _name(key: object) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


class BenchRun:
    """One run of the benches, as far as it has come. ``options`` are those of the command line."""

    def __init__(self, options: Mapping[str, object], path: Path | None) -> None:
        self._path = path
        self.told: dict[str, Any] = {
            "format": FORMAT,
            "complete": False,
            "commit": facts.commit(),
            "machine": msgspec.to_builtins(facts.machine()),
            "versions": facts.versions(),
            "options": plain(options),
            "parts": {},
        }

    def begin(self) -> None:
        """Write the file for the first time. If it cannot be written, this fails before hours of measuring.

        Raises:
            OSError: it cannot be written.
        """
        self._write()

    def add(self, part: str, began: datetime, results: object) -> None:
        """Add what a part returned, and write the file anew: a later part that fails takes nothing with it."""
        times = {"began_at": _text(began), "ended_at": _text(now())}
        self.told["parts"][part] = times | {"results": plain(results)}
        self._write()

    def end(self) -> None:
        """All parts are measured: mark the run as complete."""
        self.told["complete"] = True
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        draft = self._path.with_name(f"{self._path.name}.part")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(self.told), indent=2) + b"\n")
        draft.replace(self._path)


def now() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
