"""Which slot a shard is in. Pure.

A cluster gives out 16,384 slots, and a key's slot follows from what is in its braces: for us the shard. So only as many
slots matter as there are shards, and all keys of a shard are on one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis.crc import key_slot

from shared import names
from shared.redis_layout.keys import shard_of_key

SLOTS: Final[Mapping[str, int]] = {tag: key_slot(tag.encode()) for tag in names.SHARDS}
"""The slot of each shard."""

SLOT_COUNT: Final = 16_384
"""The number of slots of every cluster."""


def shard_of_words(words: Sequence[Any]) -> str | None:
    """The shard of a command; None where it has no key of ours. Keys come before all other arguments that could be
    taken for one."""
    for word in words[1:]:
        if isinstance(word, str | bytes):
            shard = shard_of_key(word)
            if shard is not None:
                return shard
    return None
