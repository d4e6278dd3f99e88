"""What each account is refused at Redis, NATS and PostgreSQL, on servers that let nobody in without a password."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import nats.errors
import pytest
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError

from archival_worker.outbox.missing_entries import REPUBLISH
from archival_worker.store.grants import grant
from infrastructure.local.errors import StackError
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.nats import Client, NatsLink, ensure_stream, open_nats
from shared.clients.redis import open_redis
from shared.permissions.accounts import Account
from shared.permissions.nats_users import inbox_of
from shared.permissions.postgres_roles import OWNER_ONLY, TABLES, role_of
from shared.permissions.redis_on_aws import access_string_of
from shared.redis_layout.keys import REVOCATIONS_KEY
from shared.server_urls import with_credentials
from shared.streams.puller import PullOptions, ensure_consumer
from tests.stack import new_data_dir, running_stack

pytestmark = pytest.mark.integration

ITEM = "{s07}:item:lot-1"
PATIENCE_S = 30


@pytest.fixture(scope="module")
def closed() -> Iterator[Stack]:
    with running_stack(services=(), env={"CLOSED_SERVERS": "true"}, may_be_refused=True) as stack:
        yield stack


def url_of(stack: Stack, server: str, account: Account) -> str:
    return stack.env_of(account)[f"{server.upper()}_URL"]


# ------------------------------------------------------------------------------------------------------------- Redis

# Each account does one thing that it may, which shows that the refusals are not those of a broken connection.
_ON_ITEM: list[tuple[Account, tuple[Any, ...], bool]] = [
    (Account.GATEWAY, ("HSET", ITEM, "status", "open"), True),
    (Account.GATEWAY, ("SET", "{s07}:rebuilding", "1:t"), False),
    (Account.GATEWAY, ("FLUSHALL",), False),
    (Account.GATEWAY, ("CONFIG", "GET", "*"), False),
    (Account.GATEWAY, ("KEYS", "*"), False),
    (Account.GATEWAY, ("GET", "another-key"), False),
    (Account.GATEWAY, ("EVAL", "return redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)", 1, "{s07}:outbox"), False),
    (Account.BROADCASTER, ("HGETALL", ITEM), True),
    (Account.BROADCASTER, ("HGETALL", REVOCATIONS_KEY), True),
    (Account.BROADCASTER, ("HSET", REVOCATIONS_KEY, "epoch", "1"), False),
    (Account.BROADCASTER, ("HSET", ITEM, "status", "sold"), False),
    (Account.BROADCASTER, ("EVAL", "return 1", 1, ITEM), False),
    (Account.BROADCASTER, ("DEL", ITEM), False),
    (Account.BROADCASTER, ("GETDEL", "{s07}:once:feed-ticket:x"), True),
    (Account.BROADCASTER, ("SET", "{s07}:once:feed-ticket:x", "1"), False),
    (Account.BROADCASTER, ("GETDEL", "{s07}:once:sign-in:x"), False),
    (Account.BROADCASTER, ("HGETALL", "{s07}:credit"), False),
    (Account.BROADCASTER, ("LRANGE", "{s07}:accepted:lot-1", 0, -1), False),
    (Account.ARCHIVER, ("UNLINK", "{s07}:item:gone"), True),
    (Account.ARCHIVER, ("HSET", "{s07}:cursors", "archived", "0"), True),
    (
        Account.ARCHIVER,
        ("EVAL", f"redis.call('HSET', KEYS[1], 'epoch', '1')\n{REPUBLISH.text}", 1, "{s07}:cursors"),
        True,
    ),
    (Account.ARCHIVER, ("HSET", ITEM, "status", "sold"), False),
    (Account.ARCHIVER, ("EVAL", "return redis.call('HSET', KEYS[1], 'status', 'sold')", 1, ITEM), False),
    (Account.ARCHIVER, ("XADD", "{s07}:outbox", "*", "a", "b"), False),
    (Account.ARCHIVER, ("UNLINK", "{s07}:outbox"), False),
    (Account.ARCHIVER, ("EVAL", "return redis.call('UNLINK', KEYS[1])", 1, "{s07}:cursors"), False),
    (Account.ARCHIVER, ("ZADD", "{s07}:closed", 1, "gone"), True),
    (Account.ARCHIVER, ("ZADD", "{s07}:item:gone", 1, "x"), False),
    (Account.ARCHIVER, ("SREM", "{s07}:lost", "gone"), True),
    (Account.ARCHIVER, ("SET", "{s07}:rebuilding", "1:t"), False),
    (Account.OPERATOR, ("SET", "{s07}:rebuilding", "1:t"), True),
    (Account.OPERATOR, ("FLUSHALL",), False),
    (Account.OPERATOR, ("XADD", "{s07}:outbox", "*", "a", "b"), False),
]


@pytest.fixture(scope="module")
def on_aws(closed: Stack) -> dict[Account, str]:
    """Users of the same server by the access strings that Terraform gives to AWS; their addresses."""
    password = secrets.token_hex(16)
    found: dict[Account, str] = {}

    async def make() -> None:
        redis: Any
        async with open_redis(closed.urls.redis_url) as redis:
            for account in Account:
                if access := access_string_of(account):
                    user = f"aws-{account.value}"
                    await redis.execute_command("ACL", "SETUSER", user, f">{password}", *access.split())
                    found[account] = with_credentials(
                        f"redis://127.0.0.1:{closed.ports.redis}/0", user=user, password=password
                    )

    asyncio.run(make())
    return found


@pytest.mark.parametrize("where", ["here", "on AWS"])
@pytest.mark.parametrize(("account", "command", "may"), _ON_ITEM)
async def test_redis(
    closed: Stack, on_aws: dict[Account, str], account: Account, command: tuple[Any, ...], may: bool, where: str
) -> None:
    redis: Any
    async with open_redis(url_of(closed, "redis", account) if where == "here" else on_aws[account]) as redis:
        if may:
            await redis.execute_command(*command)
            return
        with pytest.raises(ResponseError, match=r"(?i)no permission|can't run this command|NOPERM|ACL failure"):
            await redis.execute_command(*command)


async def test_strings_for_aws_are_as_the_server_would_write_them(closed: Stack, on_aws: dict[Account, str]) -> None:
    """Else each plan of Terraform would find a difference. They allow what the list allows, no more and no less."""
    redis: Any
    async with open_redis(closed.urls.redis_url) as redis:
        listed = [line.decode() for line in await redis.execute_command("ACL", "LIST")]
    told = {line.split()[1]: re.sub(r" (#\w+|sanitize-payload)", "", line).split(" ", 2)[2] for line in listed}
    assert len(on_aws) == 4
    for account in on_aws:
        assert told[f"aws-{account.value}"] == access_string_of(account)
        assert told[f"aws-{account.value}"] == told[account.value]


async def test_redis_lets_nobody_in_without_a_password(closed: Stack) -> None:
    host = f"127.0.0.1:{closed.ports.redis}/0"
    async with open_redis(f"redis://{host}") as redis:
        with pytest.raises((AuthenticationError, NoPermissionError)):
            await redis.get(ITEM)
    for login in ("gateway:wrong", "cache:" + closed.data_dir.name, "default:x"):
        async with open_redis(f"redis://{login}@{host}") as redis:
            with pytest.raises(AuthenticationError):
                await redis.get(ITEM)


# -------------------------------------------------------------------------------------------------------------- NATS


@asynccontextmanager
async def connected(stack: Stack, account: Account) -> AsyncIterator[tuple[Client, list[str]]]:
    """A client, and what the server has told it that it must not."""
    client = await open_nats(url_of(stack, "nats", account), name="test")
    told: list[str] = []

    async def note(error: Exception) -> None:
        told.append(str(error).lower())

    client._error_cb = note
    try:
        yield client, told
    finally:
        await client.close()


async def refused(client: Client, told: list[str], act: str, subject: str) -> bool:
    """Whether it is refused. The server answers in order: what it did not complain of until the pong, it took."""
    told.clear()
    if act == "publish":
        await client.publish(subject, b"")
    else:
        await client.subscribe(subject)
    # Twice: the library may send the ping of the first before what was published.
    for _ in range(2):
        await client.flush(timeout=PATIENCE_S)
    return any("permissions violation" in each and subject.lower() in each for each in told)


_EVENT = f"{names.SUBJECT_PREFIX}.s07.lot-1"
_NUDGE = f"{names.NUDGE_PREFIX}.s07"
_API = "$JS.API"
_OTHER = f".another.{names.SUBJECT_ALL}"
_SUBJECTS = [
    (Account.GATEWAY, "publish", _EVENT, True),
    (Account.GATEWAY, "publish", f"{_API}.STREAM.PURGE.{names.STREAM}", False),
    (Account.GATEWAY, "publish", f"{_API}.STREAM.DELETE.{names.STREAM}", False),
    (Account.GATEWAY, "publish", f"{_API}.CONSUMER.DELETE.{names.STREAM}.{names.ARCHIVER_DURABLE}", False),
    (Account.GATEWAY, "publish", f"{_API}.CONSUMER.MSG.NEXT.{names.STREAM}.{names.ARCHIVER_DURABLE}", False),
    (Account.GATEWAY, "publish", "$KV.read_cache_ring.nodes", False),
    (Account.GATEWAY, "subscribe", names.SUBJECT_ALL, False),
    (Account.GATEWAY, "subscribe", f"{inbox_of('archiver')}.>", False),
    (Account.GATEWAY, "subscribe", "_INBOX.>", False),
    (Account.BROADCASTER, "publish", "feed.viewers", True),
    (Account.BROADCASTER, "publish", _EVENT, False),
    (Account.BROADCASTER, "publish", _NUDGE, False),
    (Account.BROADCASTER, "publish", names.REVOKED_SUBJECT, False),
    (Account.ARCHIVER, "publish", f"{_API}.STREAM.PURGE.{names.STREAM}", True),
    (Account.ARCHIVER, "publish", _EVENT, False),
    (Account.ARCHIVER, "publish", f"{_API}.STREAM.UPDATE.{names.STREAM}", False),
    (Account.ARCHIVER, "subscribe", _NUDGE, False),
    (Account.CACHE, "publish", "$KV.read_cache_ring.x", True),
    (Account.CACHE, "publish", f"{_API}.DIRECT.GET.KV_read_cache_ring.$KV.read_cache_ring.ring", True),
    (Account.CACHE, "publish", f"{_API}.DIRECT.GET.KV_another_bucket.$KV.another_bucket.x", False),
    (Account.CACHE, "publish", _EVENT, False),
    (Account.CACHE, "publish", f"$JS.ACK.{names.STREAM}.{names.ARCHIVER_DURABLE}.1.1.1.1.1", False),
    (Account.CACHE, "publish", "$KV.another_bucket.x", False),
    (Account.OPERATOR, "publish", f"{_API}.STREAM.INFO.{names.STREAM}", True),
    (Account.OPERATOR, "publish", _EVENT, False),
    (Account.OPERATOR, "publish", f"{_API}.STREAM.DELETE.{names.STREAM}", False),
]


@pytest.mark.parametrize(("account", "act", "subject", "may"), _SUBJECTS)
async def test_nats(closed: Stack, account: Account, act: str, subject: str, may: bool) -> None:
    async with connected(closed, account) as (client, told):
        assert await refused(client, told, act, subject) is not may


async def test_an_event_of_another_than_a_gateway_is_not_in_the_stream(closed: Stack) -> None:
    async with connected(closed, Account.GATEWAY) as (gateway, _):
        jetstream = gateway.jetstream()
        await ensure_stream(jetstream)
        before = (await jetstream.stream_info(names.STREAM)).state.messages
        for account in (Account.BROADCASTER, Account.ARCHIVER, Account.CACHE, Account.OPERATOR):
            async with connected(closed, account) as (client, _told):
                with pytest.raises(nats.errors.Error):
                    await client.jetstream().publish(_EVENT, b"forged", timeout=1)
        assert (await jetstream.stream_info(names.STREAM)).state.messages == before
        await jetstream.publish(_EVENT, b"one")
        assert (await jetstream.stream_info(names.STREAM)).state.messages == before + 1


_CREATE = f"{_API}.CONSUMER.CREATE.{names.STREAM}"


@pytest.mark.parametrize("account", [account for account in Account if account is not Account.ARCHIVER])
async def test_nobody_changes_the_consumer_of_the_archivers(closed: Stack, account: Account) -> None:
    """NATS takes the name out of the subject or, where none is there, out of what is asked."""
    async with connected(closed, Account.ARCHIVER) as (archiver, _):
        jetstream = archiver.jetstream()
        await ensure_stream(jetstream)
        before = (await ensure_consumer(jetstream, PullOptions(durable=names.ARCHIVER_DURABLE))).config
        wanted = {"ack_policy": "explicit", "max_ack_pending": 1, "filter_subject": names.SUBJECT_ALL}
        async with connected(closed, account) as (client, _told):
            for where in ("", f".{names.ARCHIVER_DURABLE}", f".{names.ARCHIVER_DURABLE}.{names.SUBJECT_ALL}", _OTHER):
                for name in ({"name": names.ARCHIVER_DURABLE}, {"durable_name": names.ARCHIVER_DURABLE}):
                    asked = {"stream_name": names.STREAM, "config": wanted | name}
                    await client.publish(_CREATE + where, json.dumps(asked).encode(), reply=client.new_inbox())
            # The server answers in order.
            await client.flush(timeout=PATIENCE_S)
        assert (await jetstream.consumer_info(names.STREAM, names.ARCHIVER_DURABLE)).config == before


async def test_nats_lets_nobody_in_without_a_password(closed: Stack) -> None:
    for login in ("", "gateway:wrong@", "anybody:-@"):
        link = NatsLink(f"nats://{login}127.0.0.1:{closed.ports.nats}", name="test", timeout_s=1)
        with pytest.raises(ConnectionError):
            await link.connected()
        await link.close()


# -------------------------------------------------------------------------------------------------------- PostgreSQL

# An item that is not retired has nothing removed, whoever asks for it.
_REMOVES_NOTHING = """
    DO $$ BEGIN PERFORM remove_log('lot-1', 1); EXCEPTION WHEN raise_exception THEN NULL; END $$"""
_STATEMENTS = [
    (Account.GATEWAY, "SELECT max_amount FROM sealed", True),
    (Account.GATEWAY, "SELECT digest FROM api_keys", True),
    (Account.GATEWAY, "INSERT INTO bids DEFAULT VALUES", False),
    (Account.GATEWAY, "UPDATE items SET status = 'sold'", False),
    (Account.GATEWAY, "DELETE FROM events", False),
    (Account.GATEWAY, "INSERT INTO api_keys DEFAULT VALUES", False),
    (Account.GATEWAY, "SELECT data FROM dead_letters", False),
    (Account.GATEWAY, "CREATE TABLE mine (x integer)", False),
    (Account.GATEWAY, "SELECT watch_item('ann', 'lot-1', 7::smallint, 500, 500, '30 days')", True),
    (Account.GATEWAY, "UPDATE watched SET user_id = 'eve'", False),
    (Account.GATEWAY, "INSERT INTO bidders DEFAULT VALUES", False),
    (Account.ARCHIVER, "SELECT FROM watched", False),
    (Account.ARCHIVER, "DELETE FROM bidders", False),
    (Account.BROADCASTER, "SELECT FROM watched", False),
    (Account.BROADCASTER, "SELECT item_id FROM bids", True),
    (Account.BROADCASTER, "SELECT user_id, verdict FROM sealed", True),
    (Account.BROADCASTER, "SELECT max_amount FROM sealed", False),
    (Account.BROADCASTER, "SELECT leader_max FROM sealed", False),
    (Account.BROADCASTER, "SELECT FROM api_keys", False),
    (Account.BROADCASTER, "UPDATE items SET status = 'sold'", False),
    (Account.CACHE, "SELECT item_id FROM items", True),
    (Account.CACHE, "SELECT user_id FROM sealed", False),
    (Account.CACHE, "INSERT INTO events DEFAULT VALUES", False),
    (Account.ARCHIVER, "UPDATE items SET status = status", True),
    (Account.ARCHIVER, "UPDATE bids SET status = status", True),
    (Account.ARCHIVER, "UPDATE bids SET amount = 1", False),
    (Account.ARCHIVER, "UPDATE bids SET user_id = 'eve'", False),
    (Account.OPERATOR, "UPDATE bids SET amount = 1", False),
    (Account.ARCHIVER, "DELETE FROM bids", False),
    (Account.ARCHIVER, "TRUNCATE events", False),
    (Account.ARCHIVER, "UPDATE events SET body = '{}'", False),
    (Account.ARCHIVER, "UPDATE event_hashes SET hash = ''", False),
    (Account.ARCHIVER, "SELECT FROM api_keys", False),
    (Account.ARCHIVER, "ALTER TABLE bids ADD COLUMN x integer", False),
    (Account.OPERATOR, "UPDATE api_keys SET revoked_at = now()", True),
    (Account.OPERATOR, "DELETE FROM bids", False),
    (Account.OPERATOR, "DELETE FROM bids_00", False),
    (Account.OPERATOR, "UPDATE retired_items SET actor = actor", True),
    (Account.OPERATOR, _REMOVES_NOTHING, True),
    (Account.ARCHIVER, "SELECT remove_log('lot-1', 1)", False),
    (Account.ARCHIVER, "SELECT spans FROM retired_items", True),
    (Account.ARCHIVER, "DELETE FROM retired_items", False),
    (Account.GATEWAY, "SELECT remove_log('lot-1', 1)", False),
    (Account.CACHE, "SELECT item_id FROM retired_items", True),
    (Account.OPERATOR, "CREATE ROLE another", False),
]


@pytest.mark.parametrize(("account", "statement", "may"), _STATEMENTS)
async def test_postgres(closed: Stack, account: Account, statement: str, may: bool) -> None:
    connection = await asyncpg.connect(url_of(closed, "postgres", account), timeout=PATIENCE_S)
    try:
        if may:
            await connection.execute(statement)
            return
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_postgres_lets_nobody_in_without_a_password(closed: Stack) -> None:
    for login in ("bidding", "gateway", "gateway:wrong", "postgres", role_of(Account.GATEWAY)):
        with pytest.raises((asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InterfaceError)):
            await asyncpg.connect(f"postgresql://{login}@127.0.0.1:{closed.ports.postgres}/bidding", timeout=PATIENCE_S)


async def test_nobody_makes_anything_in_a_schema_that_was_open_to_everybody(closed: Stack) -> None:
    """As databases of PostgreSQL 14 and before were, and their copies are."""
    owner = await asyncpg.connect(closed.urls.postgres_url, timeout=PATIENCE_S)
    try:
        await owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        sql = "SELECT has_schema_privilege('gateway', 'public', 'CREATE')"
        assert await owner.fetchval(sql)
        await grant(owner)
        assert not await owner.fetchval(sql)
    finally:
        await owner.close()


async def test_every_table_is_in_the_list(closed: Stack) -> None:
    """A migration that makes a table has to say who may read and write it. Parts are reached by their table alone."""
    connection = await asyncpg.connect(closed.urls.postgres_url, timeout=PATIENCE_S)
    try:
        rows = await connection.fetch(
            "SELECT relname, relispartition, array(SELECT usename FROM pg_user WHERE NOT usesuper"
            " AND has_table_privilege(usename, c.oid, 'SELECT, INSERT, UPDATE, DELETE')) AS users"
            " FROM pg_class AS c WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
        owner = await connection.fetchval("SELECT current_user")
    finally:
        await connection.close()
    listed = {table for rights in TABLES.values() for table in rights} | OWNER_ONLY
    assert {row["relname"] for row in rows if not row["relispartition"]} == listed
    parts = [row for row in rows if row["relispartition"]]
    assert len(parts) == 48
    assert {user for row in parts for user in row["users"]} <= {owner}


async def test_a_table_of_a_later_migration_can_be_filled_at_once(closed: Stack) -> None:
    owner = await asyncpg.connect(closed.urls.postgres_url, timeout=PATIENCE_S)
    try:
        await owner.execute("CREATE TABLE later (x integer GENERATED ALWAYS AS IDENTITY, y integer)")
        try:
            for account, may in ((Account.ARCHIVER, True), (Account.OPERATOR, True), (Account.BROADCASTER, False)):
                sql = "SELECT has_table_privilege($1, 'later', 'INSERT') AND has_table_privilege($1, 'later', 'SELECT')"
                assert await owner.fetchval(sql, account.value) is may, account
        finally:
            await owner.execute("DROP TABLE later")
    finally:
        await owner.close()


def test_the_switch_is_true_or_false() -> None:
    with pytest.raises(StackError, match="CLOSED_SERVERS must be true or false"):
        Stack(new_data_dir(), services=(), env={"CLOSED_SERVERS": "perhaps"})
