"""How a subcommand says that it could not do what was asked: one line that begins with "Error:", and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click
from typing_extensions import override


class Failure(click.ClickException):
    """Ends the command with this message on stderr. Exit code 1: something went wrong, or was refused."""

    @override
    def show(self, file: IO[Any] | None = None) -> None:
        click.secho(f"Error: {self.message.strip()}", file=file, fg="red", err=True, color=self.show_color)


class NobodyToAsk(Failure):
    """The same with exit code 2: there is no platform, or none that answers."""

    exit_code = 2
