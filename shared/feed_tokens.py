"""Feed tokens tell the live feed who a bidder is. The operator's own site signs them, the broadcaster checks them.
Where the gateway knows who calls, its tickets do the same (:mod:`shared.identity.tickets`).

A token is a JWT (RFC 7519) with HS256: ``sub`` is the user id, ``aud`` is ``feed``, ``exp`` is required, and the claim
``maximum`` allows the bidder's own maximum to be told. Whoever has the secret can name any bidder, so only the
operator's servers may have it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import jwt

from shared import names

AUDIENCE: Final = "feed"
ALGORITHM: Final = "HS256"
SECRET_BYTES_MIN: Final = 32
"""As long as the hash (RFC 7518, section 3.2): shorter keys can be found by trying."""

LIFETIME_S: Final = 3600
"""How long a token of the gateway is valid."""


class TokenInvalid(ValueError):
    """The token is not valid, or no longer. The text says why and may be shown to the bearer."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The bidder whom a token names.

    Attributes:
        expires_s: Unix time until which the token is valid.
        sees_maximum: whether the bidder's own maximum may be told.
        issued_s: Unix time at which the token was issued, or that for which it was given; None where that is not said.
        token_id: of the token that it was given for.
    """

    user_id: str
    expires_s: int
    sees_maximum: bool = False
    issued_s: int | None = None
    token_id: str | None = None


def checked_secret(secret: str) -> str:
    """The secret itself; empty means no private channel.

    Raises:
        ValueError: the secret is too short to be safe.
    """
    if secret and len(secret.encode()) < SECRET_BYTES_MIN:
        raise ValueError(f"must have at least {SECRET_BYTES_MIN} bytes; `openssl rand -hex 32` makes a good one")
    return secret


def mint(secret: str, identity: Identity) -> str:
    """Sign a token for this identity."""
    claims: dict[str, Any] = {"aud": AUDIENCE, "sub": identity.user_id, "exp": identity.expires_s}
    if identity.sees_maximum:
        claims["maximum"] = True
    if identity.issued_s is not None:
        claims["iat"] = identity.issued_s
    if identity.token_id is not None:
        claims["jti"] = identity.token_id
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def check(secret: str, token: str, *, now_s: float | None = None) -> Identity:
    """The identity that the token names.

    Args:
        now_s: Unix time; the clock's if not given.

    Raises:
        TokenInvalid: the secret is empty or not the one that signed it; or the token is expired, for another audience,
            or its ``sub`` is not a user id.
    """
    if not secret:
        raise TokenInvalid("tokens are not believed here: FEED_TOKEN_SECRET is not set")
    try:
        # PyJWT would read its own clock; the expiry is checked below, with `now_s`.
        claims = jwt.decode(
            token,
            secret,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            options={"require": ["exp", "aud", "sub"], "verify_exp": False, "verify_iat": False},
        )
    except jwt.InvalidTokenError as error:
        raise TokenInvalid(f"the token is not valid: {error}") from None
    user_id, expires_s = claims["sub"], claims["exp"]
    if not isinstance(user_id, str) or not names.is_user_id(user_id):
        raise TokenInvalid("the token is not valid: its sub is not a user id")
    if isinstance(expires_s, bool) or not isinstance(expires_s, int | float):
        raise TokenInvalid("the token is not valid: its exp is not a number")
    # Written so that NaN, which Python's JSON accepts, counts as expired.
    if not expires_s > (time.time() if now_s is None else now_s):
        raise TokenInvalid("the token is expired; get a new one")
    issued_s, token_id = claims.get("iat"), claims.get("jti")
    return Identity(
        user_id,
        int(min(expires_s, _EXPIRES_MAX_S)),
        claims.get("maximum") is True,
        issued_s if type(issued_s) is int else None,
        token_id if isinstance(token_id, str) else None,
    )


_EXPIRES_MAX_S: Final = 253_402_300_799
"""The end of the year 9999, the latest that RFC 3339 can express."""
