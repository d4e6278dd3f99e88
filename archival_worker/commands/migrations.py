"""``python -m archival_worker migrate``."""

from __future__ import annotations

import asyncio

import click

from archival_worker.commands.logins import LoginSettings, make_logins
from archival_worker.errors import MigrationError
from archival_worker.settings import Settings
from archival_worker.store.migrate import migrate
from shared.settings import settings_or_exit


@click.command("migrate")
@click.pass_obj
def migrate_command(settings: Settings) -> None:
    """Apply the migrations that are missing, and say who may read and write what. Safe to run again, and at the same
    time."""
    logins = settings_or_exit(LoginSettings)
    try:
        applied = asyncio.run(migrate(settings.postgres_url, wait_s=settings.archiver_migrate_wait_s))
        let_in = asyncio.run(make_logins(settings.postgres_url, logins))
    except MigrationError as error:
        raise click.ClickException(str(error)) from error
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("the schema is up to date")
    if let_in:
        click.echo(f"logins: {', '.join(let_in)}")
