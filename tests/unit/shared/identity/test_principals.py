"""Who calls: where the token may stand, what is remembered of it, and for how long."""

from __future__ import annotations

import time
from typing import Any

import pytest

from shared.identity import principals as module
from shared.identity.errors import KeysAway, Unauthenticated
from shared.identity.jwks import parse_jwks
from shared.identity.keys import FixedKeys, Secret
from shared.identity.principals import TOKEN_BYTES_MAX, Principals, bearer_token
from shared.identity.tokens import Principal, Tokens
from shared.secret_pairs import SecretPair
from tests.unit.shared.identity.issuing import AUDIENCE, ISSUER, SECRET, headers_of, jwk_of, jwks, private_key, signed


class Counted(Tokens):
    """Counts what is verified."""

    verified = 0

    def verify(self, token: str) -> Principal:
        self.verified += 1
        return super().verify(token)


class Clock:
    def __init__(self) -> None:
        self.now_s = time.time()

    def __call__(self) -> float:
        return self.now_s


def counted(keys: Any = None, **options: Any) -> tuple[Principals, Counted]:
    keys = Secret(SecretPair("AUTH_HS256_SECRET", SECRET)) if keys is None else keys
    tokens = Counted(keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=0)
    return Principals(tokens, keys, **options), tokens


def test_the_token_stands_in_one_header_alone() -> None:
    token = signed().encode()
    for value in (b"Bearer " + token, b"bearer " + token, b"BEARER  " + token + b" "):
        assert bearer_token([(b"cookie", b"token=x"), (b"authorization", value)]) == token
    assert bearer_token([(b"x-authorization", b"Bearer x"), (b"proxy-authorization", b"Bearer x")]) is None
    twice = [(b"authorization", b"Bearer " + token)] * 2
    with pytest.raises(Unauthenticated, match="one Authorization"):
        bearer_token(twice)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer a",
        b"Bearer a.b",
        b"Bearer a..c",
        b"Bearer a.b.",
        b"Bearer a.b.c.d",
        b"Bearer a.b.c d",
        b"Bearer a.b.c, Bearer d.e.f",
        b"Bearer a.b.c\xff",
        b"Bearer\ta.b.c",
        b"Basic YTpi",
        b"a.b.c",
        b"Bearer " + b"a" * TOKEN_BYTES_MAX + b".b.c",
    ],
)
def test_what_is_no_token(value: bytes) -> None:
    principals, tokens = counted()
    with pytest.raises(Unauthenticated, match="Bearer and a JWT"):
        principals.of([(b"authorization", value)])
    assert tokens.verified == 0


def test_a_token_is_verified_once() -> None:
    principals, tokens = counted()
    headers = headers_of(signed())
    assert principals.of([]) is None
    assert principals.of(headers) is principals.of(headers)
    assert tokens.verified == 1


def test_what_is_remembered_ends_with_the_token() -> None:
    clock = Clock()
    principals, tokens = counted(now_s=clock)
    headers = headers_of(signed(exp=int(clock.now_s) + 60))
    principals.of(headers)
    clock.now_s += 59
    principals.of(headers)
    clock.now_s += 2
    with pytest.raises(Unauthenticated, match="expired"):
        principals.of(headers)
    assert tokens.verified == 1


def test_refusals_are_remembered_too() -> None:
    principals, tokens = counted()
    headers = headers_of(signed("t" * 32))
    texts = set()
    for _ in range(3):
        with pytest.raises(Unauthenticated) as refused:
            principals.of(headers)
        texts.add(str(refused.value))
    assert (tokens.verified, len(texts)) == (1, 1)


def test_what_may_become_good_is_not_remembered_as_bad() -> None:
    principals, tokens = counted()
    headers = headers_of(signed(nbf=int(time.time()) + 600))
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            principals.of(headers)
    assert tokens.verified == 2


