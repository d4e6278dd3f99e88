"""``python -m archival_worker api-keys``: makes, lists and revokes the keys of services."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import asyncpg
import click
from redis.exceptions import RedisError

from archival_worker.commands.acting import acting
from archival_worker.settings import Settings
from archival_worker.store.acts import Actor, record
from shared import names
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis, told_of
from shared.identity.api_keys import KEY_ID_PATTERN, KEYS_MAX, ApiKeySettings, make_key
from shared.identity.errors import TooManyRevocations
from shared.identity.revocations import KEPT_OF_KEYS_S, OF_API_KEY
from shared.identity.tokens import Role
from shared.redis_layout.revocations import RevocationStore
from shared.settings import settings_or_exit
from shared.timefmt import from_datetime, to_rfc3339

T = TypeVar("T")

_NAME: Final = "archival-worker-operator"
_NAME_CHARACTERS_MAX: Final = 100
_DAYS_MAX: Final = 3_650
_LISTED_MAX: Final = 1_000
_ALIVE: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

_COUNT: Final = f"SELECT count(*) FROM api_keys WHERE {_ALIVE}"
_INSERT: Final = """
    INSERT INTO api_keys (key_id, name, digest, user_id, roles, expires_at) VALUES ($1, $2, $3, $4, $5, $6)"""
_LIST: Final = f"""
    SELECT key_id, name, user_id, roles, created_at, expires_at, revoked_at FROM api_keys
    WHERE $1 OR {_ALIVE} ORDER BY created_at DESC, key_id LIMIT {_LISTED_MAX}"""
_ENDED_LATELY: Final = "SELECT revoked_at > now() - interval '1 hour' FROM api_keys WHERE key_id = $1"
_REDIS_TIMEOUT_S: Final = 10.0
_REVOKE: Final = "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1 AND revoked_at IS NULL RETURNING user_id"


@click.group("api-keys")
def api_keys() -> None:
    """The keys with which services get tokens of the API."""


@api_keys.command("create")
@click.argument("name")
@click.option("--user", required=True, help="The user in whose name the service acts.")
@click.option(
    "--role",
    "roles",
    multiple=True,
    required=True,
    type=click.Choice([role.value for role in Role]),
    help="The role of the service; may be given several times.",
)
@click.option("--days", type=click.IntRange(1, _DAYS_MAX), help="Days until the key expires.")
@acting
@click.pass_obj
def create(settings: Settings, name: str, user: str, roles: tuple[str, ...], days: int | None, *, actor: Actor) -> None:
    """Make a key for the service called NAME. The key is shown only once."""
    secrets = settings_or_exit(ApiKeySettings).api_key_secrets
    if not secrets:
        raise click.ClickException("API_KEY_SECRET is not set: the gateways and this command need the same one.")
    if not names.is_user_id(user):
        raise click.ClickException("A user id is 1 to 64 characters of A-Z a-z 0-9 _ . @ -")
    if not name.strip() or len(name) > _NAME_CHARACTERS_MAX or not name.isprintable():
        raise click.ClickException(f"A name has 1 to {_NAME_CHARACTERS_MAX} characters that can be printed.")
    key = make_key(secrets.now())
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)

    async def store(pool: asyncpg.Pool) -> None:
        if await pool.fetchval(_COUNT) >= KEYS_MAX:
            raise click.ClickException(f"There are {KEYS_MAX} keys already; revoke some.")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(_INSERT, key.key_id, name, key.digest, user, sorted(set(roles)), expires_at)
            await record(connection, "create_api_key", key.key_id, actor)

    _with_archive(settings, store)
    click.echo(f"The key {key.key_id} of {name}; it cannot be shown again:", err=True)
    click.echo(key.text)


@api_keys.command("list")
@click.option("--all", "with_ended", is_flag=True, help="Also show revoked and expired keys.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def list_keys(settings: Settings, with_ended: bool, as_json: bool) -> None:
    """Show the keys, newest first. Replace those that are marked so: they were made with a former API_KEY_SECRET."""

    secrets = settings_or_exit(ApiKeySettings).api_key_secrets

    async def read(pool: asyncpg.Pool) -> Sequence[asyncpg.Record]:
        found: Sequence[asyncpg.Record] = await pool.fetch(_LIST, with_ended)
        return found

    rows = _with_archive(settings, read)
    if not rows and not as_json:
        click.echo("There are no API keys." if with_ended else "There are no valid API keys.")
    for row in rows:
        told = {name: _shown(value) for name, value in row.items()}
        is_former = bool(secrets.also) and from_datetime(row["created_at"]) < secrets.since_us
        if secrets.also:
            told["to_be_replaced"] = is_former
        if as_json:
            click.echo(json.dumps(told))
            continue
        until = f"until {told['expires_at']}" if told["expires_at"] else "without an end"
        state = f"revoked {told['revoked_at']}" if told["revoked_at"] else until
        former = "  to be replaced" if is_former else ""
        click.echo(f"{told['key_id']}  {told['user_id']} ({', '.join(row['roles'])})  {state}{former}  {told['name']}")


@api_keys.command("revoke")
@click.argument("key_id")
@acting
@click.pass_obj
def revoke(settings: Settings, key_id: str, *, actor: Actor) -> None:
    """Revoke the key with this KEY_ID and the tokens that were given for it, within seconds and everywhere."""
    if re.fullmatch(KEY_ID_PATTERN, key_id) is None:
        raise click.ClickException("A key's id has 12 letters and digits: it stands behind bk_ in the key.")

    async def write(pool: asyncpg.Pool) -> tuple[bool, bool]:
        """Whether it was revoked now, and whether tokens for it may be alive."""
        async with pool.acquire() as connection, connection.transaction():
            is_new = await connection.fetchval(_REVOKE, key_id) is not None
            if is_new:
                await record(connection, "revoke_api_key", key_id, actor)
            # Also of one that was revoked before: that may have been told to nobody.
            return is_new, bool(await connection.fetchval(_ENDED_LATELY, key_id))

    is_new, may_live = _with_archive(settings, write)
    if may_live:
        try:
            asyncio.run(_end_tokens(settings, key_id))
        except (RedisError, OSError, TimeoutError, TooManyRevocations) as error:
            why = f"{told_of(error)}. Run it again, or wait: they live for ten minutes."
            raise click.ClickException(
                f"The key {key_id} is revoked, and the tokens that were given for it are not: {why}"
            ) from error
    if not is_new:
        raise click.ClickException(f"There is no key {key_id}, or it is revoked already.")
    click.echo(f"The key {key_id} is revoked, and so are the tokens that were given for it.")


async def _end_tokens(settings: Settings, key_id: str) -> None:
    redis = open_redis(settings.redis_url, timeout_s=_REDIS_TIMEOUT_S, connections_max=1)
    try:
        await RevocationStore(redis).revoke(f"{OF_API_KEY}{key_id}", kept_s=KEPT_OF_KEYS_S)
    finally:
        await redis.aclose()


def _shown(value: Any) -> Any:
    return to_rfc3339(from_datetime(value)) if isinstance(value, datetime) else value


def _with_archive(settings: Settings, work: Callable[[asyncpg.Pool], Awaitable[T]]) -> T:
    async def run() -> T:
        pool = await open_postgres(settings.postgres_url, name=_NAME, connections_max=1)
        try:
            return await work(pool)
        finally:
            pool.terminate()

    try:
        return asyncio.run(run())
    except asyncpg.UndefinedTableError as error:
        raise click.ClickException("The archive lacks a table: run `migrate`.") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise click.ClickException(f"PostgreSQL cannot be asked: {str(error) or type(error).__name__}") from error
