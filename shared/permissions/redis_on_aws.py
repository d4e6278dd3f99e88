"""The same permissions as access strings of ElastiCache and MemoryDB. Pure.

AWS takes rules as Redis has them, also selectors and keys that are read alone: ElastiCache and MemoryDB do from version
7 of their engines on. It does not take passwords, which are given separately, nor rules that would undo them, nor
commands that it keeps to itself. The server itself reads the string in the end, so the rules are in the order in which
the server would show them: a plan of Terraform then finds no difference where there is none.
"""

from __future__ import annotations

import re
from typing import Final

from shared.permissions.accounts import Account
from shared.permissions.redis_users import GRANTS, Grant

FORBIDDEN: Final = frozenset(
    {
        *("acl|deluser", "acl|load", "acl|log", "acl|save", "acl|setuser", "bgrewriteaof", "bgsave", "config", "debug"),
        *("cluster|addslots", "cluster|addslotsrange", "cluster|bumpepoch", "cluster|count-failure-reports"),
        *("cluster|delslots", "cluster|delslotsrange", "cluster|failover", "cluster|flushslots", "cluster|forget"),
        *("cluster|links", "cluster|meet", "cluster|replicate", "cluster|reset", "cluster|set-config-epoch"),
        *("cluster|setslot", "failover", "migrate", "module", "psync", "replicaof", "save", "shutdown", "slaveof"),
        "sync",
    }
)
"""Commands that ElastiCache or MemoryDB keep to themselves; a string that names one is refused."""

_RULE: Final = re.compile(r"on|off|resetchannels|-@all|\+[a-z]+(\|[a-z-]+)?|(%R)?~\S+")
"""What a string may consist of here. No word of it gives or takes a password, and no category is given."""


class NotOnAws(ValueError):
    """AWS does not take this rule; the text names it."""


def access_string_of(account: Account) -> str:
    """The access string of an account; empty where it has no business at Redis.

    Raises:
        NotOnAws: the list has something that AWS does not take.
    """
    if not GRANTS[account]:
        return ""
    first, *others = GRANTS[account]
    selectors = [f"({' '.join(_rules(grant))})" for grant in others]
    return checked(" ".join(["on", *_rules(first), *selectors]))


def checked(text: str) -> str:
    """The string itself.

    Raises:
        NotOnAws: AWS does not take it.
    """
    for part in re.findall(r"\([^()]*\)|[^\s()]+|[()]", text):
        inside = part.startswith("(") and part.endswith(")") and len(part) > 1
        for rule in part[1:-1].split() if inside else [part]:
            if _RULE.fullmatch(rule) is None or (inside and rule in ("on", "off")):
                raise NotOnAws(f"{rule!r} cannot stand in an access string of AWS")
            command = rule.removeprefix("+")
            if command in FORBIDDEN or command.partition("|")[0] in FORBIDDEN:
                raise NotOnAws(f"{rule!r} names a command that AWS keeps to itself")
    return text


def _rules(grant: Grant) -> list[str]:
    keys = [f"~{pattern}" for pattern in grant.keys] + [f"%R~{pattern}" for pattern in grant.read_keys]
    return [*keys, "resetchannels", "-@all", *(f"+{command}" for command in grant.commands)]
