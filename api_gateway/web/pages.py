"""Serves the catalogue, the page for adding a lot, the item pages and their static files.

The files have a few dozen kilobytes, so they are read once, at the start, and served from memory: a request can reach
no other path and never waits for the disk.

The HTML is the same for every item. The script reads the item id from the address; nothing of a request is ever written
into a page. What all pages share is in parts/: a line ``<!-- part: head -->`` of a page is replaced by parts/head.html
when the file is read. Each page names all modules that its script imports, directly or not, so that a browser fetches
them at once instead of finding them one by one.

The scripts lie in wings of static/js/: ``catalogue``, ``sell`` and ``item`` are the three pages, and never import each
other. Below them are ``bidding`` (the form, and what becomes of a bid), ``bidder`` (who bids here, and how they stand),
``feed`` (the client of the live feed) and ``lib`` (what all pages share).
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import re
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

DEFAULT_FEED_PORT: Final = 8081

_ITEM_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PART: Final = re.compile(r"^ *<!-- part: ([a-z]+) -->\n", re.MULTILINE)
_SCRIPT: Final = re.compile(r'^( *)<script type="module" src="/static/js/([a-z/]+\.js)"></script>\n', re.MULTILINE)
_IMPORT: Final = re.compile(r'from "(\.\.?/[a-z/]+\.js)"')
# Of smaller files gzip saves about as much as its header costs.
_GZIP_FROM_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class FeedAddress:
    """Where browsers find the live feed: at ``url`` or, if that is empty, at ``port`` of the page's own host."""

    url: str
    port: int


@dataclass(frozen=True, slots=True)
class _Asset:
    """One file, ready to be sent. ``packed``: compressed with gzip; None if that saves nothing."""

    body: bytes
    packed: bytes | None
    media_type: str
    etag: str


def mount_pages(app: FastAPI, *, feed_url: str, feed_port: int = DEFAULT_FEED_PORT) -> None:
    """Add ``/``, ``/sell``, ``/items/{id}``, ``/static/…``, ``/favicon.ico`` and ``/config.json`` to ``app``.

    Args:
        feed_url: the public address of the live feed, such as ``wss://feed.example.com``; ``http`` and ``https`` mean
            ``ws`` and ``wss``. Empty: the page's own host, at ``feed_port``.
        feed_port: 1 to 65535; used only if ``feed_url`` is empty.

    Raises:
        ValueError: ``feed_url`` is not such an address.
    """
    feed = FeedAddress(_normalise_feed_url(feed_url), feed_port)
    assets = _load_assets()
    catalogue, sell, item, missing = (assets[f"{name}.html"] for name in ("index", "sell", "item", "404"))
    router = APIRouter(include_in_schema=False)

    async def catalogue_page(request: Request) -> Response:
        return _answer(request, catalogue, feed)

    async def sell_page(request: Request) -> Response:
        return _answer(request, sell, feed)

    async def item_page(request: Request) -> Response:
        known_form = _ITEM_ID.fullmatch(request.path_params["item_id"]) is not None
        return _answer(request, item, feed) if known_form else _answer(request, missing, feed, status=404)

    async def static_file(request: Request) -> Response:
        path = request.path_params["path"]
        asset = None if path.endswith(".html") else assets.get(path)
        return _answer(request, asset, feed) if asset else _answer(request, missing, feed, status=404)

    async def favicon(request: Request) -> Response:
        return _answer(request, assets["favicon.svg"], feed)

    async def config(_request: Request) -> Response:
        content = {"feed_url": feed.url, "feed_port": feed.port}
        return JSONResponse(content, headers={"Cache-Control": "no-cache", **_COMMON_HEADERS})

    for path, endpoint in {
        "/": catalogue_page,
        "/sell": sell_page,
        "/items/{item_id}": item_page,
        "/static/{path:path}": static_file,
        "/favicon.ico": favicon,
        "/config.json": config,
    }.items():
        # add_route, not add_api_route: it answers HEAD too, and there is no model to document.
        router.add_route(path, endpoint, methods=["GET"], include_in_schema=False)
    app.include_router(router)


