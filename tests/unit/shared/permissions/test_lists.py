"""The lists of what each account may do, and how they are written for the servers."""

from __future__ import annotations

import base64
import fnmatch
import re
from pathlib import Path

import pytest

from shared import names
from shared.permissions.accounts import Account, Login
from shared.permissions.nats_users import SUBJECTS, inbox_of, users_of_nats
from shared.permissions.postgres_roles import TABLES, grants, scram_verifier, set_login
from shared.permissions.redis_on_aws import NotOnAws, access_string_of, checked
from shared.permissions.redis_users import GRANTS, Grant, access_of, users_of_redis
from shared.redis_layout import keys

ROOT = Path(__file__).parents[4]
_INCLUDE = re.compile(r"^---@include (\w+)$", re.MULTILINE)
_COMMAND = re.compile(r"redis\.p?call\('([A-Z]+)'")

LOGINS = {account: [Login(account.value, [f"secret of {account.value}"])] for account in Account}

# Whoever has one of these can read everything, change who may do what, or make the server forget.
ADMINISTRATION = {
    "acl",
    "bgrewriteaof",
    "client|kill",
    "config",
    "debug",
    "failover",
    "flushall",
    "flushdb",
    "function",
    "keys",
    "migrate",
    "module",
    "monitor",
    "replicaof",
    "restore",
    "save",
    "script",
    "shutdown",
    "swapdb",
}


def words_of(account: Account) -> list[str]:
    return access_of(account).replace("(", "").replace(")", "").split()


@pytest.mark.parametrize("account", Account)
def test_every_account_is_in_every_list(account: Account) -> None:
    assert account in GRANTS
    assert account in SUBJECTS
    assert account in TABLES


@pytest.mark.parametrize("account", Account)
def test_nobody_administers_redis(account: Account) -> None:
    commands = {word[1:] for word in words_of(account) if word.startswith("+")}
    assert not any(word.startswith("+@") for word in words_of(account)), "a category grows with the server"
    assert not commands & ADMINISTRATION


@pytest.mark.parametrize(
    ("folder", "account"),
    [
        ("api_gateway", Account.GATEWAY),
        ("archival_worker/outbox", Account.ARCHIVER),
        ("archival_worker/eviction", Account.ARCHIVER),
        ("archival_worker/recovery", Account.OPERATOR),
    ],
)
def test_every_command_of_a_script_is_allowed_to_who_runs_it(folder: str, account: Account) -> None:
    """Those of rare branches too, which no test may come by."""
    shared = {path.stem: path for path in (ROOT / "shared" / "redis_layout" / "lua").glob("*.lua")}
    allowed = {word[1:] for word in words_of(account) if word.startswith("+")}
    scripts = sorted((ROOT / folder).rglob("*.lua"))
    assert scripts
    for script in scripts:
        text = script.read_text()
        text += "".join(shared[name].read_text() for name in _INCLUDE.findall(text) if name in shared)
        missing = {command.lower() for command in _COMMAND.findall(text)} - allowed
        assert not missing, f"{script.relative_to(ROOT)}: {missing}"


def test_the_nodes_of_the_read_cache_have_no_account_at_redis() -> None:
    assert "user cache" not in users_of_redis(LOGINS, open_to_all=False)


def test_a_gateway_has_a_pattern_for_every_key_but_the_mark_of_a_recovery() -> None:
    item = "lot-1"
    all_keys = [
        *keys.keys_of_item(item),
        keys.REVOCATIONS_KEY,
        keys.account_key("ann", "EUR"),
        keys.returning_key(item, "t", "item"),
        *(
            key("s07")
            for key in (
                keys.rulings_key,
                keys.spreading_key,
                keys.credit_key,
                keys.deadlines_key,
                keys.outbox_key,
                keys.cursors_key,
                keys.lease_key,
                keys.lost_key,
                keys.mark_key,
                keys.opened_key,
                keys.closed_key,
            )
        ),
    ]
    patterns = [word[1:] for word in words_of(Account.GATEWAY) if word.startswith("~")]
    for key in all_keys:
        assert any(fnmatch.fnmatchcase(key, pattern) for pattern in patterns), key
    assert not any(fnmatch.fnmatchcase(keys.rebuilding_key("s07"), pattern) for pattern in patterns)


def test_a_broadcaster_reads_which_tokens_are_revoked_and_writes_nothing_there() -> None:
    first = GRANTS[Account.BROADCASTER][0]
    assert any(fnmatch.fnmatchcase(keys.REVOCATIONS_KEY, pattern) for pattern in first.read_keys)
    assert not first.keys


