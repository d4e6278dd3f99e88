"""What the settings of every service have in common: where they come from, and that they show no secret."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_settings import BaseSettings, SettingsConfigDict
from typing_extensions import override

from shared.server_urls import password_of, without_password


class EnvironmentSettings(BaseSettings):
    """Read from the environment, else from a file ``.env`` in the working directory, else the default.

    Names are those of the environment, in upper case. Errors name a wrong setting, and never show its value. Secrets
    are fields of the type ``SecretStr``; addresses are shown without their passwords.

    Raises:
        pydantic.ValidationError: a value has the wrong type or is out of range.
        OSError: there is a ``.env`` which cannot be read.
    """

    model_config = SettingsConfigDict(
        env_prefix="", env_file=".env", env_file_encoding="utf-8", extra="ignore", hide_input_in_errors=True
    )

    @override
    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            has_password = isinstance(value, str) and "://" in value and password_of(value)
            yield name, without_password(value) if has_password else value
