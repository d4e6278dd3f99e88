"""Who calls, from the headers of a request: the one function that every road into the gateway uses.

To verify a signature costs a hundred times what a look into a dictionary does. So each process remembers whom a token
names, under the token's hash, and which tokens were refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Final, TypeVar

from shared.identity.errors import KeysAway, Unauthenticated
from shared.identity.keys import UNKNOWN_KEY, Keys
from shared.identity.revocations import Revocations
from shared.identity.tokens import EXPIRED, Principal, Tokens

TOKEN_BYTES_MAX: Final = 8 * 1024
KNOWN_MAX: Final = 20_000
"""The most tokens that are remembered, about 0.5 KB each. Only valid ones are."""
REFUSED_MAX: Final = 2_000
"""The most refusals that are remembered. Anybody can push one out, at the cost of a request for each."""

_USUAL: Final = b"Bearer "
_TOKEN: Final = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

REVOKED: Final = "the token is revoked; get a new one"

V = TypeVar("V")


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The token in ``Authorization: Bearer …``; None where there is no such header.

    Args:
        headers: names in lower case, and values.

    Raises:
        Unauthenticated: the header is there twice, or holds something else.
    """
    sent = authorization_of(headers)
    return None if sent is None else _token(sent)


def authorization_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The value of Authorization; None where there is no such header.

    Raises:
        Unauthenticated: it is there twice.
    """
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if found is not None:
                raise Unauthenticated("send one Authorization header")
            found = value
    return found


def _token(sent: bytes) -> bytes:
    scheme, _, token = sent.partition(b" ")
    token = token.strip(b" ")
    if scheme.lower() != b"bearer" or len(token) > TOKEN_BYTES_MAX or _TOKEN.fullmatch(token) is None:
        raise Unauthenticated("Authorization must be Bearer and a JWT")
    return token


class Principals:
    """Tells who calls. Never waits."""

    def __init__(
        self,
        tokens: Tokens,
        keys: Keys,
        *,
        revocations: Revocations | None = None,
        known_max: int = KNOWN_MAX,
        refused_max: int = REFUSED_MAX,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            keys: those with which ``tokens`` verifies.
            revocations: tells which tokens are no longer good; None where none can be revoked.
        """
        self._tokens = tokens
        self._keys = keys
        self._revocations = revocations
        self._known_max = known_max
        self._refused_max = refused_max
        self._now_s = now_s
        self._version = keys.version
        self._known: dict[bytes, Principal] = {}
        self._refused: dict[bytes, str] = {}

    def of(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal | None:
        """Who sends a request with these headers; None where it has no token. Raises as :meth:`who`."""
        sent = authorization_of(headers)
        return None if sent is None else self.who(sent)

    def who(self, sent: bytes) -> Principal:
        """Whom the value of an Authorization header names.

        Raises:
            Unauthenticated: its token is not believed.
            KeysAway: whether it is good cannot be told now.
        """
        if self._version != self._keys.version:
            # A key that was withdrawn vouches for nobody any more; one that is new may vouch for a token that was
            # refused.
            self._known.clear()
            self._refused.clear()
            self._version = self._keys.version
        # Remember tokens by their hashes, so that no token stays in memory.
        digest = sha256(sent).digest()
        principal = self._known.get(digest)
        if principal is None:
            # The header may be spelt in an unusual way. A token has one place here, however the header is spelt.
            token = _token(sent)
            digest = sha256(_USUAL + token).digest()
            principal = self._known.get(digest) or self._verified(token, digest)
        if self._now_s() >= principal.expires_s + self._tokens.leeway_s:
            del self._known[digest]
            raise Unauthenticated(EXPIRED)
        # Check each time: the token may have been revoked since.
        self.check_revoked(principal)
        return principal

    def is_vouched(self, principal: Principal) -> bool:
        """Whether the key that vouches for this principal is still believed. For connections that stay open after
        :meth:`who` has named the principal once. False where that cannot be told now."""
        return self._tokens.vouched(principal)

    def check_again(self, principal: Principal) -> None:
        """Whether the token that named this principal a moment ago would still do so. Raises as :meth:`who`."""
        if self._now_s() >= principal.expires_s + self._tokens.leeway_s:
            raise Unauthenticated(EXPIRED)
        self.check_revoked(principal)
        if not self.is_vouched(principal):
            raise Unauthenticated(UNKNOWN_KEY)

    def check_revoked(self, principal: Principal) -> None:
        """
        Raises:
            Unauthenticated: the token that names this principal is revoked.
            KeysAway: whether it is cannot be told yet.
        """
        revocations = self._revocations
        if revocations is None:
            return
        if not revocations.is_known:
            raise KeysAway("tokens cannot be checked now; try again", retry_after_s=1)
        if revocations.cover(principal):
            raise Unauthenticated(REVOKED)

    def _verified(self, token: bytes, digest: bytes) -> Principal:
        refusal = self._refused.get(digest)
        if refusal is not None:
            raise Unauthenticated(refusal)
        try:
            principal = self._tokens.verify(token.decode("ascii"))
        except Unauthenticated as error:
            if error.is_lasting:
                _put(self._refused, digest, str(error), self._refused_max)
            raise
        _put(self._known, digest, principal, self._known_max)
        return principal


def _put(where: dict[bytes, V], digest: bytes, value: V, most: int) -> None:
    """Remember this; where there are too many, the oldest goes."""
    where[digest] = value
    if len(where) > most:
        del where[next(iter(where))]
