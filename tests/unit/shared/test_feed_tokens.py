"""Tokens of bidders: what is believed, and what is not."""

from __future__ import annotations

import itertools
import time
from typing import Any

import jwt
import pytest
from pydantic import SecretStr

from shared.feed_tokens import AUDIENCE, FeedTokenSettings, Identity, TokenInvalid, check, mint
from shared.secret_pairs import SecretPair

SECRET = "s" * 32
SECRETS = SecretPair("FEED_TOKEN_SECRET", SECRET)
LATER = int(time.time()) + 100_000
CLAIMS: dict[str, Any] = {"aud": AUDIENCE, "sub": "ann", "exp": LATER}


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return jwt.encode(claims, secret, algorithm=algorithm)


@pytest.mark.parametrize("sees_maximum", [True, False])
def test_what_is_minted_is_believed(sees_maximum: bool) -> None:
    identity = Identity("ann.b@c-d", LATER, sees_maximum=sees_maximum)
    assert check(SECRETS, mint(SECRET, identity)) == identity


def test_a_token_that_another_program_signed_is_believed() -> None:
    assert check(SECRETS, signed(iat=1, maximum=True)) == Identity("ann", LATER, sees_maximum=True, issued_s=1)
    assert check(SECRETS, signed(aud=["site", AUDIENCE], exp=LATER + 0.5)) == Identity("ann", LATER)


@pytest.mark.parametrize("claim", ["true", 1, None])
def test_only_true_allows_the_maximum(claim: object) -> None:
    assert check(SECRETS, signed(maximum=claim)).sees_maximum is False


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
        check(SECRETS, token)


def test_a_token_is_good_until_it_expires_and_no_longer() -> None:
    token = signed()
    assert check(SECRETS, token, now_s=LATER - 0.001).user_id == "ann"
    with pytest.raises(TokenInvalid, match="expired"):
        check(SECRETS, token, now_s=LATER)


def test_without_a_secret_nothing_is_believed_and_the_text_says_why() -> None:
    with pytest.raises(TokenInvalid, match="FEED_TOKEN_SECRET"):
        check(SecretPair("FEED_TOKEN_SECRET", ""), signed())


def test_a_secret_is_long_enough_or_absent() -> None:
    for secret in ("", "é" * 16):
        assert FeedTokenSettings(feed_token_secret=SecretStr(secret)).feed_token_secrets.secret == secret
    with pytest.raises(ValueError, match="at least 32 bytes"):
        FeedTokenSettings(feed_token_secret=SecretStr("s" * 31))


def test_while_it_is_replaced_both_are_believed_and_the_old_one_is_counted() -> None:
    both = SecretPair("FEED_TOKEN_SECRET", SECRET, "o" * 32, LATER)
    assert check(both, signed()).user_id == "ann"
    assert both.also_used == 0
    assert check(both, signed("o" * 32)).user_id == "ann"
    assert both.also_used == 1
    for token in (signed("t" * 32), signed("o" * 32, exp=1)):
        with pytest.raises(TokenInvalid):
            check(both, token)
