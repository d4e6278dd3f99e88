"""Options that all experiments share, and how numbers in a row are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from infrastructure.local.commands.options import data_dir_option, http_url
from load_tests.experiments.common.platform import Asked
from load_tests.run.tag import run_tag

Command = TypeVar("Command", bound=Callable[..., Any])
_STEPS_MAX = 50


def place_options(command: Command) -> Command:
    """Where to run, and where to write. The values arrive as the keyword arguments that :func:`asked_from` takes."""
    for option in (
        click.option("--yes", is_flag=True, help="Send load to the named target on another machine without asking."),
        click.option(
            "--out", type=click.Path(path_type=Path, dir_okay=False), help="File for the result (JSON). [a new one]"
        ),
        data_dir_option,
        click.option("--private", is_flag=True, help="Use a private stack for this run, even if a platform is up."),
        click.option("--aws", is_flag=True, help="Say in the report that the target is on AWS."),
        click.option("--compose", is_flag=True, help="Use the compose stack on this machine."),
        click.option("--postgres-url", envvar="POSTGRES_URL", help="PostgreSQL of the target, for the proof."),
        click.option("--nats-url", envvar="NATS_URL", help="NATS of the target, for the proof."),
        click.option("--redis-url", envvar="REDIS_URL", help="Redis of the target, for the proof."),
        click.option("--feed-url", callback=http_url, help="Live feed of the target."),
        click.option("--target", callback=http_url, help="Gateway to load. [the platform that is up here]"),
    ):
        command = option(command)
    return command


def asked_from(options: dict[str, Any]) -> Asked:
    """What :func:`place_options` brought, without ``out``."""
    names = (
        "target",
        "feed_url",
        "redis_url",
        "nats_url",
        "postgres_url",
        "compose",
        "aws",
        "data_dir",
        "private",
        "yes",
    )
    return Asked(**{name: options[name] for name in names})


def out_from(options: dict[str, Any], kind: str) -> Path:
    """Where the result goes: as asked, or a new file beside the platform's data."""
    given: Path | None = options["out"]
    data_dir: Path = options["data_dir"]
    return given or data_dir / "reports" / f"{kind}-{run_tag()}.json"


def counts(least: int, most: int) -> Callable[[click.Context, click.Parameter, str], tuple[int, ...]]:
    """The callback of an option such as ``--users 100,500,1000``: whole numbers from ``least`` to ``most``, rising."""

    def read(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...]:
        texts = [text.strip().replace("_", "") for text in value.split(",")]
        if not all(text.isascii() and text.isdigit() for text in texts):
            raise click.BadParameter(f"{value!r} is no list of numbers such as 100,500,1000", ctx, param)
        numbers = tuple(int(text) for text in texts)
        if not all(least <= number <= most for number in numbers) or len(numbers) > _STEPS_MAX:
            raise click.BadParameter(f"each is from {least:,} to {most:,}, and at most {_STEPS_MAX}", ctx, param)
        if list(numbers) != sorted(set(numbers)):
            raise click.BadParameter(f"{value!r} does not rise", ctx, param)
        return numbers

    return read
