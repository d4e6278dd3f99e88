"""Changes of a history, one at a time, for the tests of the judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.faults.rig.history import Frame, History, Row, Viewer

Mutation = Callable[[History], History]


def rows(history: History, change: Callable[[list[Row]], object]) -> History:
    changed = list(history.rows)
    change(changed)
    return replace(history, rows=changed)


def request(history: History, number: int, **fields: object) -> History:
    changed = list(history.requests)
    changed[number] = replace(changed[number], **fields)  # type: ignore[arg-type]
    return replace(history, requests=changed)


def viewer(history: History, *connections: list[Frame]) -> History:
    return replace(history, viewers=[Viewer("v", connections)])


def read(history: History, number: int, **fields: object) -> History:
    changed = list(history.reads)
    changed[number] = replace(changed[number], **fields)  # type: ignore[arg-type]
    return replace(history, reads=changed)
