"""Which tokens are no longer good although they are not expired: all that a user got until a moment, a single one, or
those that were given for an API key. The same for what was given for tokens whose signing key is no longer believed.
Pure.

What is revoked stays so: it is forgotten when no such token can be alive any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from shared.identity.tokens import Principal

KEPT_S: Final = 30 * 86_400
"""How long a revocation holds. Tokens must not live longer."""
REVOCATIONS_MAX: Final = 10_000
"""The most that hold at one time. An issuer that has more tokens to revoke changes its key."""
KEPT_OF_KEYS_S: Final = 7_200
"""How long the revocation of an API key or a signing key holds. What was given for one lives for an hour at most."""

OF_USER: Final = "u:"
OF_TOKEN: Final = "t:"
OF_API_KEY: Final = "a:"
OF_SIGNER: Final = "k:"


class Revocation(NamedTuple):
    """``at_s``: tokens that were issued up to this Unix time are revoked. ``until_s``: when it may be forgotten."""

    at_s: int
    until_s: int


class Revocations:
    """What a process knows to be revoked, by name: ``u:<user id>``, ``t:<token id>``, ``a:<id of an API key>`` or
    ``k:<name of a signing key>``."""

    def __init__(self, *, leeway_s: int, now_s: Callable[[], float] = time.time) -> None:
        """``leeway_s``: by how much the issuer's clock may be ahead of that which dates revocations."""
        self._leeway_s = leeway_s
        self._now_s = now_s
        self._known: dict[str, Revocation] = {}
        self.is_known = False
        """Whether they were read once. Before that nobody can tell whether a token is good."""

    def __len__(self) -> int:
        return len(self._known)

    @property
    def lasting(self) -> Mapping[str, Revocation]:
        """Those that hold now, by name."""
        now_s = self._now_s()
        return {name: one for name, one in self._known.items() if one.until_s > now_s}

    def add(self, found: Mapping[str, Revocation]) -> None:
        """Add these; of two of one name the later one holds."""
        now_s = self._now_s()
        for name, one in found.items():
            before = self._known.get(name)
            if one.until_s > now_s and (before is None or before < one):
                self._known[name] = one
        if len(self._known) > REVOCATIONS_MAX:
            self._forget(now_s)

    def cover(self, principal: Principal) -> bool:
        """Whether the token that names this principal is revoked."""
        return self.cover_token(principal.user_id, principal.issued_s, principal.token_id, principal.api_key)

    def cover_token(self, user_id: str, issued_s: int | None, token_id: str | None, api_key: str | None = None) -> bool:
        """The same for a token, or for what was given in exchange for it."""
        if not self._known:
            return False
        # For good, so it does not matter when the token was issued.
        if api_key and f"{OF_API_KEY}{api_key}" in self._known:
            return True
        if token_id and f"{OF_TOKEN}{token_id}" in self._known:
            return True
        of_user = self._known.get(f"{OF_USER}{user_id}")
        # A token that does not say when it was issued may be an old one.
        return of_user is not None and (issued_s or 0) <= of_user.at_s + self._leeway_s

    def cover_signer(self, signer: str, given_s: int) -> bool:
        """Whether the signing key of this name was withdrawn after something was given, at this Unix time, for a token
        that it signed. A key may be believed again: what is given from then on is good."""
        of_signer = self._known.get(f"{OF_SIGNER}{signer}")
        return of_signer is not None and given_s <= of_signer.at_s + self._leeway_s

    def cover_since(self, user_id: str, since_s: float) -> bool:
        """Whether a revocation covers what this user had at this Unix time, such as an API key that was made then."""
        of_user = self._known.get(f"{OF_USER}{user_id}")
        return of_user is not None and since_s < of_user.at_s + 1

    def _forget(self, now_s: float) -> None:
        left = {name: one for name, one in self._known.items() if one.until_s > now_s}
        # There may be more than the bound, if Redis was wiped in between: the ones that end soonest go.
        surplus = sorted(left, key=lambda name: left[name].until_s)[: max(0, len(left) - REVOCATIONS_MAX)]
        self._known = {name: one for name, one in left.items() if name not in set(surplus)}
