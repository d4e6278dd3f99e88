"""Names that every service agrees on: shards, NATS subjects, and the identifiers that may appear in them.

The keys in Redis are in :mod:`shared.redis_layout.keys`.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final, NamedTuple
from zlib import crc32

SHARD_COUNT: Final = 64
"""Number of shards. Fixed for the life of a deployment: changing it would move every item to other keys."""

STREAM: Final = "AUCTION_EVENTS"
SUBJECT_PREFIX: Final = "auction.events"
SUBJECT_ALL: Final = f"{SUBJECT_PREFIX}.>"
NUDGE_PREFIX: Final = "auction.nudge"
"""Core NATS subject on which a gateway tells the shard's relay that the outbox grew (a hint, may be lost)."""

ARCHIVER_DURABLE: Final = "archiver"
REVOKED_SUBJECT: Final = "identity.revoked"
"""Core NATS subject on which a gateway tells the others that tokens were revoked (a hint, may be lost)."""

# Ids are part of Redis keys and NATS subjects, so the alphabet excludes the characters that are special there: braces
# (hash tags), dots, stars and angle brackets (NATS tokens and wildcards), white space and control characters. The
# patterns are also in OpenAPI, whose dialect has no \Z; here the whole text must match (fullmatch), because $ allows a
# line break after it.
#
# An id of dots only is invalid: in a URL, proxies and clients resolve `.` and `..` as folders.
ITEM_ID_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
USER_ID_PATTERN: Final = r"^(?!\.+$)[A-Za-z0-9_.@-]{1,64}$"
BID_ID_PATTERN: Final = r"^(?!\.+$)[A-Za-z0-9_.:@-]{1,64}$"
"""A bid id that a client may send."""
STANDING_BID_ID_PATTERN: Final = r"^~?(?!\.+$)[A-Za-z0-9_.:@-]{1,64}$"
"""The id of a bid that was placed: sent by a client or made by a gateway."""
SHOWN_BID_ID_PATTERN: Final = r"^~?(?!\.+$)[A-Za-z0-9_.:@-]{1,64}(/proxy|/anew)?$"
"""The same, or the id of the automatic bid that answered it or followed its void."""
MADE_BID_ID_MARK: Final = "~"
"""The first character of a bid id that a gateway made. Clients cannot send it; it is safe in URLs and JSON."""
TOKEN_ID_PATTERN: Final = r"^[A-Za-z0-9_.:@-]{1,128}$"
"""The `jti` of a token that can be revoked by it."""
# RFC 9110 visible characters; the field value of Idempotency-Key.
IDEMPOTENCY_KEY_PATTERN: Final = r"^(?!\.+$)[\x21-\x7e]{1,255}$"

_ITEM_ID = re.compile(ITEM_ID_PATTERN)
_USER_ID = re.compile(USER_ID_PATTERN)
_BID_ID = re.compile(BID_ID_PATTERN)
_STANDING_BID_ID = re.compile(STANDING_BID_ID_PATTERN)
# Gateways used to make such ids, and clients could send them too. There are bids with such ids and without a stored
# verdict.
_MADE_BEFORE = re.compile(r"[0-9a-f]{18}-[0-9a-f]+")
_TOKEN_ID = re.compile(TOKEN_ID_PATTERN)
_IDEMPOTENCY_KEY = re.compile(IDEMPOTENCY_KEY_PATTERN)


def is_item_id(text: str) -> bool:
    """Whether ``text`` is 1 to 64 characters of ``[A-Za-z0-9_-]``."""
    return _ITEM_ID.fullmatch(text) is not None


def is_user_id(text: str) -> bool:
    """Whether ``text`` is 1 to 64 characters of ``[A-Za-z0-9_.@-]``, not all of them dots."""
    return _USER_ID.fullmatch(text) is not None


def is_bid_id(text: str) -> bool:
    """Whether a client may give a bid this id: 1 to 64 characters of ``[A-Za-z0-9_.:@-]``, not all of them dots (a UUID
    fits), and none that a gateway makes."""
    return _BID_ID.fullmatch(text) is not None and not is_made_bid_id(text)


def is_made_bid_id(text: str) -> bool:
    """Whether gateways make, or once made (``<18 hex digits>-<hex digits>``), ids of this form."""
    return text.startswith(MADE_BID_ID_MARK) or _MADE_BEFORE.fullmatch(text) is not None


def is_standing_bid_id(text: str) -> bool:
    """Whether a bid may have this id, whether a client or a gateway made it."""
    return _STANDING_BID_ID.fullmatch(text) is not None


def is_token_id(text: str) -> bool:
    """Whether ``text`` is 1 to 128 characters of ``[A-Za-z0-9_.:@-]``."""
    return _TOKEN_ID.fullmatch(text) is not None


def is_idempotency_key(text: str) -> bool:
    """Whether ``text`` is 1 to 255 visible ASCII characters, not all of them dots (no URL could ask for that)."""
    return _IDEMPOTENCY_KEY.fullmatch(text) is not None


SHARDS: Final = tuple(f"s{number:02d}" for number in range(SHARD_COUNT))


def shard_of(item_id: str) -> str:
    """The shard of an item, ``s00`` to ``s63``: CRC-32 of the id modulo 64."""
    return SHARDS[crc32(item_id.encode()) % SHARD_COUNT]


def subject_of(item_id: str) -> str:
    """The NATS subject of an item's events."""
    return f"{SUBJECT_PREFIX}.{shard_of(item_id)}.{item_id}"


def item_of_subject(subject: str) -> str:
    """The item id at the end of an event subject."""
    return subject.rpartition(".")[2]


class OutboxEntry(NamedTuple):
    """The ``n``-th entry of a shard's outbox, counted from 1 within the shard's ``epoch``."""

    shard: str
    epoch: int
    n: int


# Older messages, which are in the stream for days, have no digest.
_MESSAGE_ID = re.compile(r"(s[0-9]{2}):([0-9]{1,10}):([0-9]{1,16})(?::[0-9a-f]{16})?", re.ASCII)


def message_id(shard: str, shard_epoch: int, entry: int, payload: bytes | None = None) -> str:
    """The Nats-Msg-Id of an outbox entry, ``<shard>:<epoch>:<n>:<digest of the payload>``.

    The same entry always has the same id. Another content of the same number has another id: after a failover to a
    replica that lacks the newest entries, a number may be given out twice, and JetStream would take the second message
    for a duplicate. Without a payload the digest is left out, for readers.
    """
    prefix = f"{shard}:{shard_epoch}:{entry}"
    return prefix if payload is None else f"{prefix}:{blake2b(payload, digest_size=8).hexdigest()}"


def entry_of_message_id(text: str | None) -> OutboxEntry | None:
    """The outbox entry that a Nats-Msg-Id names, with or without a digest; None for another form of id.

    Only the form is checked: ``shard`` and ``epoch`` need not exist.
    """
    found = _MESSAGE_ID.fullmatch(text or "")
    return OutboxEntry(found[1], int(found[2]), int(found[3])) if found else None


def event_id(item_id: str, epoch: int, seq: int) -> str:
    """The id of an event. It is not random, so a rebuilt event keeps its id."""
    return f"{item_id}:{epoch}:{seq}"
