"""Which web pages may use the feed. Pure.

Browsers do not apply the same-origin policy to WebSockets: any page may open one, so the server checks the Origin
header itself. Other programs send none and are not restricted by this.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_allowed(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Whether a page of ``origin`` may use the feed at ``host`` (the Host header, with its port).

    Ports are not compared: the gateway serves the page on another port of the same host name.

    Args:
        allowed: more origins, in lower case; ``*`` allows all.
    """
    if origin is None:
        return True
    if "*" in allowed or origin.lower() in allowed:
        return True
    page, feed = _host_of(origin), _host_of(f"//{host}" if host else "")
    if page is None or feed is None:
        return False
    return page == feed or (_is_loopback(page) and _is_loopback(feed))


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
