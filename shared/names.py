"""Names that every service agrees on: shards, Redis keys, NATS subjects, and the identifiers that may appear in them.

All keys of an item carry the hash tag of its shard (``{s07}``), so that one Lua script touches one Redis Cluster slot
and the same code runs on a single server and on a cluster.
"""

from __future__ import annotations

import re
from typing import Final
from zlib import crc32

SHARD_COUNT: Final = 64
"""Number of shards. Fixed for the life of a deployment: changing it would move every item to other keys."""

STREAM: Final = "AUCTION_EVENTS"
SUBJECT_PREFIX: Final = "auction.events"
SUBJECT_ALL: Final = f"{SUBJECT_PREFIX}.>"
NUDGE_PREFIX: Final = "auction.nudge"
"""Core NATS subject on which a gateway tells the shard's relay owner that the outbox grew (a hint, may be lost)."""

ARCHIVER_DURABLE: Final = "archiver"

# Ids go into Redis keys and NATS subjects, so the alphabet excludes every character that is special there: braces (hash
# tags), dots, stars and angle brackets (NATS tokens and wildcards), white space and control characters. The patterns
# are also told to clients (OpenAPI), whose dialect has no \Z; here they must match in full, since $ lets a line break
# follow.
ITEM_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
USER_ID_PATTERN: Final = r"^[A-Za-z0-9_.@-]{1,64}$"
BID_ID_PATTERN: Final = r"^[A-Za-z0-9_.:@-]{1,64}$"
# RFC 9110 visible characters; the field value of Idempotency-Key.
IDEMPOTENCY_KEY_PATTERN: Final = r"^[\x21-\x7e]{1,255}$"

_ITEM_ID = re.compile(ITEM_ID_PATTERN)
_USER_ID = re.compile(USER_ID_PATTERN)
_BID_ID = re.compile(BID_ID_PATTERN)
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


def is_item_id(text: str) -> bool:
    """Whether ``text`` is 1 to 64 characters of ``[A-Za-z0-9_-]``."""
    return _ITEM_ID.fullmatch(text) is not None


def is_user_id(text: str) -> bool:
    """Whether ``text`` is 1 to 64 characters of ``[A-Za-z0-9_.@-]``."""
    return _USER_ID.fullmatch(text) is not None


def is_bid_id(text: str) -> bool:
    """Whether ``text`` is 1 to 64 characters of ``[A-Za-z0-9_.:@-]`` (a UUID fits)."""
    return _BID_ID.fullmatch(text) is not None


def is_idempotency_key(text: str) -> bool:
    """Whether ``text`` is 1 to 255 visible ASCII characters."""
    return _IDEMPOTENCY_KEY.fullmatch(text) is not None


SHARDS: Final = tuple(f"s{number:02d}" for number in range(SHARD_COUNT))


def shard_of(item_id: str) -> str:
    """The shard of an item, ``s00`` to ``s63``: CRC-32 of the id modulo 64."""
    return SHARDS[crc32(item_id.encode()) % SHARD_COUNT]


def item_key(item_id: str) -> str:
    """Hash: terms and state of the item."""
    return f"{{{shard_of(item_id)}}}:item:{item_id}"


def proxies_key(item_id: str) -> str:
    """Hash: user id to that user's standing maximum in minor units. Never shown to anyone else."""
    return f"{{{shard_of(item_id)}}}:proxies:{item_id}"


def bidders_key(item_id: str) -> str:
    """Hash: user id to how many bids of that user stand; automatic ones do not count, as in ``bid_count``.

    It is complete where the item's ``bids_counted`` equals its ``bid_count``: bids from before there was this hash are
    not in it.
    """
    return f"{{{shard_of(item_id)}}}:bidders:{item_id}"


def recent_key(item_id: str) -> str:
    """List, newest first: the item's latest events as JSON, bounded; the seam between Redis and the archive."""
    return f"{{{shard_of(item_id)}}}:recent:{item_id}"


def idempotency_key(item_id: str, user_id: str, key: str) -> str:
    """String: fingerprint and verdict of the bid that this bidder placed under this key."""
    return f"{{{shard_of(item_id)}}}:idem:{item_id}:{user_id}:{key}"


def key_owner_key(item_id: str, key: str) -> str:
    """String: the bidder who used this idempotency key on this item first (``bids/by-key`` knows no bidder)."""
    return f"{{{shard_of(item_id)}}}:keyowner:{item_id}:{key}"


def deadlines_key(shard: str) -> str:
    """Sorted set: item id scored by the microsecond of its next transition (opening or end)."""
    return f"{{{shard}}}:deadlines"


def outbox_key(shard: str) -> str:
    """Stream: entries ``<n>-0`` with the events that are not yet known to be archived."""
    return f"{{{shard}}}:outbox"


def cursors_key(shard: str) -> str:
    """Hash: ``epoch``, ``next`` (last n given out), ``published``, ``archived``, ``stream_id``, ``stream_seq``."""
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
    """String that expires at once: a write whose arrival at the replicas says that all before it have arrived."""
    return f"{{{shard}}}:mark"


def subject_of(item_id: str) -> str:
    """The NATS subject of an item's events."""
    return f"{SUBJECT_PREFIX}.{shard_of(item_id)}.{item_id}"


def item_of_subject(subject: str) -> str:
    """The item id at the end of an event subject."""
    return subject.rpartition(".")[2]


def message_id(shard: str, shard_epoch: int, entry: int) -> str:
    """The Nats-Msg-Id of an outbox entry: the same entry always publishes under the same id."""
    return f"{shard}:{shard_epoch}:{entry}"


def event_id(item_id: str, epoch: int, seq: int) -> str:
    """The id of an event: where it happened, not a random number, so a rebuilt event keeps its id."""
    return f"{item_id}:{epoch}:{seq}"
