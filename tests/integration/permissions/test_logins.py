"""Logins at PostgreSQL as an owner makes and removes them: `migrate` with passwords, and the command `login`."""

from __future__ import annotations

import asyncpg
import pytest

from infrastructure.local.services import ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared.server_urls import with_credentials
from tests.preforked import run_forked
from tests.stack import StackFactory

pytestmark = pytest.mark.integration

SELECT = "SELECT count(*) FROM items"


async def command(stack: Stack, *arguments: str, **env: str) -> tuple[int, str]:
    return await run_forked(ARCHIVAL_WORKER, *arguments, env=stack.service_env | env)


async def asked(stack: Stack, user: str, password: str, sql: str) -> None:
    url = f"postgresql://127.0.0.1:{stack.ports.postgres}/bidding"
    connection = await asyncpg.connect(with_credentials(url, user=user, password=password), timeout=30)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def test_an_owner_lets_services_in_and_shuts_them_out(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    code, text = await command(stack, "migrate", GATEWAY_PASSWORD="first one", CACHE_PASSWORD="c")
    assert (code, "logins: gateway, cache" in text) == (0, True), text
    await asked(stack, "gateway", "first one", SELECT)
    await asked(stack, "cache", "c", SELECT)
    code, text = await command(stack, "migrate", GATEWAY_PASSWORD="another")
    assert (code, "logins: gateway\n" in text) == (0, True), text
    await asked(stack, "gateway", "another", SELECT)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asked(stack, "gateway", "first one", SELECT)

    code, text = await command(stack, "login", "gateway", "gateway_b", LOGIN_PASSWORD="b")
    assert (code, "gateway_b gets in as gateway" in text) == (0, True), text
    await asked(stack, "gateway_b", "b", SELECT)
    await asked(stack, "gateway_b", "b", "DO $$ BEGIN ASSERT NOT has_table_privilege('items', 'UPDATE'); END $$")
    url = f"postgresql://127.0.0.1:{stack.ports.postgres}/bidding"
    still_open = await asyncpg.connect(with_credentials(url, user="gateway", password="another"), timeout=30)
    code, text = await command(stack, "login", "gateway", "gateway", "--remove")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await still_open.execute(SELECT)
    still_open.terminate()
    assert (code, "gateway gets in no longer" in text) == (0, True), text
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await asked(stack, "gateway", "another", SELECT)
    await asked(stack, "gateway_b", "b", SELECT)

    for arguments, env, told in (
        (("gateway", "bidding"), {"LOGIN_PASSWORD": "x"}, "there is a role bidding already"),
        (("gateway", "cache"), {"LOGIN_PASSWORD": "x"}, "no login of gateway"),
        (("cache", "gateway_b", "--remove"), {}, "cache has no login gateway_b"),
        (("gateway", "A B"), {"LOGIN_PASSWORD": "x"}, "a login has 1 to 63 characters"),
        (("gateway", "another"), {"LOGIN_PASSWORD": "sch\xf6n"}, "printable ASCII"),
        (("gateway", "another"), {}, "LOGIN_PASSWORD is not set"),
    ):
        code, text = await command(stack, "login", *arguments, **env)
        assert code == 1, text
        assert told in text


async def test_a_right_that_the_list_has_no_longer_is_taken_back(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    code, text = await command(stack, "migrate", GATEWAY_PASSWORD="g")
    assert code == 0, text
    owner = await asyncpg.connect(stack.urls.postgres_url, timeout=30)
    try:
        await owner.execute("GRANT INSERT, UPDATE (name), SELECT ON api_keys TO bidding_gateway")
        may = "SELECT has_any_column_privilege('gateway', 'api_keys', 'INSERT')"
        assert await owner.fetchval(may)
        code, text = await command(stack, "migrate")
        assert code == 0, text
        assert not await owner.fetchval(may)
        assert not await owner.fetchval("SELECT has_any_column_privilege('gateway', 'api_keys', 'UPDATE')")
        assert await owner.fetchval("SELECT has_table_privilege('gateway', 'api_keys', 'SELECT')")
    finally:
        await owner.close()


async def test_without_the_right_to_make_roles_the_schema_is_there_all_the_same(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    owner = await asyncpg.connect(stack.urls.postgres_url, timeout=30)
    try:
        await owner.execute("CREATE ROLE modest LOGIN PASSWORD 'm'")
        await owner.execute("GRANT modest TO bidding")
        await owner.execute("CREATE DATABASE modest OWNER modest")
        # As if there were no roles: this one has another name.
        await owner.execute("ALTER ROLE bidding_cache RENAME TO somebody")
        url = with_credentials(f"postgresql://127.0.0.1:{stack.ports.postgres}/modest", user="modest", password="m")
        code, text = await command(stack, "migrate", POSTGRES_URL=url)
        assert code == 0, text
        assert "no roles for the services: the owner of the database lacks CREATEROLE" in text
        modest = await asyncpg.connect(url, timeout=30)
        assert await modest.fetchval(SELECT) == 0
        await modest.close()
    finally:
        await owner.close()
