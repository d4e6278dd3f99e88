"""The record of what operators did to the platform: tokens and API keys, dead letters, shards that were rebuilt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from archival_worker.store.archive import Archive
from archival_worker.store.database import Connection
from archival_worker.store.queries import load_queries

ActOfCommand = Literal["create_api_key", "revoke_api_key", "retry_dead_letter", "recover_shard"]
"""Acts that commands record. Those of gateways come by the stream (:class:`shared.sealed.Act`)."""

LISTED_MAX: Final = 1_000

_SQL: Final = load_queries()


@dataclass(frozen=True, slots=True)
class Actor:
    """The name that somebody gives who runs a command, and the reason. The record adds their login at PostgreSQL."""

    by: str
    reason: str = ""


UNNAMED: Final = Actor("unknown")
"""Stands for somebody unknown, in programs and tests. Every command replaces it."""


@dataclass(frozen=True, slots=True)
class ActRow:
    """One act. ``login``: the PostgreSQL login that wrote it: for an act of a gateway, that of the archival worker."""

    act_id: int
    done_at: datetime
    act: str
    target: str
    actor: str
    login: str
    reason: str


async def record(connection: Connection, act: ActOfCommand, target: str, actor: Actor) -> None:
    """Write an act down, in the caller's transaction: with what it did, or not at all.

    Args:
        target: what it was done to; never a secret.
    """
    await connection.execute(_SQL.record_act, act, target, actor.reason, actor.by)


async def newest(archive: Archive, *, before: int | None, count: int) -> Sequence[ActRow]:
    """The newest acts, newest first: at most ``count`` of those before this ``act_id``.

    Raises:
        ArchiveUnavailable: PostgreSQL cannot be read now, or lacks the table.
    """
    async with archive.connection() as connection:
        return [ActRow(**dict(row)) for row in await connection.fetch(_SQL.list_acts, before, count)]
