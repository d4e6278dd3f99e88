"""What one run of a recovery is asked for, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from archival_worker.store.acts import UNNAMED, Actor

SETTLE_S: Final = 6.0
"""Longer than a relay waits for the PubAcks of what it has read. After that it knows that the shard is gone."""


@dataclass(frozen=True, slots=True)
class RecoverOptions:
    """Options of one run.

    Attributes:
        dry_run: change nothing, neither in Redis nor in PostgreSQL.
        settle_s: how long after the start to wait for what gateways publish late, in seconds.
        whole_stream: read the stream from its beginning, if PostgreSQL was restored to an older state.
        closed_keep_s: how long closed items stay in Redis; those that would leave it at once are left out.
        item_id: a lost item whose shard is not lost: the shard is closed, and rebuilt with it.
        actor: who runs it, for the record of acts.
    """

    dry_run: bool = False
    settle_s: float = SETTLE_S
    whole_stream: bool = False
    closed_keep_s: float = -1.0
    item_id: str | None = None
    actor: Actor = UNNAMED


@dataclass(slots=True)
class RecoveryReport:
    """What was done, or, after a dry run, what would be.

    Attributes:
        shards: rebuilt now.
        items, events, maxima, verdicts: written to Redis.
        rulings: on bidders for all items or for all of a seller, written to each shard.
        paused: items that came back paused because the archive lacks their terms, each with the reason.
        from_stream, from_outbox: events that the stream, or the outbox of a closed shard, had and the archive did not.
        put_aside: messages from there that became dead letters.
        untouched: shards without cursors that were left alone, each with the reason.
    """

    shards: list[str] = field(default_factory=list)
    items: int = 0
    events: int = 0
    maxima: int = 0
    verdicts: int = 0
    rulings: int = 0
    paused: dict[str, str] = field(default_factory=dict)
    from_stream: int = 0
    from_outbox: int = 0
    put_aside: int = 0
    untouched: dict[str, str] = field(default_factory=dict)
