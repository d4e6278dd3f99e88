"""API keys: what one looks like, which ones were made here, and what signs the tokens that are given for them."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from shared.identity.api_keys import ApiKeySettings, digest_of, id_of, is_same, make_key
from shared.identity.errors import Unauthenticated
from shared.identity.settings import Identity, identity_of
from shared.identity.tokens import Principal, Role
from tests.unit.shared.identity.issuing import SECRET, headers_of, jwk_of, jwks, settings_of, signed

KEYED = "k" * 32


def pem_of(key: Any) -> str:
    made: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.decode()


def test_a_key_is_known_by_its_tag_and_by_its_digest() -> None:
    key = make_key(KEYED)
    assert re.fullmatch(r"bk_[A-Za-z0-9]{12}_[A-Za-z0-9]{59}", key.text)
    assert id_of(KEYED, key.text) == key.key_id
    assert is_same(key.digest, KEYED, key.text)
    assert key.digest == digest_of(KEYED, key.text)
    assert len({make_key(KEYED).text for _ in range(100)}) == 100


def test_what_was_not_made_here_is_known_without_being_looked_up() -> None:
    key = make_key(KEYED)
    other = make_key(KEYED)
    changed = key.text[:20] + ("a" if key.text[20] != "a" else "b") + key.text[21:]
    crossed = f"bk_{other.key_id}_{key.text.rpartition('_')[2]}"
    for text in ("", "bk_", key.text[:-1], f"{key.text}x", changed, crossed, key.text.upper(), f"{key.text}\n"):
        assert id_of(KEYED, text) is None, text
    assert id_of("x" * 32, key.text) is None, "of another platform"
    assert not is_same(other.digest, KEYED, key.text)


def test_a_copy_of_what_is_stored_is_no_key() -> None:
    key = make_key(KEYED)
    assert key.digest.hex() not in key.text
    assert hashlib.sha256(key.text.encode()).digest() != key.digest, "without the secret it cannot even be tried"


def test_the_secret_is_long_enough_or_absent() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        ApiKeySettings(api_key_secret="k" * 31)  # type: ignore[arg-type]
    assert not ApiKeySettings(api_key_secret="").api_key_secret  # type: ignore[arg-type]


def identity(**changes: Any) -> Identity:
    found = identity_of(settings_of(**changes))
    assert found is not None
    return found


def whom(of: Identity, token: str) -> Principal | None:
    return of.principals.of(headers_of(token))


def test_while_the_secret_of_the_issuer_is_replaced_both_are_believed_and_the_old_one_signs_until_then() -> None:
    pair = {"auth_hs256_secret": "n" * 32, "auth_hs256_secret_also": SECRET}
    before = identity(**pair, auth_hs256_secret_since="2100-01-01T00:00:00Z")
    after = identity(**pair, auth_hs256_secret_since="2020-01-01T00:00:00Z")
    old, new = identity(), identity(auth_hs256_secret="n" * 32)
    for of, others in ((before, (old, after)), (after, (new, before))):
        assert of.signer is not None
        token = of.signer.sign("ann", ["bidder"], ttl_s=60)
        for other in (of, *others):
            assert whom(other, token) is not None
        with pytest.raises(Unauthenticated):
            whom(new if of is before else old, token)
    with pytest.raises(Unauthenticated):
        whom(before, signed("x" * 32))


def test_the_secret_of_the_issuer_signs() -> None:
    of = identity()
    assert of.signer is not None
    found = whom(of, of.signer.sign("ann", ["bidder"], ttl_s=60))
    assert found is not None
    assert (found.user_id, found.roles) == ("ann", frozenset({Role.BIDDER}))
    assert found.token_id
    assert found.issued_s


def test_a_key_of_its_own_signs_beside_those_of_an_issuer() -> None:
    own, theirs = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    document = jwks(jwk_of(theirs, "theirs")).decode()
    of = identity(auth_hs256_secret="", auth_jwks=document, auth_signing_key=pem_of(own))
    assert of.signer is not None
    ours = of.signer.sign("ann", ["seller"], ttl_s=60)
    assert whom(of, ours) is not None
    assert whom(of, signed(theirs, "ES256", headers={"kid": "theirs"})) is not None
    # One that names no key is the issuer's, and is not looked for among ours.
    with pytest.raises(Unauthenticated):
        whom(of, signed(own, "ES256"))
    # Where it does not sign, nobody believes it.
    with pytest.raises(Unauthenticated):
        whom(identity(auth_hs256_secret="", auth_jwks=document), ours)
    assert identity(auth_hs256_secret="", auth_jwks=document).signer is None


def test_a_pem_may_be_on_one_line() -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    document = jwks(jwk_of(own, "x")).decode()
    line = pem_of(own).replace("\n", "\\n")
    assert identity(auth_hs256_secret="", auth_jwks=document, auth_signing_key=line).signer is not None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"auth_signing_key": "nonsense"}, "private key on P-256"),
        ({"auth_signing_key": pem_of(rsa.generate_private_key(65_537, 2_048))}, "private key on P-256"),
        ({"auth_signing_key": pem_of(ec.generate_private_key(ec.SECP384R1()))}, "private key on P-256"),
        ({"auth_signing_key": pem_of(ec.generate_private_key(ec.SECP256R1()))}, "set one of them"),
        ({"auth_signing_key_file": "/no/such/file"}, "cannot be read"),
        (
            {"auth_mode": "open", "auth_issuer": "", "auth_audience": "", "auth_hs256_secret": ""}
            | {"auth_signing_key": pem_of(ec.generate_private_key(ec.SECP256R1()))},
            "AUTH_SIGNING_KEY is set, and AUTH_MODE is open",
        ),
    ],
    ids=["none", "RSA", "P-384", "two", "no file", "open"],
)
def test_what_cannot_sign_is_told_at_the_start(changes: dict[str, Any], complaint: str) -> None:
    assert SECRET
    with pytest.raises(ValueError, match=complaint):
        settings_of(**changes)