def test_both_memories_are_bounded() -> None:
    principals, tokens = counted(known_max=3, refused_max=2)
    good = [headers_of(signed(sub=f"u{number}")) for number in range(5)]
    bad = [headers_of(signed("t" * 32, sub=f"u{number}")) for number in range(5)]
    for headers in good:
        principals.of(headers)
    for headers in bad:
        with pytest.raises(Unauthenticated):
            principals.of(headers)
    assert (len(principals._known), len(principals._refused)) == (3, 2)
    before = tokens.verified
    assert [principals.of(headers) is not None for headers in good[2:]] == [True] * 3
    assert tokens.verified == before
    principals.of(good[0])
    assert tokens.verified == before + 1


def test_a_flood_of_refusals_pushes_out_nobody_who_is_known() -> None:
    principals, tokens = counted(refused_max=2)
    known = headers_of(signed())
    principals.of(known)
    for number in range(20):
        with pytest.raises(Unauthenticated):
            principals.of(headers_of(signed("t" * 32, sub=f"u{number}")))
    before = tokens.verified
    principals.of(known)
    assert tokens.verified == before


def test_a_token_that_is_respelt_takes_one_place_and_is_verified_once() -> None:
    """Otherwise one caller could push out all others, by blanks."""
    principals, tokens = counted(known_max=2)
    other = headers_of(signed(sub="other"))
    principals.of(other)
    token = signed().encode()
    for number in range(1, 10):
        for scheme in (b"Bearer", b"bearer", b"BEARER"):
            found = principals.of([(b"authorization", scheme + b" " * number + token + b" " * (number - 1))])
            assert found is not None
    principals.of(other)
    assert (len(principals._known), tokens.verified) == (2, 2)


def test_a_respelt_token_ends_as_well() -> None:
    clock = Clock()
    principals, _ = counted(now_s=clock)
    token = signed(exp=int(clock.now_s) + 60).encode()
    for value in (b"Bearer " + token, b"bearer  " + token):
        principals.of([(b"authorization", value)])
    clock.now_s += 61
    for value in (b"bearer  " + token, b"Bearer " + token):
        with pytest.raises(Unauthenticated, match="expired"):
            principals.of([(b"authorization", value)])


def test_no_token_is_kept() -> None:
    principals, _ = counted()
    token = signed()
    principals.of(headers_of(token))
    assert token not in repr(principals._known)
    assert token.encode() not in principals._known


def test_when_the_keys_change_all_is_asked_anew() -> None:
    """1. A key is withdrawn, since somebody has stolen it. 2. The thief's token must not live on in the memory."""

    class Changing(FixedKeys):
        def change(self, *kinds: str) -> None:
            self._keys = parse_jwks(jwks(*(jwk_of(private_key(kind), kind) for kind in kinds)))
            self.version += 1

    keys = Changing(parse_jwks(jwks(jwk_of(private_key("ES256"), "ES256"))))
    principals, _ = counted(keys)
    old = headers_of(signed(private_key("ES256"), "ES256", headers={"kid": "ES256"}))
    new = headers_of(signed(private_key("EdDSA"), "EdDSA", headers={"kid": "EdDSA"}))
    assert principals.of(old) is not None
    with pytest.raises(Unauthenticated):
        principals.of(new)
    keys.change("EdDSA")
    assert principals.of(new) is not None
    with pytest.raises(Unauthenticated):
        principals.of(old)


def test_that_keys_are_away_is_not_remembered() -> None:
    class Away(Secret):
        is_away = True

        def find(self, kid: str | None, algorithm: str) -> Any:
            if self.is_away:
                raise KeysAway("away", retry_after_s=1)
            return super().find(kid, algorithm)

    keys = Away(SecretPair("AUTH_HS256_SECRET", SECRET))
    principals, _ = counted(keys)
    headers = headers_of(signed())
    with pytest.raises(KeysAway):
        principals.of(headers)
    keys.is_away = False
    assert principals.of(headers) is not None
    assert module.KNOWN_MAX > module.REFUSED_MAX
