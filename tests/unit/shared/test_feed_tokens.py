"""Tokens of bidders: what is believed, and what is not."""

from __future__ import annotations

import itertools
import time
from typing import Any

import jwt
import pytest

from shared.feed_tokens import AUDIENCE, Identity, TokenInvalid, check, checked_secret, mint

SECRET = "s" * 32
LATER = int(time.time()) + 100_000
CLAIMS: dict[str, Any] = {"aud": AUDIENCE, "sub": "ann", "exp": LATER}


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


@pytest.mark.parametrize("sees_maximum", [True, False])
def test_what_is_minted_is_believed(sees_maximum: bool) -> None:
    identity = Identity("ann.b@c-d", LATER, sees_maximum=sees_maximum)
    assert check(SECRET, mint(SECRET, identity)) == identity


def test_a_token_that_another_program_signed_is_believed() -> None:
    assert check(SECRET, signed(iat=1, maximum=True)) == Identity("ann", LATER, sees_maximum=True, issued_s=1)
    assert check(SECRET, signed(aud=["site", AUDIENCE], exp=LATER + 0.5)) == Identity("ann", LATER)


@pytest.mark.parametrize("claim", ["true", 1, None])
def test_only_true_allows_the_maximum(claim: object) -> None:
    assert check(SECRET, signed(maximum=claim)).sees_maximum is False


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        signed("t" * 32),
        signed(algorithm="HS512", secret=SECRET * 2),
        jwt.encode(CLAIMS, "", algorithm="none"),
        signed(aud="gateway"),
        signed(aud=None),
        signed(sub=None),
        signed(sub="white space"),
        signed(sub="x" * 65),
        signed(exp=None),
        signed(exp=int(time.time()) - 1),
        signed(exp=float("nan")),
        signed(nbf=LATER),
    ],
    # Tokens differ from run to run, and the parts of a run that is spread over processes must agree on the names.
    ids=itertools.count(),
)
def test_anything_else_is_not(token: str) -> None:
    with pytest.raises(TokenInvalid):
        check(SECRET, token)


def test_a_token_is_good_until_it_expires_and_no_longer() -> None:
    token = signed()
    assert check(SECRET, token, now_s=LATER - 0.001).user_id == "ann"
    with pytest.raises(TokenInvalid, match="expired"):
        check(SECRET, token, now_s=LATER)


def test_without_a_secret_nothing_is_believed_and_the_text_says_why() -> None:
    with pytest.raises(TokenInvalid, match="FEED_TOKEN_SECRET"):
        check("", signed())


def test_a_secret_is_long_enough_or_absent() -> None:
    assert checked_secret("") == ""
    assert checked_secret("é" * 16) == "é" * 16
    with pytest.raises(ValueError, match="32 bytes"):
        checked_secret("s" * 31)
