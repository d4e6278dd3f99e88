"""Which tokens are believed: those of the issuer, for us, in time, with the algorithm that its key is for."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.identity.errors import Unauthenticated
from shared.identity.jwks import KEYS_MAX, JwksInvalid, parse_jwks
from shared.identity.keys import FixedKeys, Secret
from shared.identity.tokens import Principal, Role, Tokens
from shared.secret_pairs import SecretPair
from tests.unit.shared.identity.issuing import AUDIENCE, ISSUER, SECRET, claims, jwk_of, jwks, private_key, signed

# The time at which tests are collected; a whole run may take half an hour.
NOW = int(time.time())
KINDS = ("ES256", "EdDSA", "RS256")


def by_secret(leeway_s: int = 0) -> Tokens:
    return Tokens(Secret(SecretPair("AUTH_HS256_SECRET", SECRET)), issuer=ISSUER, audience=AUDIENCE, leeway_s=leeway_s)


def by_keys(*kinds: str) -> Tokens:
    keys = FixedKeys(parse_jwks(jwks(*(jwk_of(private_key(kind), kind) for kind in kinds))))
    return Tokens(keys, issuer=ISSUER, audience=AUDIENCE, leeway_s=0)


def raw(header: Any, body: Any, key: bytes = SECRET.encode()) -> str:
    """A token that no library would make, with a valid HMAC."""

    def text(part: Any) -> bytes:
        content = part if isinstance(part, bytes) else json.dumps(part).encode()
        return base64.urlsafe_b64encode(content).rstrip(b"=")

    signing = text(header) + b"." + text(body)
    return (signing + b"." + text(hmac.new(key, signing, hashlib.sha256).digest())).decode()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_key_vouches_with_its_algorithm(kind: str) -> None:
    token = signed(private_key(kind), kind, headers={"kid": kind}, roles=["seller", "bidder", "of another application"])
    found = by_keys(*KINDS).verify(token)
    assert (found.user_id, set(found.roles)) == ("ann", {Role.SELLER, Role.BIDDER})


def test_a_secret_vouches_with_hs256() -> None:
    exp = NOW + 86_400
    assert by_secret().verify(signed(exp=exp, roles=["auditor"])) == Principal("ann", frozenset({Role.AUDITOR}), exp)
    assert by_secret().verify(signed(aud=["else", AUDIENCE], roles=None)).roles == frozenset()


@pytest.mark.parametrize("kind", KINDS)
def test_a_public_key_is_no_secret(kind: str) -> None:
    """Whoever has read the keys of an issuer must not be able to sign with them."""
    public = private_key(kind).public_key()
    for form in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk_of(private_key(kind), kind)).encode(),
    ):
        token = raw({"alg": "HS256", "typ": "JWT", "kid": kind}, claims(), form)
        with pytest.raises(Unauthenticated):
            by_keys(*KINDS).verify(token)


def test_a_key_counts_for_its_own_algorithm_alone() -> None:
    rs512 = signed(private_key("RS256"), "RS512", headers={"kid": "RS256"})
    ps256 = signed(private_key("RS256"), "PS256", headers={"kid": "RS256"})
    says_es256 = raw({"alg": "ES256", "kid": "RS256"}, claims())
    for token in (rs512, ps256, says_es256, signed(private_key("ES256"), "ES256", headers={"kid": "EdDSA"})):
        with pytest.raises(Unauthenticated):
            by_keys(*KINDS).verify(token)
    with pytest.raises(Unauthenticated):
        by_secret().verify(signed(private_key("ES256"), "ES256"))


def test_without_an_id_the_only_key_of_the_algorithm_is_meant() -> None:
    token = signed(private_key("ES256"), "ES256")
    assert by_keys(*KINDS).verify(token).user_id == "ann"
    two = jwks(jwk_of(private_key("ES256"), "a"), jwk_of(ec.generate_private_key(ec.SECP256R1()), "b"))
    with pytest.raises(Unauthenticated, match="not known here"):
        Tokens(FixedKeys(parse_jwks(two)), issuer=ISSUER, audience=AUDIENCE, leeway_s=0).verify(token)


BAD = {
    "another secret": signed("t" * 32),
    "HS512": signed(SECRET * 2, "HS512"),
    "none": jwt.encode(claims(), "", algorithm="none"),
    "None": raw({"alg": "None"}, claims()),
    "no alg": raw({"typ": "JWT"}, claims()),
    "alg is a list": raw({"alg": ["HS256"]}, claims()),
    "alg is a number": raw({"alg": 256}, claims()),
    "kid is a list": raw({"alg": "HS256", "kid": ["a"]}, claims()),
    "kid is an object": raw({"alg": "HS256", "kid": {}}, claims()),
    "crit": raw({"alg": "HS256", "crit": ["exp"]}, claims()),
    "b64": raw({"alg": "HS256", "b64": False, "crit": ["b64"]}, claims()),
    "crit without need": raw({"alg": "HS256", "b64": True, "crit": ["b64"]}, claims()),
    "a header that nests": raw(b"[" * 3_000, claims()),
    "a body that nests": raw({"alg": "HS256"}, b"[" * 3_000),
    "a header that is a list": raw([], claims()),
    "a body that is a list": raw({"alg": "HS256"}, []),
    "a body that is no text": raw({"alg": "HS256"}, b"\xff\xfe"),
    "another issuer": signed(iss="https://issuer.example/"),
    "issuers": raw({"alg": "HS256"}, claims(iss=[ISSUER])),
    "no issuer": signed(iss=None),
    "another audience": signed(aud="feed"),
    "audience is an object": raw({"alg": "HS256"}, claims(aud={AUDIENCE: 1})),
    "no audience": signed(aud=None),
    "no sub": signed(sub=None),
    "sub with a space": signed(sub="an n"),
    "sub with a line break": signed(sub="ann\n"),
    "sub of dots": signed(sub=".."),
    "empty sub": signed(sub=""),
    "long sub": signed(sub="x" * 65),
    "sub is a number": raw({"alg": "HS256"}, claims(sub=7)),
    "sub in other letters": signed(sub="\u0430nn"),
    "expired": signed(exp=NOW - 1),
    "no exp": signed(exp=None),
    "exp is a text": raw({"alg": "HS256"}, claims(exp=str(NOW + 600))),
    "exp is true": raw({"alg": "HS256"}, claims(exp=True)),
    "exp is NaN": raw({"alg": "HS256"}, claims(exp=float("nan"))),
    "exp is infinite": raw({"alg": "HS256"}, claims(exp=float("inf"))),
    "exp is negative without bound": raw({"alg": "HS256"}, claims(exp=-(10**400))),
    "exp is a list": raw({"alg": "HS256"}, claims(exp=[NOW + 600])),
    "exp has many digits": raw(
        {"alg": "HS256"}, json.dumps(claims(exp=7)).replace('"exp": 7', '"exp": 1' + "0" * 5_000).encode()
    ),
    "not yet": signed(nbf=NOW + 600),
    "nbf is a text": raw({"alg": "HS256"}, claims(nbf="soon")),
    "nbf is infinite": raw({"alg": "HS256"}, claims(nbf=float("inf"))),
    "made later": signed(iat=NOW + 600),
    "roles are a text": signed(roles="operator"),
    "roles are numbers": signed(roles=[1]),
    "roles are an object": raw({"alg": "HS256"}, claims(roles={"operator": True})),
    "the signature of another": signed().rpartition(".")[0] + "." + signed(sub="bob").rpartition(".")[2],
    "a cut signature": signed()[:-8],
}


@pytest.mark.parametrize("token", BAD.values(), ids=BAD)
def test_what_is_not_believed(token: str) -> None:
    with pytest.raises(Unauthenticated):
        by_secret().verify(token)


def test_clocks_may_differ_by_the_leeway() -> None:
    now_s = int(time.time())
    late: tuple[dict[str, Any], ...] = ({"exp": now_s - 20}, {"nbf": now_s + 20}, {"iat": now_s + 20})
    for changes in late:
        assert by_secret(leeway_s=60).verify(signed(**changes)).user_id == "ann"
        with pytest.raises(Unauthenticated):
            by_secret(leeway_s=5).verify(signed(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"alg": "ES384"},
        {"alg": None},
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"kid": 7},
        {"kid": "x" * 300},
        {"crv": "P-384"},
        {"crv": ["P-256"]},
        {"kty": "oct"},
        {"kty": None},
        {"x": "AAAA"},
        {"x": 7},
    ],
    ids=itertools.count(),
)
def test_keys_of_other_kinds_are_left_out(changes: dict[str, Any]) -> None:
    other = jwk_of(private_key("ES256"), "a", **changes)
    assert len(parse_jwks(jwks(other, jwk_of(private_key("EdDSA"), "b")))) == 1
    with pytest.raises(JwksInvalid, match="must have a public key"):
        parse_jwks(jwks(other))


def test_what_is_no_key_set() -> None:
    good = jwk_of(private_key("ES256"), "a")
    small = rsa.generate_private_key(65_537, 1_024)
    documents = [b"", b"[]", b"7", b"{}", b'{"keys":{}}', b"[" * 9_000, b"\xff", jwks(), jwks(*[good] * (KEYS_MAX + 1))]
    for document in (*documents, jwks(jwk_of(small, "a")), b'{"keys":[7,null,[]]}'):
        with pytest.raises(JwksInvalid):
            parse_jwks(document)


def test_a_private_key_in_a_key_set_is_told() -> None:
    """It is public then, or about to be."""
    for member in ({"d": "AAAA"}, {"k": "AAAA"}):
        with pytest.raises(JwksInvalid, match="public keys alone"):
            parse_jwks(jwks(jwk_of(private_key("EdDSA"), "b"), jwk_of(private_key("ES256"), "a", **member)))
