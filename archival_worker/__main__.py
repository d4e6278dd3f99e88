"""``python -m archival_worker`` runs the worker; subcommands migrate, recover, audit, and look after dead letters."""

from __future__ import annotations

import asyncio

import click
import uvloop

from archival_worker.commands.acts import acts
from archival_worker.commands.api_keys import api_keys
from archival_worker.commands.audit import audit, verify_export
from archival_worker.commands.logins import LoginSettings, login, make_logins
from archival_worker.commands.recovery import dead_letters, recover
from archival_worker.errors import ExportsMisconfigured, MigrationError
from archival_worker.main import run
from archival_worker.settings import Settings
from archival_worker.store.migrate import migrate
from shared.aws.settings import AwsSettings
from shared.clients.nats import StreamSettings
from shared.logs import set_up_logging
from shared.settings import settings_or_exit
from shared.tracing.settings import TracingSettings


@click.group(invoke_without_command=True)
@click.pass_context
def cli(context: click.Context) -> None:
    """Archive auction events from NATS JetStream in PostgreSQL. Settings come from the environment."""
    settings = settings_or_exit(Settings, AwsSettings, StreamSettings, TracingSettings)
    set_up_logging(settings.log_level, settings.log_format)
    context.obj = settings
    if context.invoked_subcommand is None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run(settings))
        except (OSError, ExportsMisconfigured) as error:
            raise click.ClickException(str(error)) from error


@cli.command("migrate")
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


cli.add_command(acts)
cli.add_command(api_keys)
cli.add_command(login)
cli.add_command(recover)
cli.add_command(dead_letters)
cli.add_command(audit)
cli.add_command(verify_export)


if __name__ == "__main__":
    cli()
