"""What the groups of a process share, and how long a group keeps what."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from shared.read_cache.hot import Mirrors
from shared.read_cache.remote import Remote
from shared.read_cache.shedding import Gate
from shared.read_cache.stats import Stats
from shared.read_cache.store.base import Store

Load = Callable[[str], Awaitable[bytes | None]]


class Missing(enum.Enum):
    """Nothing is known. Not the same as a None, by which the origin says that there is nothing."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """How long and how much a group keeps.

    Attributes:
        ttl_s: a value is kept for at most so long, and at least nine tenths of it: what was loaded in one moment does
            not expire in one moment.
        negative_ttl_s: likewise for "there is none".
        mirror_ttl_s: for values of keys that another node owns. How long a reader may see what the owner has forgotten.
        value_bytes_max: a larger value is served and not kept.
        load_timeout_s: for one question to the origin.
    """

    ttl_s: float = 300.0
    negative_ttl_s: float = 5.0
    mirror_ttl_s: float = 0.5
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
        keeping: False while whoever follows the changes has lost sight of them.
    """

    gate: Gate
    stats: Stats
    store: Store | None
    mirrors: Mirrors | None = None
    remote: Remote | None = None
    shares_loads: bool = True
    keeping: bool = True
