"""What each account may do at Redis: commands, and keys by pattern. Pure.

A command inside a script is checked like one that a client sends. EVAL needs reading and writing of every key that it
is handed, whatever the script does with it; so what a service may write beyond that is bounded by its commands. A
service may do what one of its grants allows wholly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.permissions.accounts import Account, Login, Logins, digest

_ITEM: Final = (
    "item",
    "proxies",
    "bidders",
    "accepted",
    "recent",
    "verdicts",
    "refusals",
    "older-refusals",
    "rulings",
)
"""The keys of one item, as :func:`shared.redis_layout.keys.keys_of_item` has them."""

# What a connection and its pool need, and what every node of a cluster is asked. INFO is named because MemoryDB allows
# it to nobody otherwise, and without it a gateway takes no bids.
_CONNECTION: Final = (
    "auth",
    "asking",
    "client|setinfo",
    "client|setname",
    "cluster|info",
    "cluster|nodes",
    "cluster|slots",
    "exec",
    "info",
    "multi",
    "ping",
    "readonly",
    "select",
    "time",
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Commands on keys.

    Attributes:
        commands: in small letters; a part of one behind a bar, ``cluster|slots``.
        keys: patterns of Redis, read and written.
        read_keys: the same, read alone.
    """

    commands: Sequence[str]
    keys: Sequence[str] = ()
    read_keys: Sequence[str] = ()

    def words(self) -> list[str]:
        """The grant in the syntax of Redis, without the user."""
        keys = [f"~{pattern}" for pattern in self.keys]
        return [*keys, *(f"%R~{pattern}" for pattern in self.read_keys), *(f"+{each}" for each in self.commands)]


def _item_keys(*names: str) -> list[str]:
    return [f"{{s??}}:{name}:*" for name in names]


def _shard_keys(*names: str) -> list[str]:
    return [f"{{s??}}:{name}" for name in names]


def _in_this_order(*patterns: Sequence[str]) -> list[str]:
    """All of these patterns, each once."""
    return list(dict.fromkeys(each for some in patterns for each in some))


# Redis tries an account's patterns one after the other, for every key of every command of a script. That was a twelfth
# of what a bid costs Redis, so the keys of each bid come first.
_OF_EACH_BID: Final = [
    *_item_keys("item"),
    *_shard_keys("cursors", "outbox"),
    *_item_keys("recent", "bidders", "accepted", "proxies", "verdicts", "refusals", "older-refusals"),
    *_shard_keys("deadlines"),
]

# From before verdicts were kept in hashes: read for bids of those days.
_FORMER_VERDICTS: Final = _item_keys("keyowner", "idem")

_GATEWAY_SHARD: Final = (
    "rulings",
    "spreading",
    "credit",
    "deadlines",
    "outbox",
    "cursors",
    "lease",
    "lost",
    "mark",
    "opened",
    "closed",
    "revocations",
)

_LISTS_OF_ITEMS: Final = ("opened", "closed", "deadlines")
"""The sorted sets of a shard's items that an archiver keeps up to date."""

_READ: Final = (
    "exists",
    "get",
    "hexists",
    "hget",
    "hgetall",
    "hlen",
    "hmget",
    "hscan",
    "lrange",
    "pttl",
    "scard",
    "sismember",
    "smembers",
    "xrange",
    "xrevrange",
    "zcard",
    "zrangebyscore",
    "zscore",
)

