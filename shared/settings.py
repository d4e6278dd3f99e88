"""What the settings of every service have in common: where they come from, that they show no secret, and how a program
ends whose settings are wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override

from shared.clients.cluster.addresses import ClusterUrl, is_cluster_url
from shared.server_urls import without_password

EXIT_MISCONFIGURED: Final = 2

_NUMBERS: Final = {int: "a whole number", float: "a number"}


def _in_capitals(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _checked_redis_url(url: str) -> str:
    """Raises ValueError where it has the scheme of a cluster and is not the URL of one."""
    if is_cluster_url(url):
        ClusterUrl.parse(url)
    return url


RedisUrl = Annotated[str, AfterValidator(_checked_redis_url)]
"""Where Redis is: :func:`shared.clients.redis.open_redis`."""

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_in_capitals)]
"""A level of Python's logging; also in small letters."""


class _File(DotEnvSettingsSource):
    """The `.env`, without what the environment has as an empty value: that is the default."""

    @override
    def __call__(self) -> dict[str, Any]:
        empty = {name.lower() for name, value in os.environ.items() if not value}
        return {name: value for name, value in super().__call__().items() if name.lower() not in empty}


class EnvironmentSettings(BaseSettings):
    """Read from the environment, else from a file ``.env`` in the working directory, else the default. An empty value
    is the default.

    Names are those of the environment, in upper case. Errors name a wrong setting, and never show its value. Secrets
    are fields of the type ``SecretStr``; addresses are shown without their passwords.

    Raises:
        pydantic.ValidationError: a value has the wrong type or is out of range.
        OSError, UnicodeError: there is a ``.env`` which cannot be read.
    """

    model_config = SettingsConfigDict(
        env_prefix="",
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _File(settings_cls)

    @override
    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            is_address = isinstance(value, str) and ("://" in value or "@" in value)
            yield name, without_password(value) if is_address else value


S = TypeVar("S", bound=EnvironmentSettings)


def settings_or_exit(own: type[S], *others: type[EnvironmentSettings]) -> S:
    """The settings of a program, for its ``main``.

    Where any are wrong the process ends with exit code 2, and a line on stderr for each tells what is allowed.

    Args:
        others: what else the program reads later, so that a mistake there is found at the start.
    """
    wrong: list[str] = []
    found: S | None = None
    classes: tuple[type[EnvironmentSettings], ...] = (own, *others)
    for each in classes:
        try:
            made = each()
        except ValidationError as error:
            wrong += _complaints(each, error)
        except (OSError, UnicodeError) as error:
            wrong.append(f".env cannot be read as UTF-8: {type(error).__name__}: {error}")
            break
        else:
            found = made if isinstance(made, own) else found
    if not wrong and found is not None:
        return found
    sys.stderr.write("".join(f"error: {line}\n" for line in dict.fromkeys(wrong)))
    sys.exit(EXIT_MISCONFIGURED)


def _complaints(settings: type[EnvironmentSettings], error: ValidationError) -> Iterator[str]:
    for each in error.errors(include_url=False, include_context=True, include_input=False):
        said = each["msg"].removeprefix("Value error, ")
        if not each["loc"]:
            yield said  # of several at once, which it names
            continue
        name = str(each["loc"][0])
        field = settings.model_fields.get(name)
        is_our_own = each["type"] == "value_error" or field is None
        yield f"{name.upper()} {said}" if is_our_own or field is None else f"{name.upper()} must be {_allowed(field)}"


def _allowed(field: FieldInfo) -> str:
    """What a value may be, in words."""
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(field.annotation)))}"
    if field.annotation is bool:
        return "true or false"
    kind = next((text for number, text in _NUMBERS.items() if field.annotation is number), "a text")
    bounds = {type(each).__name__: getattr(each, type(each).__name__.lower(), None) for each in field.metadata}
    if "Ge" in bounds and "Le" in bounds:
        return f"{kind} from {bounds['Ge']} to {bounds['Le']}"
    if "Gt" in bounds:
        return f"{kind} above {bounds['Gt']}" + (f", at most {bounds['Le']}" if "Le" in bounds else "")
    return f"{kind}, at least {bounds['Ge']}" if "Ge" in bounds else kind
