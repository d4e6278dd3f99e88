"""Server URLs: puts credentials in, and hides them for display. Pure."""

from __future__ import annotations

from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit


class UrlInvalid(ValueError):
    """The URL cannot have credentials, or has others already. The text shows no secret."""


def with_credentials(url: str, *, password: str, user: str | None = None) -> str:
    """The URL with the password, in each of its servers (NATS allows several, separated by commas).

    Args:
        url: such as ``rediss://host:6379/0``; its user stays unless ``user`` is given.
        password: not encoded; it is percent-encoded here.
        user: replaces the user of the URL.

    Raises:
        UrlInvalid: the URL has no host, or another password.
    """
    return ",".join(urlunsplit(_completed(part, password, user)) for part in _parts(url))


def _completed(part: SplitResult, password: str, user: str | None) -> SplitResult:
    credentials, _, host = part.netloc.rpartition("@")
    known_user, has_password, known_password = credentials.partition(":")
    if not host:
        raise UrlInvalid("has no host")
    if has_password and unquote(known_password) != password:
        raise UrlInvalid("has a password in it, and another one was given beside it")
    name = known_user if user is None else quote(user, safe="")
    return part._replace(netloc=f"{name}:{quote(password, safe='')}@{host}")


def credentials_of(url: str) -> tuple[str, str] | None:
    """User and password of the first server that has both, decoded; None if none has."""
    for part in _parts(url):
        if part.username is not None and part.password is not None:
            return unquote(part.username), unquote(part.password)
    return None


def password_of(url: str) -> str:
    """The password in the URL, decoded; empty if there is none. The user may be empty, as with Redis."""
    found = (unquote(part.password) for part in _parts(url) if part.password is not None)
    return next(found, "")


def without_password(url: str) -> str:
    """The URL with its passwords hidden, for display and logs."""
    shown: list[str] = []
    for part in _parts(url):
        credentials, at, host = part.netloc.rpartition("@")
        user, has_password, _ = credentials.partition(":")
        shown.append(urlunsplit(part._replace(netloc=f"{user}{':***' if has_password else ''}{at}{host}")))
    return ",".join(shown)


def _parts(url: str) -> list[SplitResult]:
    """Each server's URL; one without a scheme takes that of the one before, or else ``nats``."""
    scheme = "nats"
    parts: list[SplitResult] = []
    for text in url.split(","):
        if "://" in text:
            scheme = text.split("://", 1)[0]
            parts.append(urlsplit(text))
        else:
            parts.append(urlsplit(f"{scheme}://{text}"))
    return parts
