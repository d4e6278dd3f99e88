"""The secret of a data directory, the tokens that are made with it, and several broadcasters in `bidding status`."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infrastructure.local import cli
from infrastructure.local.errors import StackError
from infrastructure.local.feed_secret import ALIAS_SECRET, FEED_TOKEN_SECRET, alias_secret, feed_token_secret
from infrastructure.local.servers.ports import Ports
from infrastructure.local.services import BROADCAST_SERVICE, process_names
from infrastructure.local.stack import Stack
from infrastructure.local.state import ProcessRecord, RunRecord, run_path
from shared.feed_tokens import Identity, check
from shared.secret_pairs import SECRET_BYTES_MIN, SecretPair


@pytest.fixture(autouse=True)
def no_secret_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FEED_TOKEN_SECRET, raising=False)


def bidding(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def test_a_data_directory_keeps_its_secret_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    secret = feed_token_secret(folder)
    assert len(secret) >= SECRET_BYTES_MIN
    assert feed_token_secret(folder) == secret
    assert feed_token_secret(tmp_path / "other") != secret
    [path] = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_secret_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "feed-token-secret").write_text("\n")
    with pytest.raises(StackError, match="feed-token-secret is empty"):
        feed_token_secret(tmp_path)
    with pytest.raises(StackError, match="Cannot use"):
        feed_token_secret(tmp_path / "feed-token-secret" / "below-a-file")


def test_services_are_given_the_secret_and_open_identity(tmp_path: Path) -> None:
    environment = Stack(tmp_path, ports=Ports()).service_env
    assert environment[FEED_TOKEN_SECRET] == feed_token_secret(tmp_path)
    assert environment["OPEN_IDENTITY"] == "true"


def test_where_tokens_are_demanded_aliases_have_a_secret_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ALIAS_SECRET, raising=False)
    # Whoever needs none keeps the aliases of before.
    assert ALIAS_SECRET not in Stack(tmp_path, ports=Ports()).service_env
    demanding = Stack(tmp_path, ports=Ports(), env={"AUTH_MODE": "jwt"}).service_env
    assert demanding[ALIAS_SECRET] == alias_secret(tmp_path)
    assert demanding[ALIAS_SECRET] != demanding[FEED_TOKEN_SECRET]
    given = Stack(tmp_path, ports=Ports(), env={"AUTH_MODE": "jwt", ALIAS_SECRET: "mine"}).service_env
    assert given[ALIAS_SECRET] == "mine"


def test_a_secret_from_outside_wins_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FEED_TOKEN_SECRET, "e" * 32)
    assert Stack(tmp_path, ports=Ports()).service_env[FEED_TOKEN_SECRET] == "e" * 32
    given = Stack(tmp_path, ports=Ports(), env={FEED_TOKEN_SECRET: "g" * 32, "OPEN_IDENTITY": "false"}).service_env
    assert (given[FEED_TOKEN_SECRET], given["OPEN_IDENTITY"]) == ("g" * 32, "false")
    assert list(tmp_path.iterdir()) == []


def test_a_token_of_the_command_is_one_of_the_data_directory(tmp_path: Path) -> None:
    result = bidding("feed-token", "ann", "--data-dir", str(tmp_path), "--maximum", "--hours", "2")
    assert result.exit_code == 0, result.output
    identity = check(SecretPair("FEED_TOKEN_SECRET", feed_token_secret(tmp_path)), result.output.strip())
    assert identity == Identity("ann", identity.expires_s, sees_maximum=True)
    assert identity.expires_s - time.time() == pytest.approx(7_200, abs=60)
    plain = bidding("feed-token", "ann", "--data-dir", str(tmp_path)).output.strip()
    assert check(SecretPair("FEED_TOKEN_SECRET", feed_token_secret(tmp_path)), plain).sees_maximum is False


def test_where_no_platform_was_started_there_is_no_token(tmp_path: Path) -> None:
    result = bidding("feed-token", "ann", "--data-dir", str(tmp_path / "elsewhere"))
    assert result.exit_code == 1
    assert "No platform has its data in" in result.output
    assert not (tmp_path / "elsewhere").exists()


def test_a_token_is_signed_with_the_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FEED_TOKEN_SECRET, "e" * 32)
    token = bidding("feed-token", "ann", "--data-dir", str(tmp_path)).output.strip()
    assert check(SecretPair("FEED_TOKEN_SECRET", "e" * 32), token).user_id == "ann"
    monkeypatch.setenv(FEED_TOKEN_SECRET, "short")
    result = bidding("feed-token", "ann", "--data-dir", str(tmp_path))
    assert (result.exit_code, "at least 32 bytes" in result.output) == (1, True)


@pytest.mark.parametrize("arguments", [("white space",), ("ann", "--hours", "0"), ("ann", "--hours", "9999999"), ()])
def test_what_is_no_token(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert bidding("feed-token", *arguments, "--data-dir", str(tmp_path)).exit_code != 0


def test_names_of_several_broadcasters() -> None:
    assert process_names(BROADCAST_SERVICE, 1) == ("broadcast_service",)
    assert process_names(BROADCAST_SERVICE, 3) == ("broadcast_service", "broadcast_service-2", "broadcast_service-3")


def test_the_status_shows_all_broadcasters_at_their_common_port(tmp_path: Path) -> None:
    me = ProcessRecord(pid=os.getpid(), create_time=time.time() - 10_000, address="http://127.0.0.1:9")
    record = RunRecord(
        phase="ready",
        supervisor=me,
        urls={},
        ports={name: getattr(Ports(broadcast=8_765), name) for name in Ports.__slots__},
        processes=dict.fromkeys(process_names(BROADCAST_SERVICE, 2), me),
    )
    record.write(run_path(tmp_path))
    rows = json.loads(bidding("status", "--data-dir", str(tmp_path), "--json").output)["processes"]
    assert [(row["name"], row["port"]) for row in rows] == [
        ("broadcast_service", 8_765),
        ("broadcast_service-2", 8_765),
    ]
