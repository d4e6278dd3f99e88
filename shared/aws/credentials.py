"""Credentials from the environment and from AWS Secrets Manager, joined into the settings that the services read.

A deployment keeps passwords apart from addresses. The starter of a service calls :func:`completed` on the environment
first; the service itself knows nothing but ``REDIS_URL``, ``NATS_URL`` and ``POSTGRES_URL``.

==========================  =========================================================================================
``REDIS_PASSWORD``          and ``REDIS_USER``, likewise ``NATS_…`` and ``POSTGRES_…``: put into the URL of that server
``REDIS_SECRET_ARN``        name or ARN of a secret that holds them: JSON with ``password`` and perhaps ``username``,
                            as RDS writes it, or the bare password
``AWS_SECRETS_ARNS``        names or ARNs of secrets, split by commas: JSON objects whose keys are settings, such as
                            ``{"ALIAS_SECRET": "…"}``; what is set already stays as it is
==========================  =========================================================================================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from shared.server_urls import UrlInvalid, password_of, with_credentials

SERVERS: Final = ("REDIS", "NATS", "POSTGRES")

LOCAL_MARK: Final = "local-"
"""Passwords and secrets that begin with it are in this repository, for everybody to read."""

_SECRET_ENDINGS: Final = ("_PASSWORD", "_SECRET", "_SECRET_ALSO")


class CredentialsInvalid(Exception):
    """The environment or a secret cannot be used; the text names settings, never their values."""


def completed(environment: Mapping[str, str], read_secret: Callable[[str], str]) -> dict[str, str]:
    """The environment with credentials in the URLs, and without the settings that they came from.

    Args:
        read_secret: the text of a secret, by name or ARN; called once for each that is named.

    Raises:
        CredentialsInvalid: a secret is not what it should be, or a password has no URL to go into.
        Exception: what ``read_secret`` raises.
    """
    result = dict(environment)
    for name in _names(result.pop("AWS_SECRETS_ARNS", "")):
        for key, value in _object("AWS_SECRETS_ARNS", read_secret(name)).items():
            if not isinstance(value, str):
                raise CredentialsInvalid(f"AWS_SECRETS_ARNS: {key} in {name} is not a text")
            result.setdefault(key, value)
    for server in SERVERS:
        _complete(result, server, read_secret)
    return result


def _complete(environment: dict[str, str], server: str, read_secret: Callable[[str], str]) -> None:
    """Move the credentials of one server into its URL."""
    password = environment.pop(f"{server}_PASSWORD", "")
    user = environment.pop(f"{server}_USER", "") or None
    arn = environment.pop(f"{server}_SECRET_ARN", "")
    if arn:
        if password:
            raise CredentialsInvalid(f"{server}_PASSWORD and {server}_SECRET_ARN are both set; give one of them")
        secret_user, password = _login(f"{server}_SECRET_ARN", read_secret(arn))
        user = user or secret_user
    if not password:
        if user:
            raise CredentialsInvalid(f"{server}_USER is set, but neither {server}_PASSWORD nor {server}_SECRET_ARN")
        return
    url = environment.get(f"{server}_URL", "")
    if not url:
        raise CredentialsInvalid(f"there is a password for {server}, but {server}_URL is not set")
    try:
        environment[f"{server}_URL"] = with_credentials(url, password=password, user=user)
    except UrlInvalid as error:
        raise CredentialsInvalid(f"{server}_URL {error}") from error


def _login(setting: str, text: str) -> tuple[str | None, str]:
    """User, if given, and password."""
    if not text.lstrip().startswith("{"):
        return None, text.strip()
    login = _object(setting, text)
    user, password = login.get("username"), login.get("password")
    if not isinstance(password, str) or not password or not isinstance(user, str | None):
        raise CredentialsInvalid(f"{setting}: the secret has no text `password`, or a `username` that is no text")
    return user, password


def _object(setting: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        # Without the cause: it quotes the text.
        raise CredentialsInvalid(f"{setting}: the secret is not JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise CredentialsInvalid(f"{setting}: the secret is not a JSON object")
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def local_secrets(environment: Mapping[str, str]) -> list[str]:
    """The settings that hold a password or secret that is published in this repository; to be called on a completed
    environment.
    """
    found = [f"{server}_URL" for server in SERVERS if _is_local(password_of(environment.get(f"{server}_URL", "")))]
    found += [name for name, value in environment.items() if name.endswith(_SECRET_ENDINGS) and _is_local(value)]
    return sorted(found)


def _is_local(secret: str) -> bool:
    return secret.startswith(LOCAL_MARK)
