"""Which tokens a revocation covers, and that what is known of them is bounded."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.identity import revocations as module
from shared.identity.errors import KeysAway, Unauthenticated
from shared.identity.keys import Secret
from shared.identity.principals import Principals
from shared.identity.revocations import Revocation, Revocations
from shared.identity.tokens import Principal, Tokens
from shared.secret_pairs import SecretPair
from tests.unit.shared.identity.issuing import AUDIENCE, ISSUER, SECRET, headers_of, signed


def known(*, leeway_s: int = 0, now_s: float = 0, **found: Revocation) -> Revocations:
    revocations = Revocations(leeway_s=leeway_s, now_s=lambda: now_s)
    revocations.add({name.replace("_", ":", 1): one for name, one in found.items()})
    return revocations


def issued(at_s: int, *, user_id: str = "ann", token_id: str = "") -> Principal:
    return Principal(user_id, frozenset(), 2_000, at_s, token_id)


def test_all_tokens_of_a_user_until_a_moment() -> None:
    revocations = known(u_ann=Revocation(100, 5_000))
    assert revocations.cover(issued(100))
    assert revocations.cover(issued(7))
    assert not revocations.cover(issued(101))
    assert not revocations.cover(issued(7, user_id="bob"))
    assert revocations.cover(issued(0)), "one that does not say when it was issued"


def test_the_issuer_s_clock_may_be_ahead() -> None:
    revocations = known(leeway_s=30, u_ann=Revocation(100, 5_000))
    assert revocations.cover(issued(130))
    assert not revocations.cover(issued(131))


def test_one_token() -> None:
    revocations = known(t_x1=Revocation(100, 5_000))
    assert revocations.cover(issued(100, token_id="x1"))
    assert not revocations.cover(issued(100, token_id="x2"))
    assert not revocations.cover(issued(100))
    # The name of a user is none of a token.
    assert not known(t_ann=Revocation(100, 5_000)).cover(issued(1))
    assert not known(u_x1=Revocation(100, 5_000)).cover(issued(1, token_id="x1"))


def test_all_tokens_of_an_api_key_whenever_they_were_issued() -> None:
    revocations = known(a_abcdefghijkl=Revocation(100, 5_000))
    of_key = Principal("ann", frozenset(), 2_000, 400, "", "abcdefghijkl")
    assert revocations.cover(of_key)
    assert not revocations.cover(replace(of_key, api_key="abcdefghijkm"))
    assert not revocations.cover(issued(7, user_id="abcdefghijkl", token_id="abcdefghijkl"))


def test_what_was_given_before_a_signing_key_was_withdrawn() -> None:
    revocations = known(leeway_s=30, k_f00=Revocation(100, 5_000))
    assert revocations.cover_signer("f00", 130)
    assert not revocations.cover_signer("f00", 131), "it is believed again"
    assert not revocations.cover_signer("f01", 1)


def test_a_later_one_holds_and_an_earlier_one_takes_nothing_back() -> None:
    revocations = known(u_ann=Revocation(100, 5_000))
    revocations.add({"u:ann": Revocation(50, 9_000)})
    assert revocations.cover(issued(100))
    revocations.add({"u:ann": Revocation(200, 5_100)})
    assert revocations.cover(issued(200))


def test_what_holds_no_more_is_not_taken_and_the_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(known(now_s=10, u_ann=Revocation(1, 10))) == 0
    monkeypatch.setattr(module, "REVOCATIONS_MAX", 3)
    revocations = known()
    for number in range(10):
        revocations.add({f"u:{number}": Revocation(number, 1_000 + number)})
    assert set(revocations.lasting) == {"u:7", "u:8", "u:9"}


def principals_of(revocations: Revocations) -> Principals:
    keys = Secret(SecretPair("AUTH_HS256_SECRET", SECRET))
    tokens = Tokens(keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=0)
    return Principals(tokens, keys, revocations=revocations)


def test_a_token_that_is_remembered_is_refused_once_it_is_revoked() -> None:
    revocations = known()
    revocations.is_known = True
    principals = principals_of(revocations)
    ann, bob = headers_of(signed(iat=100, jti="a")), headers_of(signed(sub="bob", iat=100, jti="b"))
    for _ in range(2):
        assert principals.of(ann) is not None
    revocations.add({"u:ann": Revocation(100, 5_000)})
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="revoked"):
            principals.of(ann)
    assert principals.of(headers_of(signed(iat=101))) is not None
    assert principals.of(bob) is not None
    revocations.add({"t:b": Revocation(100, 5_000)})
    with pytest.raises(Unauthenticated, match="revoked"):
        principals.of(bob)


def test_before_revocations_are_read_nobody_is_believed() -> None:
    principals = principals_of(known())
    with pytest.raises(KeysAway):
        principals.of(headers_of(signed()))
    with pytest.raises(Unauthenticated):
        principals.of(headers_of(signed(key="x" * 32)))


@pytest.mark.parametrize("jti", [7, ["x"], {"a": 1}])
def test_an_id_that_is_no_text_is_none(jti: object) -> None:
    revocations = known()
    revocations.is_known = True
    with pytest.raises(Unauthenticated):
        principals_of(revocations).of(headers_of(signed(jti=jti)))
