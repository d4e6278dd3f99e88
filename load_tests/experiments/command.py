"""``bidding experiment``: one subcommand per experiment, imported only when it is called."""

from __future__ import annotations

import importlib
from typing import Final

import click
from typing_extensions import override

from infrastructure.local.commands.options import require_no_tokens

_COMMANDS: Final = {
    "contention": "load_tests.experiments.contention.command:contention",
    "fanout": "load_tests.experiments.fanout.command:fanout",
    "resilience": "load_tests.experiments.resilience.command:resilience",
    "network": "load_tests.experiments.network.command:network",
    "environment": "load_tests.experiments.environment.command:environment",
    "compare": "load_tests.experiments.compare.command:compare",
}


class _Experiments(click.Group):
    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found


@click.command(cls=_Experiments)
def experiment() -> None:
    """Measure the platform, and compare what was measured."""
    require_no_tokens("Experiments")