GRANTS: Final[Mapping[Account, Sequence[Grant]]] = {
    # A gateway decides bids: it may do everything with items and the outbox, but not what only an archiver or a
    # recovery writes.
    Account.GATEWAY: (
        Grant(
            (
                *_CONNECTION,
                *_READ,
                "del",
                "eval",
                "evalsha",
                "expire",
                "getdel",
                "hdel",
                "hincrby",
                "hset",
                "lpush",
                "lset",
                "ltrim",
                "persist",
                "pexpireat",
                "rename",
                "rpush",
                "sadd",
                "scan",
                "set",
                "srem",
                "unlink",
                "wait",
                "xadd",
                "zadd",
                "zrem",
            ),
            _in_this_order(
                _OF_EACH_BID, _item_keys(*_ITEM, "returning", "account", "once"), _shard_keys(*_GATEWAY_SHARD)
            ),
            _FORMER_VERDICTS,
        ),
    ),
    # A broadcaster shows what is there. It writes one thing only: it takes a ticket when it uses it.
    Account.BROADCASTER: (
        Grant(
            (*_CONNECTION, *_READ),
            (),
            [
                *_item_keys("item", "proxies", "bidders", "recent"),
                *_shard_keys("cursors", "lost", "rebuilding", "revocations"),
            ],
        ),
        # Codes to sign in with, which have a whole token, are kept beside the tickets.
        Grant(("getdel",), _item_keys("once:feed-ticket")),
    ),
    # An archiver moves the archived cursors, trims the outbox, and removes closed items whole; it changes nothing of an
    # item. Its writes are listed key by key: EVAL alone needs reading and writing of all keys that a script is handed.
    Account.ARCHIVER: (
        Grant(
            (*_CONNECTION, *_READ, "eval", "evalsha", "scan"),
            [*_item_keys(*_ITEM), *_shard_keys("cursors", "outbox", *_LISTS_OF_ITEMS, "lost")],
            _shard_keys("rebuilding"),
        ),
        Grant(("unlink",), _item_keys(*_ITEM)),
        # HDEL of no field, as the first write of a script that has to go on while Redis is full.
        Grant(("hdel", "hincrby", "hmget", "hset"), _shard_keys("cursors")),
        Grant(("xtrim",), _shard_keys("outbox")),
        Grant(("zadd", "zrem", "zremrangebyscore"), _shard_keys(*_LISTS_OF_ITEMS)),
        Grant(("srem",), _shard_keys("lost")),
    ),
    # Nodes of the read cache have no business at Redis.
    Account.CACHE: (),
    # An operator rebuilds what Redis has lost, and looks after everything else, without a way to wipe or reconfigure
    # the server.
    Account.OPERATOR: (
        Grant(
            (
                *_CONNECTION,
                *_READ,
                "del",
                "eval",
                "evalsha",
                "expire",
                "hdel",
                "hincrby",
                "hset",
                "hsetnx",
                "persist",
                "pexpireat",
                "rpush",
                "scan",
                "set",
                "srem",
                "unlink",
                "zadd",
                "zrem",
            ),
            ["{s??}:*"],
        ),
    ),
}


def access_of(account: Account) -> str:
    """What Redis is told of an account except its name and passwords; empty where the account may do nothing there."""
    first, *others = GRANTS[account] or (None,)
    if first is None:
        return ""
    more = [f"({' '.join(['-@all', *grant.words()])})" for grant in others if grant is not None]
    return " ".join(["resetkeys", "resetchannels", "-@all", *first.words(), *more])


def users_of_redis(logins: Logins, *, open_to_all: bool, owners: Sequence[Login] = ()) -> str:
    """A file of users (``aclfile``). It has digests in place of passwords.

    Args:
        open_to_all: whoever gives no name may do everything, without a password; otherwise nothing.
        owners: who may do everything with a password.
    """
    default = "on nopass ~* &* +@all" if open_to_all else "off resetkeys resetchannels -@all"
    lines = [f"user default {default}"]
    lines += [f"user {login.user} on {_digests(login.passwords)} ~* &* +@all" for login in owners]
    for account, its in logins.items():
        if access := access_of(account):
            lines += [f"user {login.user} on {_digests(login.passwords)} {access}" for login in its]
    return "\n".join(lines) + "\n"


def _digests(passwords: Sequence[str]) -> str:
    return " ".join(f"#{digest(password)}" for password in passwords)
