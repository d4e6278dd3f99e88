"""Tokens: JWTs (RFC 7519) of one issuer for one audience. PyJWT verifies; what is believed of one is decided here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

import jwt

from shared import names
from shared.identity.api_keys import is_key_id
from shared.identity.errors import KeysAway, Unauthenticated
from shared.identity.keys import Keys

ROLES_CLAIM: Final = "roles"
CLIENT_CLAIM: Final = "client_id"
"""The id of the API key for which the platform gave a token (RFC 8693, section 4.3). Others may use it otherwise."""
_EXPIRES_MAX_S: Final = 253_402_300_799
"""The end of the year 9999, the latest that RFC 3339 can express."""
_NOT_VALID: Final = "the token is not valid"


class Role(StrEnum):
    """What somebody may be here. One principal may have several roles."""

    BIDDER = "bidder"
    SELLER = "seller"
    OPERATOR = "operator"
    AUDITOR = "auditor"


class Vouching(NamedTuple):
    """What a token was signed with: a key, and how it was found."""

    kid: str | None
    algorithm: str
    key: Any


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a token names.

    Attributes:
        user_id: who it is; a valid user id.
        roles: of those that are known here.
        expires_s: Unix time until which the token is valid. issued_s: Unix time at which it was issued; 0 where it does
        not say.
        token_id: its ``jti``; empty where it has none.
        api_key: the id of the API key for which it was given; empty where it was given for none.
        vouching: what it was signed with; None where nobody has asked for a signature.
    """

    user_id: str
    roles: frozenset[Role]
    expires_s: int
    issued_s: int = 0
    token_id: str = ""
    api_key: str = ""
    # Not compared, since it says nothing about who the principal is. Not shown, since the key may be a secret.
    vouching: Vouching | None = field(default=None, compare=False, repr=False)


class Tokens:
    """Verifies tokens."""

    def __init__(self, keys: Keys, *, issuer: str, audience: str, leeway_s: int) -> None:
        """``leeway_s``: by how much the clocks of the issuer and of this machine may differ."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self.leeway_s = leeway_s

    def verify(self, token: str) -> Principal:
        """The principal whom a token names.

        Raises:
            Unauthenticated: it is not believed.
            KeysAway: whether it is good cannot be told now.
        """
        keys, kid, algorithm = self._find(token)
        try:
            claims, key = self._claims(token, keys, algorithm)
        except jwt.ExpiredSignatureError:
            raise Unauthenticated(EXPIRED) from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("the token is not valid yet", is_lasting=False) from None
        except jwt.InvalidAudienceError:
            raise Unauthenticated(f"{_NOT_VALID}: it is meant for another audience") from None
        except jwt.InvalidIssuerError:
            raise Unauthenticated(f"{_NOT_VALID}: it is of another issuer") from None
        except jwt.MissingRequiredClaimError as error:
            raise Unauthenticated(f"{_NOT_VALID}: it has no {error.claim}") from None
        except (jwt.PyJWTError, ArithmeticError, ValueError, TypeError, RecursionError):
            # Numbers out of all bounds, and the like: not all of it becomes an error of PyJWT.
            raise Unauthenticated(_NOT_VALID) from None
        return _principal(claims, Vouching(kid, algorithm, key))

    def vouched(self, principal: Principal) -> bool:
        """Whether what a principal's token was signed with is still believed. False where that cannot be told now."""
        vouching = principal.vouching
        if vouching is None:
            return True
        try:
            return vouching.key in self._keys.find(vouching.kid, vouching.algorithm)
        except (Unauthenticated, KeysAway):
            return False

    def _claims(self, token: str, keys: Sequence[Any], algorithm: str) -> tuple[dict[str, Any], Any]:
        """What it says, and the key with which it is signed."""
        refusal: jwt.PyJWTError = jwt.InvalidSignatureError("there is no key")
        for key in keys:
            try:
                claims: dict[str, Any] = jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=self._issuer,
                    audience=self._audience,
                    leeway=self.leeway_s,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
            except jwt.InvalidSignatureError as error:
                refusal = error  # another key may have signed it
            else:
                self._keys.note(key)
                return claims, key
        raise refusal

    def _find(self, token: str) -> tuple[Sequence[Any], str | None, str]:
        """The keys that the token may be signed with, its word for them, and the algorithm which they are for."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Unauthenticated(_NOT_VALID) from None
        algorithm, kid = header.get("alg"), header.get("kid")
        if "crit" in header or "b64" in header:
            raise Unauthenticated(f"{_NOT_VALID}: it demands what is not supported here")
        if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
            raise Unauthenticated(_NOT_VALID)
        # The token's word for the algorithm only selects among keys that are each for one algorithm alone.
        return self._keys.find(kid, algorithm), kid, algorithm


EXPIRED: Final = "the token is expired; get a new one"


def _principal(claims: dict[str, Any], vouching: Vouching) -> Principal:
    user_id, expires_s, roles = claims["sub"], claims["exp"], claims.get(ROLES_CLAIM, [])
    if not isinstance(user_id, str) or not names.is_user_id(user_id):
        raise Unauthenticated(f"{_NOT_VALID}: its sub is not a user id")
    is_number = isinstance(expires_s, int | float) and not isinstance(expires_s, bool)
    # An integer has no bound here, and is always finite.
    if not is_number or (isinstance(expires_s, float) and not math.isfinite(expires_s)):
        raise Unauthenticated(f"{_NOT_VALID}: its exp is not a number")
    if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
        raise Unauthenticated(f"{_NOT_VALID}: its {ROLES_CLAIM} is not a list of texts")
    known = frozenset(role for role in Role if role.value in roles)
    token_id = claims.get("jti", "")
    if not isinstance(token_id, str):
        raise Unauthenticated(f"{_NOT_VALID}: its jti is not a text")
    # PyJWT has seen that it is a number, and not ahead.
    issued_s = int(claims.get("iat", 0))
    # What else an issuer may say there is nothing to anybody here.
    client = claims.get(CLIENT_CLAIM)
    api_key = client if isinstance(client, str) and is_key_id(client) else ""
    return Principal(user_id, known, int(min(expires_s, _EXPIRES_MAX_S)), issued_s, token_id, api_key, vouching)
