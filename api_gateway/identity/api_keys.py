"""Gives short tokens for API keys. The keys are in PostgreSQL, of which the gateway only reads."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from shared.archive_reads.asking import Asking
from shared.identity.api_keys import id_of, is_same
from shared.identity.errors import KeysAway, Unauthenticated
from shared.identity.revocations import Revocations
from shared.identity.signing import Signer
from shared.identity.tokens import Role
from shared.secret_pairs import SecretPair

logger = logging.getLogger(__name__)

TOKEN_S: Final = 600
"""How long a token is good that was given for a key."""

_FIND: Final = """
    SELECT digest, user_id, roles, revoked_at IS NOT NULL AS is_revoked,
           extract(epoch FROM expires_at)::float8 AS expires_s,
           extract(epoch FROM created_at)::float8 AS created_s
    FROM api_keys WHERE key_id = $1"""
_NOT_KNOWN: Final = "the API key is not known, or no longer good"
_SCHEME: Final = b"apikey"


class Given(NamedTuple):
    """A token for a key: of whom, and for how many seconds it is good."""

    token: str
    user_id: str
    expires_in_s: int


class ApiKeys:
    """The keys of services."""

    def __init__(self, asking: Asking, signer: Signer, secrets: SecretPair, revoked: Revocations) -> None:
        """``secrets``: one of them is the key of each API key's HMAC."""
        self._revoked = revoked
        self._asking = asking
        self._signer = signer
        self._secrets = secrets

    async def exchange(self, headers: Iterable[tuple[bytes, bytes]]) -> Given:
        """A token for the key in ``Authorization: ApiKey …``.

        Raises:
            Unauthenticated: there is none, or one that is not known, revoked or expired, or that was made before
                all tokens of its user were revoked.
            KeysAway: whether anything is revoked is not known yet.
            Unavailable: PostgreSQL cannot be asked now.
        """
        text = _key_in(headers)
        secret, key_id = self._made_with(text)
        rows = await self._asking.fetch(_FIND, key_id)
        now_s = time.time()
        if not rows or not is_same(bytes(rows[0]["digest"]), secret, text) or rows[0]["is_revoked"]:
            raise Unauthenticated(_NOT_KNOWN)
        row, ttl_s = rows[0], TOKEN_S
        if row["expires_s"] is not None:
            ttl_s = min(ttl_s, int(row["expires_s"] - now_s))
            if ttl_s <= 0:
                raise Unauthenticated(_NOT_KNOWN)
        if not self._revoked.is_known:
            raise KeysAway("API keys cannot be checked now; try again", retry_after_s=1)
        if self._revoked.cover_since(row["user_id"], row["created_s"]):
            raise Unauthenticated(_NOT_KNOWN)
        if secret == self._secrets.also:
            # This tells operators whose services need a new key.
            logger.info("the API key %s of %s was made with %s_ALSO", key_id, row["user_id"], self._secrets.name)
        self._secrets.note(secret)
        roles = [role.value for role in Role if role.value in row["roles"]]
        token = self._signer.sign(row["user_id"], roles, ttl_s=ttl_s, api_key=key_id)
        return Given(token, row["user_id"], ttl_s)

    def _made_with(self, text: str) -> tuple[str, str]:
        """The secret with which a key was made, and the key's id."""
        for secret in self._secrets.believed():
            key_id = id_of(secret, text)
            if key_id is not None:
                return secret, key_id
        # Made up: PostgreSQL is not asked.
        raise Unauthenticated(_NOT_KNOWN)


def _key_in(headers: Iterable[tuple[bytes, bytes]]) -> str:
    found = [value for name, value in headers if name == b"authorization"]
    scheme, _, text = found[0].partition(b" ") if len(found) == 1 else (b"", b"", b"")
    if scheme.lower() != _SCHEME:
        raise Unauthenticated("this needs one API key, as Authorization: ApiKey <key>", had_token=bool(found))
    return text.strip(b" ").decode("latin-1")
