"""What the groups of a process share, and how long a group keeps its values."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.read_cache.groups.hot import Mirrors
from shared.read_cache.groups.shedding import Gate
from shared.read_cache.remote import UNHEARD, Heard, Remote
from shared.read_cache.stats import Stats
from shared.read_cache.store.base import Store

Load = Callable[[str], Awaitable[bytes | None]]

LoadMany = Callable[[Sequence[str]], Awaitable[Mapping[str, bytes | None]]]
"""Loads several keys in one question. A key that is missing in the answer has no value."""

MayKeep = Callable[[str], bool]
"""Whether an answer of the origin about a key may be kept from now on. When that changes to no, somebody forgets the
key."""


def always(key: str) -> bool:
    """For an origin that has each change before anybody hears of it."""
    return True


def nothing_heard() -> Heard:
    """For a cache that hears of changes only from those who make them."""
    return UNHEARD


def nothing_to_do() -> None:
    """For callers that check nothing before they tell."""


class Missing(enum.Enum):
    """Nothing is known. Not the same as a None, by which the origin says that there is nothing."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """How long and how much a group keeps. All times count from the moment before the value was asked for.

    Attributes:
        ttl_s: a value is kept for at most so long, and at least nine tenths of it: what was loaded in one moment does
            not expire in one moment.
        negative_ttl_s: likewise for "there is none".
        mirror_ttl_s: for values of keys that another node owns. How long a reader may see what the owner has forgotten.
        joined_for_s: how old a question may be that a new caller still joins; later callers ask anew. Where nobody
            tells of changes, this adds to the bound on how old an answer may be.
        value_bytes_max: a larger value is served and not kept.
        load_timeout_s: for one question to the origin.
    """

    ttl_s: float = 300.0
    negative_ttl_s: float = 5.0
    mirror_ttl_s: float = 0.5
    joined_for_s: float = 60.0
    value_bytes_max: int = 256 * 1024
    load_timeout_s: float = 5.0


@dataclass(slots=True)
class Shelf:
    """What all groups of a process share.

    Attributes:
        store: None where nothing is owned here: in the mode ``off``, and in a process that reads a cluster.
        mirrors: None outside of a cluster.
        shares_loads: False in the mode ``off``: there nobody tells of changes, so a get may not be answered by a
            question that began before it.
        keeping: False while the follower of the changes may miss some. telling: False while what is kept may be wrong,
        and nobody knows yet.
        put_bytes: the bytes of all that was kept since the last reset, also of what has gone since.
        heard: how far this process has heard of changes: sent to peers with each value that it keeps.
        before_telling: called before a peer is told what is kept.
        needed: how far a peer must have heard, at least, so that its values may be kept here.
    """

    gate: Gate
    stats: Stats
    store: Store | None
    mirrors: Mirrors | None = None
    remote: Remote | None = None
    shares_loads: bool = True
    keeping: bool = True
    telling: bool = True
    put_bytes: int = 0
    before_telling: Callable[[], None] = nothing_to_do
    heard: Callable[[], Heard] = nothing_heard
    needed: Callable[[], Heard] = nothing_heard
