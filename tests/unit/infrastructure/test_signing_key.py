"""The issuer of the embedded stack: its key, the tokens of the command and of the demo, and what services are given."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from infrastructure.local import cli
from infrastructure.local.demo.tokens import Tokens
from infrastructure.local.errors import StackError
from infrastructure.local.servers.ports import Ports
from infrastructure.local.signing_key import signed_token, signing_key
from infrastructure.local.stack import Stack
from load_tests.run import command as run
from shared.identity.errors import Unauthenticated
from shared.identity.principals import Principals
from shared.identity.settings import IdentitySettings, identity_of
from shared.identity.tokens import Principal, Role

AUTH = (
    "AUTH_MODE",
    "AUTH_ISSUER",
    "AUTH_AUDIENCE",
    "AUTH_JWKS_URL",
    "AUTH_JWKS_FILE",
    "AUTH_JWKS",
    "AUTH_HS256_SECRET",
)


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in AUTH:
        monkeypatch.delenv(name, raising=False)


def bidding(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def principals_of(environment: dict[str, str]) -> Principals:
    """The principals that a service with this environment knows."""
    given: dict[str, Any] = {name.lower(): environment[name] for name in AUTH if environment.get(name)}
    identity = identity_of(IdentitySettings(**given))
    assert identity is not None
    return identity.principals


def whom(environment: dict[str, str], token: str) -> Principal | None:
    return principals_of(environment).of([(b"authorization", f"Bearer {token}".encode())])


def test_a_data_directory_keeps_its_key_for_its_owner_alone(tmp_path: Path) -> None:
    key = signing_key(tmp_path / "new")
    assert signing_key(tmp_path / "new").private_numbers() == key.private_numbers()
    assert signing_key(tmp_path / "other").private_numbers() != key.private_numbers()
    [path] = (tmp_path / "new").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"])
def test_a_key_that_cannot_be_used_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "auth-signing-key").write_bytes(content)
    with pytest.raises(StackError, match=r"Others may read the key .* chmod 600"):
        signing_key(tmp_path)
    (tmp_path / "auth-signing-key").chmod(0o600)
    with pytest.raises(StackError, match=r"auth-signing-key cannot be read\. Remove the file"):
        signing_key(tmp_path)


def test_by_default_there_is_no_key(tmp_path: Path) -> None:
    environment = Stack(tmp_path, ports=Ports()).service_env
    assert not any(environment.get(name) for name in AUTH)
    assert (environment["OPEN_CATALOGUE"], environment["OPEN_IDENTITY"]) == ("true", "true")
    assert not (tmp_path / "auth-signing-key").exists()


def test_services_are_given_the_public_half_alone(tmp_path: Path) -> None:
    environment = Stack(tmp_path, ports=Ports(), env={"AUTH_MODE": "jwt"}).service_env
    (jwk,) = json.loads(environment["AUTH_JWKS"])["keys"]
    assert set(jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert (environment["OPEN_CATALOGUE"], environment["OPEN_IDENTITY"]) == ("false", "false")
    token = signed_token(signing_key(tmp_path), "ann", ["seller"], ttl_s=60, environment={})
    found = whom(environment, token)
    assert found is not None
    assert (found.user_id, set(found.roles)) == ("ann", {Role.SELLER})
    other = signed_token(signing_key(tmp_path / "other"), "ann", ["seller"], ttl_s=60, environment={})
    with pytest.raises(Unauthenticated):
        whom(environment, other)


def test_an_issuer_from_outside_wins_and_no_key_is_made(tmp_path: Path) -> None:
    secret = {"AUTH_MODE": "jwt", "AUTH_HS256_SECRET": "s" * 32, "AUTH_ISSUER": "i", "AUTH_AUDIENCE": "a"}
    environment = Stack(tmp_path, ports=Ports(), env=secret).service_env
    assert {name: environment.get(name) for name in AUTH} == dict.fromkeys(AUTH) | secret
    assert not (tmp_path / "auth-signing-key").exists()


def test_a_token_of_the_command_is_one_of_the_data_directory(tmp_path: Path) -> None:
    environment = Stack(tmp_path, ports=Ports(), env={"AUTH_MODE": "jwt"}).service_env
    result = bidding(
        "token", "ann", "--role", "operator", "--role", "seller", "--ttl", "90", "--data-dir", str(tmp_path)
    )
    assert result.exit_code == 0, result.output
    found = whom(environment, result.output.strip())
    assert found is not None
    assert (found.user_id, set(found.roles)) == ("ann", {Role.OPERATOR, Role.SELLER})
    assert found.expires_s - time.time() == pytest.approx(90, abs=30)
    plain = whom(environment, bidding("token", "bob", "--data-dir", str(tmp_path)).output.strip())
    assert plain is not None
    assert plain.roles == {Role.BIDDER}


def test_where_no_platform_was_started_there_is_no_token(tmp_path: Path) -> None:
    result = bidding("token", "ann", "--data-dir", str(tmp_path / "elsewhere"))
    assert result.exit_code == 1
    assert "No platform has its data in" in result.output
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "more", [("an n",), ("ann", "--role", "root"), ("ann", "--ttl", "0"), ("ann", "--ttl", "9999999")]
)
def test_what_is_no_token(tmp_path: Path, more: tuple[str, ...]) -> None:
    assert bidding("token", *more, "--data-dir", str(tmp_path)).exit_code != 0


def test_people_of_the_demo_keep_their_tokens_for_a_while(tmp_path: Path) -> None:
    environment = Stack(tmp_path, ports=Ports(), env={"AUTH_MODE": "jwt"}).service_env
    tokens = Tokens(signing_key(tmp_path), environment)
    ann = tokens.of("ann", "bidder")
    assert tokens.of("ann", "bidder") == ann
    assert tokens.of("ann", "seller") != ann
    found = whom(environment, ann)
    assert found is not None
    assert found.user_id == "ann"


def test_load_runs_say_that_they_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTH_MODE", "jwt")
    result = CliRunner().invoke(run.main, [])
    assert result.exit_code != 0
    assert "send no tokens yet" in result.output
