"""The keys that the services keep in Redis.

All keys of an item carry the hash tag of its shard (``{s07}``), so that one Lua script touches one Redis Cluster slot
and the same code runs on a single server and on a cluster.
"""

from __future__ import annotations

from typing import Final

from shared.names import SHARDS, shard_of

_SHARDS: Final = frozenset(SHARDS)

REVOCATIONS_KEY: Final = "{s00}:revocations"
"""Hash, bounded: the tokens that are revoked (:mod:`shared.redis_layout.revocations`). It has the hash tag of the first
shard, because on a cluster the tag decides on which node a key is."""


def item_key(item_id: str) -> str:
    """Hash: terms and state of the item."""
    return f"{{{shard_of(item_id)}}}:item:{item_id}"


def proxies_key(item_id: str) -> str:
    """Hash: user id to that user's maximum in minor units. Never shown to anyone else."""
    return f"{{{shard_of(item_id)}}}:proxies:{item_id}"


def bidders_key(item_id: str) -> str:
    """Hash: user id to the number of that user's accepted bids that stand. Raises count, automatic bids do not.

    It is complete if the item's ``bids_counted`` equals ``accepted`` minus ``voids``: bids from before this hash was
    introduced are not in it.
    """
    return f"{{{shard_of(item_id)}}}:bidders:{item_id}"


def accepted_key(item_id: str) -> str:
    """List, oldest first: the item's newest accepted bids with their maxima, bounded.

    See :mod:`shared.redis_layout.accepted_log`.
    """
    return f"{{{shard_of(item_id)}}}:accepted:{item_id}"


def recent_key(item_id: str) -> str:
    """List, newest first, bounded: the item's latest events as JSON, for reads that the archive does not have yet."""
    return f"{{{shard_of(item_id)}}}:recent:{item_id}"


def verdicts_key(item_id: str) -> str:
    """Hash: the verdicts of the item's accepted bids, by their keys (:mod:`shared.redis_layout.stored_verdicts`)."""
    return f"{{{shard_of(item_id)}}}:verdicts:{item_id}"


def refusals_key(item_id: str) -> str:
    """Hash, bounded, expires: the verdicts of the item's latest refused bids, and their bidders."""
    return f"{{{shard_of(item_id)}}}:refusals:{item_id}"


def older_refusals_key(item_id: str) -> str:
    """Hash: the former content of :func:`refusals_key`, from before that was full."""
    return f"{{{shard_of(item_id)}}}:older-refusals:{item_id}"


def item_rulings_key(item_id: str) -> str:
    """Hash, bounded: user id to what was ruled on that bidder on this item (:mod:`shared.redis_layout.rulings`)."""
    return f"{{{shard_of(item_id)}}}:rulings:{item_id}"


def rulings_key(shard: str) -> str:
    """Hash, bounded: what was ruled on bidders for all items, or for all of a seller. Every shard has all of it, and
    each ruling has one shard where it is made (:func:`shared.redis_layout.rulings.home_of`)."""
    return f"{{{shard}}}:rulings"


def spreading_key(shard: str) -> str:
    """Sorted set: the fields of :func:`rulings_key` that were ruled in this shard and that other shards may not have
    yet, by the microsecond at which to look at them next."""
    return f"{{{shard}}}:spreading"


def credit_key(shard: str) -> str:
    """Hash: of each bidder with a spending limit how much of it is used in the shard, and how much may be
    (:mod:`shared.redis_layout.accounts`)."""
    return f"{{{shard}}}:credit"


def account_key(user_id: str, currency: str) -> str:
    """Hash, in the bidder's home: the spending limit in a currency, and how much of it each shard has."""
    return f"{{{shard_of(user_id)}}}:account:{user_id}|{currency}"


def turn_key(user_id: str, currency: str) -> str:
    """String that expires, beside the account: a void seeks credit of it, and bids do not meanwhile."""
    return f"{account_key(user_id, currency)}|turn"


def deadlines_key(shard: str) -> str:
    """Sorted set: item ids, scored by the microsecond of their next transition (opening or end)."""
    return f"{{{shard}}}:deadlines"


def outbox_key(shard: str) -> str:
    """Stream: the entries ``<n>-0`` that are not yet known to be archived."""
    return f"{{{shard}}}:outbox"


def cursors_key(shard: str) -> str:
    """Hash: ``epoch``, ``next`` (last n given out), ``published``, ``archived``, ``stream_id``, ``stream_seq``.

    And ``run``: the run of Redis that was last found to have the whole shard; ``stale`` (the former epoch) if the shard
    is closed; ``republish`` if entries are missing in the archive; ``evictions``: how many items have left Redis since
    the shard got these cursors; ``rulings``: the marks of :mod:`shared.redis_layout.rulings`; ``admission``: a text
    that is another one after each ``run`` (:mod:`shared.redis_layout.accounts`).
    """
    return f"{{{shard}}}:cursors"


def lease_key(shard: str) -> str:
    """String that expires: the lease token of the shard's relay."""
    return f"{{{shard}}}:lease"


def rebuilding_key(shard: str) -> str:
    """String, ``<number of the run>:<token>``: exists while a run of `recover` rebuilds the lost shard, which is then
    incomplete."""
    return f"{{{shard}}}:rebuilding"


def lost_key(shard: str) -> str:
    """Set, bounded: the lost items of the shard that gateways have found: the archive or the stream knows them, and
    Redis has lost them."""
    return f"{{{shard}}}:lost"


def mark_key(shard: str) -> str:
    """String that expires soon: once this write has reached the replicas, all earlier writes have too."""
    return f"{{{shard}}}:mark"


def opened_key(shard: str) -> str:
    """Sorted set: the items whose `created` event is not archived yet, by the number of its outbox entry."""
    return f"{{{shard}}}:opened"


def closed_key(shard: str) -> str:
    """Sorted set: the closed items that Redis still has, by the number of the outbox entry with their last event.

    0 where that was archived before the item came back; below 0 where the item was rebuilt since, in the order of the
    last changes.
    """
    return f"{{{shard}}}:closed"


def returning_key(item_id: str, token: str, part: str) -> str:
    """A part of an item that comes back, until it is complete; expires. ``token``: of the attempt."""
    return f"{{{shard_of(item_id)}}}:returning:{item_id}:{token}:{part}"


def keys_of_item(item_id: str) -> tuple[str, ...]:
    """Every key that belongs to one item alone, its hash first. None of them is left when it has left Redis."""
    return (
        item_key(item_id),
        proxies_key(item_id),
        bidders_key(item_id),
        accepted_key(item_id),
        recent_key(item_id),
        verdicts_key(item_id),
        refusals_key(item_id),
        older_refusals_key(item_id),
        item_rulings_key(item_id),
    )


def shard_of_key(key: str | bytes) -> str | None:
    """The shard whose hash tag a key begins with; None for what is no key of ours."""
    text = key[:6].decode("latin-1") if isinstance(key, bytes) else key
    return text[1:4] if text[:1] == "{" and text[4:6] == "}:" and text[1:4] in _SHARDS else None
