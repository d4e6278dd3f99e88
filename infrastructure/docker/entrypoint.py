"""The image's entry point: ``<program> [argument…]``. Puts credentials in place, then becomes the program.

The program replaces this process (``exec``), so signals reach it and nothing of this stays in memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import click

from infrastructure.docker.authorities import with_authority
from infrastructure.docker.programs import PROGRAMS, Program
from shared.aws.clients import AwsError, open_secrets, read_secret
from shared.aws.credentials import CredentialsInvalid, completed, local_secrets
from shared.aws.discovery import find_servers

EXIT_USAGE: Final = 64
EXIT_CONFIGURATION: Final = 78
"""Both from sysexits.h."""


class StartRefused(Exception):
    """The program must not or cannot be started like this; the text says what to change."""


def choose(arguments: Sequence[str]) -> tuple[Program, list[str]]:
    """The named program, and the arguments for it.

    Raises:
        StartRefused: there is no program of that name.
    """
    known = ", ".join(PROGRAMS)
    if not arguments:
        raise StartRefused(f"name what to run: {known}")
    name, *rest = arguments
    if name not in PROGRAMS:
        raise StartRefused(f"there is no program {name!r} in this image; there are {known}")
    return PROGRAMS[name], rest


def prepared(environment: Mapping[str, str], program: Program) -> dict[str, str]:
    """The environment for the program: with credentials, and with addresses if a service registry has them.

    Raises:
        StartRefused: credentials are missing, cannot be read, or are those published with the source.
    """
    try:
        result = completed(environment, lambda name: read_secret(open_secrets(), name))
        result = with_authority(find_servers(result))
    except (CredentialsInvalid, AwsError, ValueError, OSError) as error:
        raise StartRefused(str(error)) from error
    if result.get("ENVIRONMENT") != "local":
        if known := local_secrets(result):
            raise StartRefused(
                f"{', '.join(known)}: a secret that is published with the source. Set your own, "
                "or ENVIRONMENT=local where nobody else can reach this machine's ports"
            )
        if missing := [name for name in program.needs if not result.get(name)]:
            raise StartRefused(f"{', '.join(missing)} must be set unless ENVIRONMENT=local")
    return result


def main() -> None:
    """Become the program. Exit status 64: no such program; 78: it cannot be started with this configuration."""
    try:
        program, rest = choose(sys.argv[1:])
    except StartRefused as error:
        click.echo(f"entrypoint: {error}", err=True)
        sys.exit(EXIT_USAGE)
    try:
        environment = prepared(os.environ, program)
    except StartRefused as error:
        click.echo(f"entrypoint: {error}", err=True)
        sys.exit(EXIT_CONFIGURATION)
    os.execve(sys.executable, [sys.executable, "-m", program.module, *program.arguments, *rest], environment)


if __name__ == "__main__":
    main()
