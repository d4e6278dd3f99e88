"""``python -m archival_worker`` runs the worker; subcommands migrate, recover, retire, audit, and look after dead
letters.

Each subcommand has its own module, and so has the worker. A module is imported only when its command is called, because
importing the libraries of all commands would take longer than most commands do.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
from typing import Final

import click
import uvloop
from typing_extensions import override

from archival_worker.errors import ExportsMisconfigured
from archival_worker.settings import Settings
from shared.aws.settings import AwsSettings
from shared.clients.stream_settings import StreamSettings
from shared.logs import set_up_logging
from shared.settings import settings_or_exit
from shared.tracing.settings import TracingSettings

COMMANDS: Final = {
    "migrate": "archival_worker.commands.migrations:migrate_command",
    "api-keys": "archival_worker.commands.api_keys:api_keys",
    "login": "archival_worker.commands.logins:login",
    "recover": "archival_worker.commands.recovery:recover",
    "dead-letters": "archival_worker.commands.recovery:dead_letters",
    "retention": "archival_worker.commands.retention:retention",
    "acts": "archival_worker.commands.acts:acts",
    "audit": "archival_worker.commands.audit:audit",
    "verify-export": "archival_worker.commands.audit:verify_export",
}
"""By name, the module and the attribute of each subcommand."""


class _LazyGroup(click.Group):
    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command), f"{COMMANDS[cmd_name]} is no click command"
        return found


@click.group(cls=_LazyGroup, invoke_without_command=True)
@click.pass_context
def cli(context: click.Context) -> None:
    """Archive auction events from NATS JetStream in PostgreSQL. Settings come from the environment."""
    settings = settings_or_exit(Settings, AwsSettings, StreamSettings, TracingSettings)
    set_up_logging(settings.log_level, settings.log_format)
    context.obj = settings
    if context.invoked_subcommand is None:
        from archival_worker.main import run

        # A batch is tens of thousands of objects, most of which die with it and none in a cycle; the default threshold
        # would look for cycles dozens of times per batch. What is alive now (modules) need not be looked at again.
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run(settings))
        except (OSError, ExportsMisconfigured) as error:
            raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    cli()
