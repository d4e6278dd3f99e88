"""Which pages of other origins may use a service: the settings of both services that browsers talk to."""

from __future__ import annotations

from urllib.parse import urlsplit

from shared.http.proxies import listed


def checked_origins(text: str) -> str:
    """The setting itself: origins, separated by commas; ``*`` allows all.

    Raises:
        ValueError: a part of it is no origin, and would never match anybody.
    """
    for origin in listed(text):
        parts = urlsplit(origin)
        if origin not in ("*", "null") and (not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}"):
            raise ValueError("must be origins such as https://auction.example.com, without a path, or *")
    return text
