"""Help for people who type commands: examples at the end of a help text, and a guess at what a mistyped one means."""

from __future__ import annotations

import difflib

import click
from typing_extensions import override


def examples(*commands: str, then: str = "") -> str:
    """An epilog with these command lines, and a paragraph behind them. click keeps the lines behind ``\\b`` as they
    are."""
    lines = "\n".join(f"  {command}" for command in commands)
    return f"\b\n{'Example' if len(commands) == 1 else 'Examples'}:\n{lines}" + (f"\n\n{then}" if then else "")


class SuggestingGroup(click.Group):
    """A group that answers an unknown subcommand with those that may have been meant."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=3)
            if close:
                raise click.UsageError(f"{error.message} Did you mean {' or '.join(close)}?", ctx) from None
            raise