def content_security_policy(feed: FeedAddress, host: str | None) -> str:
    """The policy for a page of ``host`` (the name alone): it allows our own files and the feed."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            f"connect-src 'self' {_feed_sources(feed, host)}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # Makes an accidental innerHTML an error.
            "require-trusted-types-for 'script'",
        )
    )


_COMMON_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def _answer(request: Request, asset: _Asset, feed: FeedAddress, *, status: int = 200) -> Response:
    """The asset, or 304 if the client has it already. Only pages need the policy."""
    headers = {
        # File names have no version, so browsers must revalidate cached copies, which costs one small 304.
        "Cache-Control": "no-cache",
        "ETag": asset.etag,
        "Vary": "Accept-Encoding",
        **_COMMON_HEADERS,
    }
    if asset.media_type.startswith("text/html"):
        headers["Content-Security-Policy"] = content_security_policy(feed, request.url.hostname)
    if status == 200 and _matches(request.headers.get("if-none-match", ""), asset.etag):
        return Response(status_code=304, headers=headers)
    body = asset.body
    if asset.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        body = asset.packed
        headers["Content-Encoding"] = "gzip"
    return Response(body, status_code=status, headers=headers, media_type=asset.media_type)


def _matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison (RFC 9110, section 13.1.2)."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags


def _feed_sources(feed: FeedAddress, host: str | None) -> str:
    if feed.url:
        parts = urlsplit(feed.url)
        return f"{parts.scheme}://{parts.netloc}"
    if host and _HOST_NAME.fullmatch(host):
        return f"ws://{host}:{feed.port} wss://{host}:{feed.port}"
    # A policy cannot name an IPv6 address, and a malformed Host must not get into our headers: allow the scheme.
    return "ws: wss:"


def _normalise_feed_url(feed_url: str) -> str:
    text = feed_url.strip().rstrip("/")
    if not text:
        return ""
    parts = urlsplit(text)
    scheme = {"ws": "ws", "wss": "wss", "http": "ws", "https": "wss"}.get(parts.scheme)
    plain = re.fullmatch(r"[A-Za-z0-9.:\[\]-]+", parts.netloc) is not None
    if scheme is None or not plain or parts.query or parts.fragment:
        raise ValueError(f"feed_url must look like ws://host:port or wss://host, not {feed_url!r}")
    return f"{scheme}://{parts.netloc}{parts.path}"


def _load_assets() -> dict[str, _Asset]:
    """Every file below static/ that may be served, by its path with forward slashes.

    Raises:
        FileNotFoundError: a page names a part that does not exist.
    """
    found: dict[str, _Asset] = {}
    package = resources.files(__package__)
    scripts = package / "static" / "js"

    def part(mention: re.Match[str]) -> str:
        return (package / "parts" / f"{mention[1]}.html").read_text("utf-8")

    def script(tag: re.Match[str]) -> str:
        links = (f'{tag[1]}<link rel="modulepreload" href="/static/js/{name}">\n' for name in _imports(scripts, tag[2]))
        return tag[0] + "".join(links)

    def filled(page: bytes) -> bytes:
        return _SCRIPT.sub(script, _PART.sub(part, page.decode())).encode()

    def walk(folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                walk(entry, f"{prefix}{entry.name}/")
                continue
            media_type = _MEDIA_TYPES.get("." + entry.name.rpartition(".")[2])
            if media_type is not None:
                body = entry.read_bytes()
                found[prefix + entry.name] = _asset(filled(body) if entry.name.endswith(".html") else body, media_type)

    walk(package / "static", "")
    return found


def _imports(scripts: Traversable, entry: str) -> list[str]:
    """The modules that ``entry`` imports, directly or not, each once, the nearest first. Paths are below js/."""
    found = [entry]
    for name in found:  # `found` grows during the loop.
        mentions = _IMPORT.findall((scripts / name).read_text("utf-8"))
        paths = (posixpath.normpath(posixpath.join(posixpath.dirname(name), mention)) for mention in mentions)
        found += dict.fromkeys(path for path in paths if path not in found)
    return found[1:]


def _asset(body: bytes, media_type: str) -> _Asset:
    packed = gzip.compress(body, mtime=0) if len(body) >= _GZIP_FROM_BYTES else None
    # Weak, because the compressed and the plain form share it.
    return _Asset(body, packed, media_type, f'W/"{hashlib.sha256(body).hexdigest()[:24]}"')
