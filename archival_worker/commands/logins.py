"""``python -m archival_worker login`` and ``migrate``'s logins: which logins of services PostgreSQL lets in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg
import click
from pydantic import SecretStr

from archival_worker.errors import MigrationError
from archival_worker.settings import Settings
from archival_worker.store.grants import let_in, shut_out
from shared.permissions.accounts import Account
from shared.settings import EnvironmentSettings, settings_or_exit

_TIMEOUT_S: Final = 30.0


class LoginSettings(EnvironmentSettings):
    """The passwords of the services' logins at PostgreSQL. Only the owner of the database needs them all.

    Attributes:
        gateway_password: of the login `gateway`, and so on. `migrate` makes each login that has a password here, or
            gives an existing one this password. Empty: the login is left alone.
        login_password: of the login that the command `login` makes.
    """

    gateway_password: SecretStr = SecretStr("")
    broadcaster_password: SecretStr = SecretStr("")
    archiver_password: SecretStr = SecretStr("")
    cache_password: SecretStr = SecretStr("")
    operator_password: SecretStr = SecretStr("")
    login_password: SecretStr = SecretStr("")

    def of(self, account: Account) -> str:
        """The password of the account's first login; empty for none."""
        password: SecretStr = getattr(self, f"{account.value}_password")
        return password.get_secret_value()


async def make_logins(url: str, settings: LoginSettings) -> list[str]:
    """Make the logins that have passwords. Returns their names.

    Raises:
        MigrationError: PostgreSQL refuses, or cannot be asked.
    """
    wanted = [(account, settings.of(account)) for account in Account if settings.of(account)]

    async def work(connection: asyncpg.Connection) -> None:
        for account, password in wanted:
            await let_in(connection, account, account.value, password)

    if wanted:
        await _as_owner(url, work)
    return [account.value for account, _ in wanted]


@click.command("login")
@click.argument("account", type=click.Choice([account.value for account in Account]))
@click.argument("user")
@click.option("--remove", is_flag=True, help="Remove the login, and end its connections.")
@click.pass_obj
def login(settings: Settings, account: str, user: str, remove: bool) -> None:
    """Let USER into PostgreSQL with the rights of ACCOUNT, with the password in LOGIN_PASSWORD.

    A second login of an account lets its services change over to another password one after the other.
    """
    password = settings_or_exit(LoginSettings).login_password.get_secret_value()
    if not remove and not password:
        raise click.ClickException("LOGIN_PASSWORD is not set: it is the password of the login.")

    async def work(connection: asyncpg.Connection) -> None:
        if remove:
            await shut_out(connection, Account(account), user)
        else:
            await let_in(connection, Account(account), user, password)

    try:
        asyncio.run(_as_owner(settings.postgres_url, work))
    except MigrationError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{user} gets in no longer" if remove else f"{user} gets in as {account}")


async def _as_owner(url: str, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
    try:
        connection = await asyncpg.connect(url, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
        try:
            await work(connection)
        finally:
            connection.terminate()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError) as error:
        raise MigrationError(f"PostgreSQL: {type(error).__name__}: {error}") from error
