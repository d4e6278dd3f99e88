"""Who has an account at the servers, under which name, and with which password."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256

from shared.server_urls import with_credentials


class Account(StrEnum):
    """A part of the platform that reaches the servers. The value is its user at Redis and NATS."""

    GATEWAY = "gateway"
    BROADCASTER = "broadcaster"
    ARCHIVER = "archiver"
    CACHE = "cache"
    OPERATOR = "operator"
    """Who recovers, settles dead letters and makes API keys: `bidding recover` and the like."""


@dataclass(frozen=True, slots=True)
class Login:
    """A user and its passwords. Two hold at a time while one is being replaced (docs/operations.md)."""

    user: str
    passwords: Sequence[str] = field(repr=False)

    def at(self, url: str) -> str:
        """The URL of a server with this user and its first password."""
        return with_credentials(url, user=self.user, password=self.passwords[0])


Logins = Mapping[Account, Sequence[Login]]
"""The users of each account: one, or two while one replaces the other."""


def digest(password: str) -> str:
    """SHA-256 of a password, hexadecimal: so Redis keeps it. Nobody guesses one of 128 random bits from that."""
    return sha256(password.encode()).hexdigest()
