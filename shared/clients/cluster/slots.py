"""Which slot a shard is in, and what the nodes say of slots. Pure.

A cluster gives out 16,384 slots, and a key's slot follows from what is in its braces: for us the shard. So only as many
slots matter as there are shards, and all keys of a shard are on one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from redis.crc import key_slot

from shared import names
from shared.clients.cluster.addresses import Address
from shared.redis_layout.keys import shard_of_key

SLOTS: Final[Mapping[str, int]] = {tag: key_slot(tag.encode()) for tag in names.SHARDS}
"""The slot of each shard."""

SLOT_COUNT: Final = 16_384
"""Of every cluster."""
_UNKNOWN_HOSTS: Final = ("", "?")


def shard_of_words(words: Sequence[Any]) -> str | None:
    """The shard of a command; None where it has no key of ours. Keys come before all other arguments that could be
    taken for one."""
    for word in words[1:]:
        if isinstance(word, str | bytes):
            shard = shard_of_key(word)
            if shard is not None:
                return shard
    return None


def places_of(answer: Iterable[Any], asked: Address) -> dict[str, Address]:
    """Where each shard is, by the answer to ``CLUSTER SLOTS``; shards of slots that nobody has are left out.

    Args:
        asked: the node that answered: the one that is meant where an answer names no host.
    """
    owners: list[tuple[int, int, Address]] = []
    for first, last, primary, *_ in answer:
        host = primary[0].decode() if isinstance(primary[0], bytes) else str(primary[0] or "")
        address = Address(asked.host if host in _UNKNOWN_HOSTS else host, int(primary[1]))
        owners.append((int(first), int(last), address))
    return {shard: address for shard, slot in SLOTS.items() for first, last, address in owners if first <= slot <= last}
