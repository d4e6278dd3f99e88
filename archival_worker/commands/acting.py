"""Who runs a command that changes something, and why: for the record of acts."""

from __future__ import annotations

import functools
import getpass
import os
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import click

from archival_worker.store.acts import Actor
from shared import names

Command = TypeVar("Command", bound=Callable[..., Any])

REASON_MAX: Final = 500
_FOREIGN: Final = re.compile(r"[^A-Za-z0-9_.@-]")


def acting(command: Command) -> Command:
    """Options that say who acts and why; the command gets them as ``actor``."""

    @functools.wraps(command)
    def with_actor(*arguments: Any, by: str | None, reason: str, **options: Any) -> Any:
        return command(*arguments, actor=_actor(by, reason), **options)

    said = click.option("--reason", default="", help="The reason, for the record: `acts`.")(with_actor)
    named = click.option("--by", metavar="USER", help="Who does this, for the record; by default you.")
    return cast(Command, named(said))


def _actor(by: str | None, reason: str) -> Actor:
    if by is not None and not names.is_user_id(by):
        raise click.ClickException("--by: a user id is 1 to 64 characters of A-Z a-z 0-9 _ . @ -")
    if len(reason) > REASON_MAX or not reason.isprintable():
        raise click.ClickException(f"--reason: at most {REASON_MAX} characters that can be printed, on one line.")
    return Actor(by or signed_in(), reason)


def signed_in() -> str:
    """The user of the operating system that runs this."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        # In a container a user's number often has no name.
        user = f"uid-{os.getuid()}"
    return _FOREIGN.sub("_", user)[:64] or "unknown"
