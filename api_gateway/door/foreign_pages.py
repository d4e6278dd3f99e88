"""Requests that a page of another site makes a browser send: they are refused, whatever the browser adds to them.

A page may have any browser send a POST with a text or a form anywhere, without asking first. It reads no answer, and a
bid would count nevertheless. Browsers say where such a request comes from, and no page can change what they say. The
checks and their order are those of Go's ``http.CrossOriginProtection``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from shared.domain.errors import BiddingError

_OWN: Final = (b"same-origin", b"none")
"""``Sec-Fetch-Site`` of a page of ours, and of what a user typed."""

_NO_BODY: Final = (None, b"0")

Headers = Iterable[tuple[bytes, bytes]]


class OriginNotAllowed(BiddingError):
    """A page of another origin asks for what it may not."""

    code = "ORIGIN_NOT_ALLOWED"


class NotJson(BiddingError):
    """The request does not say that its body is JSON."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class ForeignPages:
    """Refuses requests of such pages, unless they only read."""

    def __init__(self, origins: Sequence[str], *, json_only: bool) -> None:
        """
        Args:
            origins: pages of these may do it, in lower case; ``*``: all.
            json_only: whether a body that is not said to be JSON is refused. No form can send JSON.
        """
        self._origins = origins
        self._json_only = json_only

    def check(self, headers: Headers, *, is_json: bool = True) -> None:
        """Whether a request with these headers may change something.

        ``is_json``: whether the body, if there is one, has to be JSON. Where it is not, the handler looks at its type.
        The Content-Type of a request without a body does not matter: some clients send one with each POST.

        Raises:
            OriginNotAllowed: it comes from a page that may not.
            NotJson: its body is none that is taken.
        """
        origin = site = host = kind = length = coding = None
        for name, value in headers:
            if name == b"origin":
                origin = value
            elif name == b"sec-fetch-site":
                site = value
            elif name == b"host":
                host = value
            elif name == b"content-type":
                kind = value
            elif name == b"content-length":
                length = value
            elif name == b"transfer-encoding":
                coding = value
        self._check_origin(origin, site, host)
        if is_json:
            self._check_type(kind, length, coding)

    def check_named(self, headers: Mapping[bytes, bytes]) -> None:
        """The same for headers of which none is there twice, and a body that has to be JSON, in one piece."""
        self._check_origin(headers.get(b"origin"), headers.get(b"sec-fetch-site"), headers.get(b"host"))
        self._check_type(headers.get(b"content-type"), headers.get(b"content-length"), None)

    def _check_type(self, kind: bytes | None, length: bytes | None, coding: bytes | None) -> None:
        if self._json_only and not _is_json(kind) and (coding is not None or length not in _NO_BODY):
            raise NotJson("send Content-Type: application/json; curl does with --json instead of -d")

    def _check_origin(self, origin: bytes | None, site: bytes | None, host: bytes | None) -> None:
        # Most bidders are programs, which send neither header.
        if (site is not None or origin is not None) and not self._may(origin, site, host):
            raise OriginNotAllowed("pages of another origin may not do this here; GATEWAY_ORIGINS names those that may")

    def _may(self, origin: bytes | None, site: bytes | None, host: bytes | None) -> bool:
        if site in _OWN:
            return True
        said = "" if origin is None else origin.decode("latin-1")
        # The browser has compared the origins, better than can be done here: behind a proxy the host may be another.
        own = "" if site is not None or host is None else host.decode("latin-1")
        return is_allowed(said, own, self._origins)


def is_allowed(origin: str, host: str, others: Sequence[str]) -> bool:
    """Whether pages of this origin may bid: those of the gateway's own host, and of ``others`` (``*`` for all)."""
    if "*" in others or origin.lower() in others:
        return True
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:
        return False


def _is_json(media_type: bytes | None) -> bool:
    if media_type == b"application/json" or media_type is None:
        return media_type is not None
    kind = media_type.partition(b";")[0].strip().lower()
    return kind == b"application/json" or (kind.startswith(b"application/") and kind.endswith(b"+json"))
