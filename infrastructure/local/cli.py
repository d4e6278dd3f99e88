"""The `bidding` command. Each subcommand has its own module, imported only when the subcommand is called."""

from __future__ import annotations

import importlib
import io
import os
import sys
from importlib.metadata import entry_points

import click
from typing_extensions import override

from infrastructure.local.commands.helping import SuggestingGroup

# name → "module:attribute" of a click command. To add a subcommand, add a line. A package that imports this one adds
# its subcommands to the entry points in pyproject.toml, so that nothing here names that package.
LAZY = {
    "up": "infrastructure.local.commands.platform.up:up",
    "down": "infrastructure.local.commands.platform.down:down",
    "status": "infrastructure.local.commands.platform.status:status",
    "logs": "infrastructure.local.commands.platform.logs:logs",
    "demo": "infrastructure.local.commands.platform.demo:demo",
    "import": "infrastructure.local.commands.auctions.import_lots:import_lots",
    "doctor": "infrastructure.local.commands.platform.doctor:doctor",
    "recover": "infrastructure.local.commands.archive.worker:recover",
    "dead-letters": "infrastructure.local.commands.archive.worker:dead_letters",
    "retention": "infrastructure.local.commands.archive.worker:retention",
    "acts": "infrastructure.local.commands.archive.worker:acts",
    "audit": "infrastructure.local.commands.archive.audit:audit",
    "verify-export": "infrastructure.local.commands.archive.audit:verify_export",
    "cache": "infrastructure.local.commands.platform.cache:cache",
    "items": "infrastructure.local.commands.auctions.items:items",
    "bidders": "infrastructure.local.commands.auctions.bidders:bidders",
    "feed-token": "infrastructure.local.commands.identity.feed_token:feed_token",
    "api-keys": "infrastructure.local.commands.identity.api_keys:api_keys",
    "token": "infrastructure.local.commands.identity.tokens:tokens",
    "deploy-check": "infrastructure.local.commands.aws.deploy_check:deploy_check",
    "deploy": "infrastructure.local.commands.aws.deploy:deploy",
}
ENTRY_POINTS = "bidding.commands"


def commands() -> dict[str, str]:
    """Every subcommand, as in LAZY: those of this package, then those of others."""
    return LAZY | {each.name: each.value for each in entry_points(group=ENTRY_POINTS)}


class LazyGroup(SuggestingGroup):
    """A group that imports a subcommand only to run it, or to list it in --help."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(commands())

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = LAZY.get(cmd_name) or commands().get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            return _unavailable(cmd_name, error)
        if not isinstance(found, click.Command):
            raise TypeError(f"{place} is no click command")
        return found


def _unavailable(name: str, error: ImportError) -> click.Command:
    """Replaces a command whose packages are missing, so that the others still work and --help lists it."""

    @click.command(name, help=f"(not available here: {error})", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def explain(arguments: tuple[str, ...]) -> None:
        raise click.ClickException(f"`bidding {name}` is not available here: {error}. `make install-dev` may help.")

    return explain


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bidding-platform")
@click.pass_context
def main(context: click.Context) -> None:
    """A real-time bidding platform on this machine: its servers, its services and their data."""
    if os.environ.get("NO_COLOR"):
        context.color = False
    for stream in (sys.stdout, sys.stderr):
        # A terminal whose encoding has no check mark shows a question mark, and no traceback.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
