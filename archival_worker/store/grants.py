"""Says at PostgreSQL who may read and write which tables, and who logs in."""

from __future__ import annotations

import logging
from typing import Final

import asyncpg

from archival_worker.errors import MigrationError
from shared.permissions.accounts import Account
from shared.permissions.postgres_roles import grants, make_roles, role_of, set_login

logger = logging.getLogger(__name__)

_RELATIONS: Final = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = ANY ($1)"
_FUNCTIONS: Final = "SELECT oid::regprocedure::text AS name FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
_ROLES: Final = "SELECT count(*) FROM pg_roles WHERE rolname = ANY ($1)"
_MAY_MAKE: Final = "SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user"
# PostgreSQL makes the creator of a role a member with the admin option. That member is no login of the role.
_MEMBER: Final = """
    SELECT EXISTS (
        SELECT FROM pg_auth_members AS m WHERE m.member = r.oid AND m.roleid = $2::regrole AND NOT m.admin_option
    )
    FROM pg_roles AS r WHERE r.rolname = $1"""


async def grant(connection: asyncpg.Connection) -> bool:
    """Make the roles of the accounts where they are missing, and give each the rights of this version, in one step.
    False where they are missing and this owner may make none: then all services log in as the owner, as before.

    Raises:
        asyncpg.PostgresError: the server refuses.
    """
    roles = [role_of(account) for account in Account]
    if await connection.fetchval(_ROLES, roles) < len(roles):
        if not await connection.fetchval(_MAY_MAKE):
            logger.warning("no roles for the services: the owner of the database lacks CREATEROLE")
            return False
        await connection.execute(make_roles())
    async with connection.transaction():
        tables = [row["relname"] for row in await connection.fetch(_RELATIONS, [b"r", b"p"])]
        sequences = [row["relname"] for row in await connection.fetch(_RELATIONS, [b"S"])]
        functions = [row["name"] for row in await connection.fetch(_FUNCTIONS)]
        await connection.execute(grants(tables, sequences, functions))
    return True


async def let_in(connection: asyncpg.Connection, account: Account, user: str, password: str) -> None:
    """Make a login of an account, or give the one that is there another password.

    Raises:
        MigrationError: the name or the password is not allowed, or another role has the name.
        asyncpg.PostgresError: the server refuses.
    """
    is_member = await connection.fetchval(_MEMBER, user, role_of(account))
    if is_member is False:
        raise MigrationError(f"there is a role {user} already, and it is no login of {account.value}: choose another")
    try:
        statements = set_login(account, user, password)
    except ValueError as error:
        raise MigrationError(str(error)) from error
    await connection.execute(statements)


async def shut_out(connection: asyncpg.Connection, account: Account, user: str) -> None:
    """Remove a login of an account, and end the connections it has.

    Raises:
        MigrationError: there is no such login of this account.
        asyncpg.PostgresError: the server refuses.
    """
    if not await connection.fetchval(_MEMBER, user, role_of(account)):
        raise MigrationError(f"{account.value} has no login {user}")
    await connection.execute(f"ALTER ROLE {user} NOLOGIN")
    # Only a member may end the role's connections, and the creator of a role may make itself a member.
    await connection.execute(f"GRANT {user} TO CURRENT_USER")
    await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", user)
    await connection.execute(f"DROP ROLE {user}")
