"""The passwords of the private servers: one per account and server, made out of one secret of the data directory."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from typing import Final

from shared.permissions.accounts import Account, Login

OWNER: Final = "owner"
"""The user of Redis and NATS who may do everything, if the servers are closed."""
# Passwords with 256 random bits need nothing that makes guessing slow, and each connection would pay for it.
SCRAM_ITERATIONS: Final = 64


class ServerLogins:
    """Who logs in where, and with what.

    The passwords are derived from the secret, so that they are the same after a restart, as services that went on
    running need.
    """

    def __init__(self, secret: Callable[[], str]) -> None:
        """``secret``: asked when a password is needed."""
        self._secret = secret
        self._known = ""
        # The servers are prepared at the same time, in threads.
        self._lock = threading.Lock()

    def of(self, server: str) -> dict[Account, list[Login]]:
        """The logins of all accounts: ``redis``, ``nats`` or ``postgres``."""
        return {account: [self.login(server, account)] for account in Account}

    def login(self, server: str, account: Account) -> Login:
        """The login of one account."""
        return Login(account.value, (self._password(server, account.value),))

    def owner(self, server: str) -> Login:
        """The login that may do everything; used if the servers are closed."""
        return Login(OWNER, (self._password(server, OWNER),))

    def _password(self, server: str, user: str) -> str:
        with self._lock:
            self._known = self._known or self._secret()
        return hmac.digest(self._known.encode(), f"{server}:{user}".encode(), "sha256").hex()
