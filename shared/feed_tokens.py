"""Feed tokens tell the live feed who a bidder is. The operator's own site signs them, the broadcaster checks them.
Where the gateway knows who calls, its tickets do the same (:mod:`shared.identity.tickets`).

A token is a JWT (RFC 7519) with HS256: ``sub`` is the user id, ``aud`` is ``feed``, ``exp`` is required, and the claim
``maximum`` allows the bidder's own maximum to be told. Whoever has the secret can name any bidder, so only the
operator's servers may have it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import jwt
from pydantic import SecretStr, model_validator

from shared import names
from shared.secret_pairs import LongSecret, SecretPair, pair_of
from shared.settings import EnvironmentSettings

AUDIENCE: Final = "feed"
ALGORITHM: Final = "HS256"
_API_KEY: Final = "client_id"
_SIGNER: Final = "signer"
_GIVEN: Final = "given"
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
        issued_s: Unix time at which the token was issued; of a feed token that the gateway gave in exchange, that of
        the token of the caller. None where the token does not say.
        token_id: the `jti` of the token of the caller, in exchange for which it was given.
        api_key: the id of the API key for which that token was given.
        signer: the name of the key that signed that token; None where that key is a secret.
        given_s: Unix time at which the gateway gave this in exchange.

    A new attribute has a default: gateways and broadcasters of two versions run side by side.
    """

    user_id: str
    expires_s: int
    sees_maximum: bool = False
    issued_s: int | None = None
    token_id: str | None = None
    api_key: str | None = None
    signer: str | None = None
    given_s: int | None = None


class FeedTokenSettings(EnvironmentSettings):
    """``feed_token_secret``: the key that signs feed tokens, at least 32 bytes; empty: none is believed.
    ``feed_token_secret_also``, ``feed_token_secret_since``: the one that it replaces, and when (decision 0074)."""

    feed_token_secret: LongSecret = SecretStr("")
    feed_token_secret_also: LongSecret = SecretStr("")
    feed_token_secret_since: str = ""

    @model_validator(mode="after")
    def _feed_secrets_make_sense(self) -> Self:
        pair_of(self, "feed_token_secret")
        return self

    @cached_property
    def feed_token_secrets(self) -> SecretPair:
        """Both secrets, with a count of how often the one that is being replaced was needed."""
        return pair_of(self, "feed_token_secret")


def mint(secret: str, identity: Identity) -> str:
    """Sign a token for this identity."""
    claims: dict[str, Any] = {"aud": AUDIENCE, "sub": identity.user_id, "exp": identity.expires_s}
    if identity.sees_maximum:
        claims["maximum"] = True
    if identity.issued_s is not None:
        claims["iat"] = identity.issued_s
    if identity.token_id is not None:
        claims["jti"] = identity.token_id
    for claim, value in ((_API_KEY, identity.api_key), (_SIGNER, identity.signer), (_GIVEN, identity.given_s)):
        if value is not None:
            claims[claim] = value
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def check(secrets: SecretPair, token: str, *, now_s: float | None = None) -> Identity:
    """The identity that the token names.

    Args:
        secrets: one of these must have signed it. now_s: Unix time; the clock's if not given.

    Raises:
        TokenInvalid: there is no secret, or none of them signed it; or the token is expired, for another audience,
            or its ``sub`` is not a user id.
    """
    if not secrets:
        raise TokenInvalid("tokens are not believed here: FEED_TOKEN_SECRET is not set")
    try:
        claims = _claims(secrets, token)
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
        _text(claims.get(_API_KEY)),
        _text(claims.get(_SIGNER)),
        given_s if type(given_s := claims.get(_GIVEN)) is int else None,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _claims(secrets: SecretPair, token: str) -> dict[str, Any]:
    refusal: jwt.InvalidTokenError = jwt.InvalidSignatureError("there is no secret")
    for secret in secrets.believed():
        try:
            # PyJWT would read its own clock; the expiry is checked with `now_s`.
            claims: dict[str, Any] = jwt.decode(
                token,
                secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["exp", "aud", "sub"], "verify_exp": False, "verify_iat": False},
            )
        except jwt.InvalidSignatureError as error:
            refusal = error  # the other one may have signed it
        else:
            secrets.note(secret)
            return claims
    raise refusal


_EXPIRES_MAX_S: Final = 253_402_300_799
"""The end of the year 9999, the latest that RFC 3339 can express."""
