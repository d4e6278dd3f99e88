"""Options that several subcommands share."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, TypeVar
from urllib.parse import urlsplit

import click
from typing_extensions import override

from infrastructure.local.servers.ports import Ports, setting_of
from infrastructure.local.services import PURPOSES

Command = TypeVar("Command", bound=Callable[..., Any])

PORT_NAMES = tuple(field.name for field in dataclasses.fields(Ports))


class Number(click.FloatRange):
    """A finite number within bounds. click itself lets ``nan`` pass, and ``inf`` if there is no upper bound."""

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is no number that can be worked with.", param, ctx)
        return number


def data_dir_option(command: Command) -> Command:
    return click.option(
        "--data-dir",
        envvar="BIDDING_DATA_DIR",
        default=".bidding",
        show_default=True,
        show_envvar=True,
        type=click.Path(file_okay=False, path_type=Path),
        help="The folder that keeps all data.",
    )(command)


def http_url(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The callback of an option for the address of a service. Removes a slash at the end."""
    if not value:
        return None
    try:
        parts = urlsplit(value)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        raise click.BadParameter(f"{value!r} is no address such as http://127.0.0.1:8080", ctx, param)
    return value.rstrip("/")


def port_options(command: Command) -> Command:
    """One option and one variable per port. The values arrive as keyword arguments `<name>_port`."""
    for field in reversed(dataclasses.fields(Ports)):
        setting = setting_of(field.name)
        command = click.option(
            "--" + setting.lower().replace("_", "-"),
            envvar=setting,
            type=click.IntRange(1, 65_535),
            default=field.default,
            show_default=True,
            show_envvar=True,
            help=f"Port of {PURPOSES[field.name]}.",
        )(command)
    return command


def ports_from(options: dict[str, Any]) -> Ports:
    """The Ports from the keyword arguments of `port_options`."""
    return Ports(**{name: options[f"{name}_port"] for name in PORT_NAMES})


def require_no_tokens(what: str) -> None:
    """Raises ClickException if the environment says that tokens are demanded, since ``what`` sends none."""
    if os.environ.get("AUTH_MODE") == "jwt":
        raise click.ClickException(f"{what} send no tokens yet: set AUTH_MODE=open, for the platform too.")


class ExternalUrls(TypedDict):
    """Keyword arguments of Stack."""

    redis_url: str | None
    nats_url: str | None
    postgres_url: str | None


def external_urls() -> ExternalUrls:
    """The servers that run already and are to be used, from REDIS_URL, NATS_URL and POSTGRES_URL."""
    return ExternalUrls(
        redis_url=os.environ.get("REDIS_URL") or None,
        nats_url=os.environ.get("NATS_URL") or None,
        postgres_url=os.environ.get("POSTGRES_URL") or None,
    )
