"""Server URLs: puts credentials in, and hides them for display. Pure."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://")
_HOST_AND_PORT: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?")
# No path has an "@", and without a host there is no port.
_SERVER: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)?(?:(?P<login>[^@/?#]*)@)?"
    r"(?P<host>(?:(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d*)?)?(?:/[A-Za-z0-9._~%/+-]*)?)"
)
_ONE_SERVER: Final = ("redis", "rediss", "http", "https")
"""Schemes of which a URL has one server, so that a comma separates nothing."""
_WITH_TOKENS: Final = ("nats", "tls", "ws", "wss")
"""Schemes in which credentials without a colon are a token."""


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
    """The URL with its passwords hidden, for display and logs: also those that nobody should write so.

    A password is hidden before ``@`` and in the query, and so is a token of NATS. One that is not percent-encoded makes
    the URL mean something else: ``redis://:pa#ss@host`` has the host ``:pa``. So of a text that is no plain URL of
    servers only the scheme is shown and, where it can be told, the host. Nothing is raised.
    """
    if not url:
        return ""
    head, has_query, query = url.partition("?")
    scheme = _SCHEME.match(head)
    servers = [head] if scheme is None or scheme[1] in _ONE_SERVER else head.split(",")
    found = [_SERVER.fullmatch(server) for server in servers]
    logins = [server["login"] for server in found if server is not None]
    # A comma may belong to a password. Servers of one list have the same credentials, or only the first one has any.
    is_plain = len(logins) == len(servers) and (set(logins[1:]) <= {None} or len(set(logins)) == 1)
    if not is_plain or "@" in query or "#" in query:
        return _only_where(url, scheme)
    shown = ",".join(_hidden(server, scheme) for server in found if server is not None)
    return f"{shown}{has_query}{'***' if 'pass' in unquote(query).lower() else query}"


def _hidden(server: re.Match[str], scheme: re.Match[str] | None) -> str:
    before, login, host = server["scheme"] or "", server["login"], server["host"]
    if login is None:
        return before + host
    if scheme is None:
        return f"***@{host}"
    user, has_password, _ = login.partition(":")
    if not has_password and scheme[1] in _WITH_TOKENS:
        user = "***"
    return f"{before}{user}{':***' if has_password else ''}@{host}"


def _only_where(url: str, scheme: re.Match[str] | None) -> str:
    """What is left to show of a text whose parts cannot be told from each other."""
    # Behind the last "@" is the host, unless that is part of a query.
    host = _HOST_AND_PORT.match(url.rpartition("@")[2]) if "@" in url and "?" not in url else None
    return f"{scheme[0] if scheme else ''}***{f'@{host[0]}' if host else ''}"


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
