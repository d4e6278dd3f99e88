"""The keys that the services keep in Redis.

All keys of an item carry the hash tag of its shard (``{s07}``), so that one Lua script touches one Redis Cluster slot
and the same code runs on a single server and on a cluster.
"""

from __future__ import annotations

from shared.names import shard_of


def item_key(item_id: str) -> str:
    """Hash: terms and state of the item."""
    return f"{{{shard_of(item_id)}}}:item:{item_id}"


def proxies_key(item_id: str) -> str:
    """Hash: user id to that user's standing maximum in minor units. Never shown to anyone else."""
    return f"{{{shard_of(item_id)}}}:proxies:{item_id}"


def bidders_key(item_id: str) -> str:
    """Hash: user id to how many accepted bids of that user stand: raised maxima count, automatic bids do not.

    It is complete where the item's ``bids_counted`` equals ``accepted`` less ``voids``: bids from before there was this
    hash are not in it.
    """
    return f"{{{shard_of(item_id)}}}:bidders:{item_id}"


def accepted_key(item_id: str) -> str:
    """List, oldest first: the item's newest accepted bids with their maxima, bounded.

    See :mod:`shared.redis_layout.accepted_log`.
    """
    return f"{{{shard_of(item_id)}}}:accepted:{item_id}"


def recent_key(item_id: str) -> str:
    """List, newest first: the item's latest events as JSON, bounded; the seam between Redis and the archive."""
    return f"{{{shard_of(item_id)}}}:recent:{item_id}"


def verdicts_key(item_id: str) -> str:
    """Hash: the verdicts of the item's accepted bids under their keys (:mod:`shared.redis_layout.stored_verdicts`)."""
    return f"{{{shard_of(item_id)}}}:verdicts:{item_id}"


def refusals_key(item_id: str) -> str:
    """Hash, bounded, expires: the verdicts of the item's latest refused bids, and whose they are."""
    return f"{{{shard_of(item_id)}}}:refusals:{item_id}"


def older_refusals_key(item_id: str) -> str:
    """Hash: what :func:`refusals_key` was before it began anew."""
    return f"{{{shard_of(item_id)}}}:older-refusals:{item_id}"


def deadlines_key(shard: str) -> str:
    """Sorted set: item id scored by the microsecond of its next transition (opening or end)."""
    return f"{{{shard}}}:deadlines"


def outbox_key(shard: str) -> str:
    """Stream: entries ``<n>-0`` with the events that are not yet known to be archived."""
    return f"{{{shard}}}:outbox"


def cursors_key(shard: str) -> str:
    """Hash: ``epoch``, ``next`` (last n given out), ``published``, ``archived``, ``stream_id``, ``stream_seq``.

    And ``run``: the run of Redis that was last found to have all of the shard; ``stale`` (the former epoch) where the
    shard is closed, and ``republish`` where the archive misses entries.
    """
    return f"{{{shard}}}:cursors"


def lease_key(shard: str) -> str:
    """String with a time to live: the token of the relay that owns the shard."""
    return f"{{{shard}}}:lease"


def rebuilding_key(shard: str) -> str:
    """String, ``<number of the run>:<token>``: there while a run of `recover` rebuilds the shard after Redis lost it;
    what the shard has is then half of the truth."""
    return f"{{{shard}}}:rebuilding"


def lost_key(shard: str) -> str:
    """Set: items of a living shard that the archive or the stream knows and Redis has lost, as far as gateways found
    out; bounded."""
    return f"{{{shard}}}:lost"


def mark_key(shard: str) -> str:
    """String that expires soon: a write whose arrival at the replicas says that all before it have arrived."""
    return f"{{{shard}}}:mark"