def test_redis_is_told_digests_and_no_password() -> None:
    text = users_of_redis(LOGINS, open_to_all=False)
    assert "secret" not in text
    assert text.startswith("user default off ")
    assert re.search(r"^user gateway on #[0-9a-f]{64} resetkeys resetchannels -@all ~", text, re.MULTILINE)


def test_two_passwords_hold_at_a_time() -> None:
    login = Login("gateway", ["old", "new"])
    line = users_of_redis({Account.GATEWAY: [login]}, open_to_all=False).splitlines()[1]
    assert len(re.findall(r"#[0-9a-f]{64}", line)) == 2


def test_events_are_published_by_gateways_alone() -> None:
    publishers = {
        account for account, its in SUBJECTS.items() if any(each.startswith("auction.events") for each in its.publish)
    }
    assert publishers == {Account.GATEWAY}
    assert names.SUBJECT_ALL in SUBJECTS[Account.GATEWAY].publish


@pytest.mark.parametrize("account", Account)
def test_nobody_hears_another_s_answers(account: Account) -> None:
    others = [inbox_of(other.value) for other in Account if other is not account]
    for heard in SUBJECTS[account].subscribe:
        assert heard not in (">", "*", "_INBOX.>")
        assert not heard.startswith(tuple(others))


def test_nats_takes_a_password_with_quotes() -> None:
    text = users_of_nats({Account.CACHE: [Login("cache", ['a"b'])]}, open_to_all=False)
    assert 'password: "a\\"b"' in text
    assert "no_auth_user" not in text


def test_a_password_of_the_environment_stays_a_variable() -> None:
    assert "password: $NATS_X," in users_of_nats({Account.CACHE: [Login("cache", ["$NATS_X"])]}, open_to_all=False)


def test_the_statements_have_no_password() -> None:
    statements = set_login(Account.GATEWAY, "gateway_b", "hunter2")
    assert "hunter2" not in statements
    assert "IN ROLE bidding_gateway" in statements


@pytest.mark.parametrize("user", ["", "Gateway", "a b", "x; DROP TABLE bids", 'a"', "1a", "x" * 64])
def test_a_login_is_a_plain_name(user: str) -> None:
    with pytest.raises(ValueError, match="a login has"):
        set_login(Account.GATEWAY, user, "x")


@pytest.mark.parametrize("password", ["", "p\xe4ss", "a\nb"])
def test_a_password_that_could_be_written_in_two_ways_is_refused(password: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        scram_verifier(password)


def test_the_verifier_is_the_one_of_the_rfc() -> None:
    """RFC 7677: the user's password is `pencil`."""
    salt = "W22ZaJ0SNY7soEsUEjb6gQ=="
    verifier = scram_verifier("pencil", salt=base64.b64decode(salt))
    assert verifier.startswith(f"SCRAM-SHA-256$4096:{salt}$")
    assert verifier.endswith(":wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=")


def test_nothing_is_granted_on_tables_that_are_not_there_yet() -> None:
    text = grants(["items"], [])
    assert "ON items TO bidding_gateway" in text
    assert "ON bids" not in text


@pytest.mark.parametrize(
    "rule",
    [
        *(">password", "<password", "#" + "a" * 64, "!" + "a" * 64, "nopass", "resetpass", "reset"),
        *("+@all", "+@admin", "-@dangerous", "-get", "allkeys", "allcommands", "&channel", "user"),
        *("+config", "+config|get", "+acl|setuser", "+cluster|failover", "+shutdown", "+replicaof", "+debug", "+GET"),
        *("(+get", "+get)", "(on +get)", "((+get))", "(~x +save)", "%R~", ""),
    ],
)
def test_what_aws_does_not_take_is_refused_before_it_is_asked(rule: str) -> None:
    assert checked("on ~{s??}:* %R~x resetchannels -@all +get +cluster|slots (~y resetchannels -@all +set)")
    with pytest.raises(NotOnAws):
        checked(f"on {rule} -@all" if rule else "on ~x  +get reset -@all")


def test_a_list_that_aws_does_not_take_makes_no_string(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GRANTS, Account.CACHE, (Grant(("get", "config|get"), ["x"]),))
    with pytest.raises(NotOnAws, match=r"\+config\|get"):
        access_string_of(Account.CACHE)


def test_who_has_no_business_at_redis_has_no_string() -> None:
    assert [account for account in Account if not access_string_of(account)] == [Account.CACHE]
