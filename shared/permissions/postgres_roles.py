"""What each account may do at PostgreSQL, and the statements that say so. Pure.

Each account has a role that nobody logs in as, with the rights; its logins are members. So a second login takes the
place of the first without touching a right. The tables belong to whoever applies the migrations.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from shared.permissions.accounts import Account

_ITERATIONS: Final = 4096
_SALT_BYTES: Final = 16
_LOGIN: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class Rights:
    """The rights of one account on one table. ``columns``: those that it may read; empty for all."""

    rights: str
    columns: str = ""

    def on(self, table: str) -> str:
        """The words between GRANT or REVOKE and the role."""
        return f"{self.rights} ({self.columns}) ON {table}" if self.columns else f"{self.rights} ON {table}"


_READS: Final = Rights("SELECT")
_ADDS: Final = Rights("SELECT, INSERT")
_KEEPS: Final = Rights("SELECT, INSERT, UPDATE")

# What is public of an item and how far the archive has come.
_CLOSED_ITEMS: Final = dict.fromkeys(
    ("items", "bids", "events", "chains", "shard_cursors", "recoveries", "retired_items"), _READS
)
_ARCHIVE: Final = {
    "items": _KEEPS,
    # Voids strike and reprice bids; nothing else of one changes.
    "bids": Rights("SELECT, INSERT, UPDATE (status)"),
    "events": _ADDS,
    "shard_cursors": _KEEPS,
    "sealed": _ADDS,
    "rulings": _ADDS,
    "acts": _ADDS,
    "dead_letters": _KEEPS,
    "chains": _KEEPS,
    "event_hashes": _ADDS,
    "exports": _KEEPS,
    "bidders": _ADDS,
}

TABLES: Final[Mapping[Account, Mapping[str, Rights]]] = {
    # A gateway rebuilds items that come back, for which it needs their maxima, and looks after bidders' rulings and API
    # keys. Watch lists are all that it writes.
    Account.GATEWAY: {
        **_CLOSED_ITEMS,
        "sealed": _READS,
        "rulings": _READS,
        "acts": _READS,
        "api_keys": _READS,
        "bidders": _READS,
        "watched": Rights("SELECT, INSERT, DELETE"),
        "watch_parts": Rights("SELECT, UPDATE (items)"),
        "dead_letters": Rights("SELECT", "id, reason, detail, subject, at, outcome"),
    },
    # No maximum.
    Account.BROADCASTER: {**_CLOSED_ITEMS, "sealed": Rights("SELECT", "item_id, user_id, bid_id, verdict")},
    Account.ARCHIVER: {**_ARCHIVE, "recoveries": _READS, "retired_items": _READS},
    Account.CACHE: {**_CLOSED_ITEMS, "dead_letters": Rights("SELECT", "outcome")},
    Account.OPERATOR: {
        **_ARCHIVE,
        "retired_items": Rights(_KEEPS.rights + ", DELETE"),
        "recoveries": _KEEPS,
        "api_keys": _KEEPS,
        "schema_migrations": _READS,
    },
}
SEQUENCES: Final[Mapping[Account, Sequence[str]]] = {Account.OPERATOR: ("recovery_runs", "retirements")}
"""The sequences that are used by name; the others belong to tables."""
FUNCTIONS: Final[Mapping[Account, Sequence[str]]] = {Account.OPERATOR: ("remove_log(text,integer)",)}
"""Functions that do what their caller may not do, so that not everybody may call them: one removes the log of a retired
item."""
OWNER_ONLY: Final = frozenset[str]()
"""Tables that only their owner reads or writes."""

# On tables that a later migration makes, until the next run of this has said more.
_BY_DEFAULT: Final = (Account.ARCHIVER, Account.OPERATOR)


def role_of(account: Account) -> str:
    """The role with the account's rights."""
    return f"bidding_{account.value}"


def make_roles() -> str:
    """Statements that make the roles that are missing. They may run at the same time in several databases."""
    return "\n".join(_unless_there(role_of(account), "NOLOGIN") for account in Account)


def grants(tables: Iterable[str], sequences: Iterable[str], functions: Iterable[str] = ()) -> str:
    """Statements after which the roles have these rights and no others.

    Args:
        tables, sequences, functions: of the schema ``public``, those that are there; functions with the types of their
            arguments.
    """
    roles = ", ".join(role_of(account) for account in Account)
    there, counted, called = set(tables), set(sequences), set(functions)
    lines = [
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {roles}",
        f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {roles}",
        # Databases of PostgreSQL 14 and before let everybody make functions here, which the owner might call unawares.
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA public TO {roles}",
    ]
    for account, rights in TABLES.items():
        lines += [f"GRANT {each.on(table)} TO {role_of(account)}" for table, each in rights.items() if table in there]
    for account, names in SEQUENCES.items():
        lines += [f"GRANT USAGE, SELECT ON SEQUENCE {name} TO {role_of(account)}" for name in names if name in counted]
    for account, names in FUNCTIONS.items():
        lines += [f"GRANT EXECUTE ON FUNCTION {name} TO {role_of(account)}" for name in names if name in called]
    by_default = ", ".join(map(role_of, _BY_DEFAULT))
    for what, right in (("TABLES", _KEEPS.rights), ("SEQUENCES", "USAGE")):
        lines.append(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {right} ON {what} TO {by_default}")
    return ";\n".join(lines) + ";"


def set_login(account: Account, user: str, password: str, *, iterations: int = _ITERATIONS) -> str:
    """Statements that make a login of the account, or give the one that is there this password.

    The password is not in them: they have what PostgreSQL would keep of it, so no log of the server shows it.

    Raises:
        ValueError: the user or the password has characters that it must not have.
    """
    if not _LOGIN.fullmatch(user):
        raise ValueError("a login has 1 to 63 characters of a-z 0-9 _, a letter first")
    verifier = scram_verifier(password, iterations=iterations)
    made = _unless_there(user, f"LOGIN IN ROLE {role_of(account)}")
    return f"{made}\nALTER ROLE {user} LOGIN PASSWORD '{verifier}';"


def scram_verifier(password: str, *, iterations: int = _ITERATIONS, salt: bytes | None = None) -> str:
    """What PostgreSQL keeps of a password (RFC 5803). ``salt``: random where none is given.

    Raises:
        ValueError: it is empty, or not printable ASCII: others may be written in several ways.
    """
    if not password or not password.isascii() or not password.isprintable():
        raise ValueError("a password has printable ASCII characters alone")
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    shown = [base64.b64encode(each).decode() for each in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{shown[0]}${shown[1]}:{shown[2]}"


def _unless_there(role: str, options: str) -> str:
    """CREATE ROLE knows no IF NOT EXISTS. Roles belong to all databases, so another one may make it at this moment."""
    return f"""DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} {options}; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;"""
