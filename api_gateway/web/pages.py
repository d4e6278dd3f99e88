"""Serves the catalogue, the pages of sellers, the item pages, the description of the API and their static files.

The files have a few dozen kilobytes, so they are read once, at the start, and served from memory: a request can reach
no other path and never waits for the disk.

The HTML is the same for every item. The script reads the item id from the address; nothing of a request is ever written
into a page. What all pages share is in parts/: a line ``<!-- part: head -->`` of a page is replaced by parts/head.html
when the file is read. Each page names all modules that its script imports, directly or not, so that a browser fetches
them at once instead of finding them one by one.

Pages name their files below ``/static/<version>/``, where the version is a hash over all of them. Such a file never
changes, so browsers keep it for good; scripts import each other by relative paths, so they stay within one version. Of
another version, which a gateway that is just being replaced may still name, the present file is served, to be checked
each time; likewise below ``/static/`` alone.

The scripts lie in wings of static/js/: ``catalogue``, ``sell``, ``selling``, ``item``, ``docs``, ``signin`` and ``ops``
are the pages, and never import each other. Below them are ``bidding`` (the form, and what becomes of a bid), ``bidder``
(who bids here, and how they stand), ``rulings`` (who may bid, and the question before it is ruled), ``feed`` (the
client of the live feed), ``account`` (signing in) and ``lib`` (what all pages share). vendor/ has files of other
projects, as they were published (decision 0064).
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from shared.http.pieces import InPieces

DEFAULT_FEED_PORT: Final = 8081

_ITEM_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_VERSION: Final = re.compile(r"([0-9a-f]{16})/(.+)")
_FOR_GOOD: Final = "public, max-age=31536000, immutable"
_PART: Final = re.compile(r"^ *<!-- part: ([a-z]+) -->\n", re.MULTILINE)
_SCRIPT: Final = re.compile(r'^( *)<script type="module" src="/static/js/([a-z/]+\.js)"></script>\n', re.MULTILINE)
_IMPORT: Final = re.compile(r'from "(\.\.?/[a-z/]+\.js)"')
# The part of a page by which people sign in; scripts look for it.
_ACCOUNT: Final = "account"
_CONSOLES: Final = "consoles"
# Of smaller files gzip saves about as much as its header costs.
_GZIP_FROM_BYTES: Final = 512
# Larger files are compressed when somebody asks for them, away from the event loop, and sent in pieces.
_LARGE_BYTES: Final = 128 * 1024
_OUR_IMAGES: Final = "'self'"
# The style sheet of Swagger UI contains its few images.
_AND_WITHIN_STYLES: Final = "'self' data:"


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What pages load from elsewhere: the live feed at ``feed_url`` or, if that is empty, at ``feed_port`` of the
    page's own host; and images of ``image_hosts``."""

    feed_url: str
    feed_port: int
    image_hosts: tuple[str, ...] = ()


class _Asset:
    """One file, ready to be sent."""

    def __init__(self, body: bytes, media_type: str) -> None:
        self.body = body
        self.media_type = media_type
        # Weak, because the compressed and the plain form share it.
        self.etag = f'W/"{hashlib.sha256(body).hexdigest()[:24]}"'

    @cached_property
    def packed(self) -> bytes | None:
        """Compressed with gzip; None if that saves nothing."""
        return gzip.compress(self.body, mtime=0) if len(self.body) >= _GZIP_FROM_BYTES else None

    @property
    def is_large(self) -> bool:
        return len(self.body) > _LARGE_BYTES


def mount_pages(
    app: FastAPI,
    *,
    feed_url: str,
    feed_port: int = DEFAULT_FEED_PORT,
    image_hosts: Collection[str] = (),
    takes_images: bool = False,
    signs_in: bool = False,
) -> None:
    """Add ``/``, ``/sell``, ``/selling``, ``/items/{id}``, ``/sign-in``, ``/ops``, ``/docs``, ``/static/…``,
    ``/favicon.ico`` and ``/config.json`` to ``app``. ``/redoc``, where the framework has another view of the same,
    leads to ``/docs``.

    Args:
        feed_url: the public address of the live feed, such as ``wss://feed.example.com``; ``http`` and ``https`` mean
            ``ws`` and ``wss``. Empty: the page's own host, at ``feed_port``.
        feed_port: 1 to 65535; used only if ``feed_url`` is empty.
        image_hosts: other hosts, each perhaps with a port, from which pages may load images over https.
        takes_images: whether images can be uploaded here.
        signs_in: whether the API asks who calls, so that people sign in on the pages.

    Raises:
        ValueError: ``feed_url`` is not such an address.
    """
    elsewhere = Elsewhere(_normalise_feed_url(feed_url), feed_port, tuple(sorted(image_hosts)))
    version, assets = _load_assets(left_out=(_CONSOLES,) if signs_in else (_ACCOUNT,))
    catalogue, sell, selling, item, signing_in, ops, docs, missing = (
        assets[f"{name}.html"] for name in ("index", "sell", "selling", "item", "signin", "ops", "docs", "404")
    )
    router = APIRouter(include_in_schema=False)

    async def catalogue_page(request: Request) -> Response:
        return _answer(request, catalogue, elsewhere)

    async def sell_page(request: Request) -> Response:
        return _answer(request, sell, elsewhere)

    async def selling_page(request: Request) -> Response:
        return _answer(request, selling, elsewhere)

    async def item_page(request: Request) -> Response:
        known_form = _ITEM_ID.fullmatch(request.path_params["item_id"]) is not None
        return _answer(request, item, elsewhere) if known_form else _answer(request, missing, elsewhere, status=404)

    async def docs_page(request: Request) -> Response:
        return _answer(request, docs, elsewhere, images=_AND_WITHIN_STYLES)

    async def redoc(_request: Request) -> Response:
        return RedirectResponse("/docs", headers=_COMMON_HEADERS)

    async def sign_in_page(request: Request) -> Response:
        return _answer(request, signing_in, elsewhere)

    async def ops_page(request: Request) -> Response:
        return _answer(request, ops, elsewhere)

    async def static_file(request: Request) -> Response:
        path = request.path_params["path"]
        versioned = _VERSION.fullmatch(path)
        asset = None if path.endswith(".html") else assets.get(versioned[2] if versioned else path)
        if asset is None:
            return _answer(request, missing, elsewhere, status=404)
        if asset.is_large:
            await asyncio.to_thread(getattr, asset, "packed")
        return _answer(request, asset, elsewhere, for_good=versioned is not None and versioned[1] == version)

    async def favicon(request: Request) -> Response:
        return _answer(request, assets["favicon.svg"], elsewhere)

    async def config(_request: Request) -> Response:
        content = {"feed_url": elsewhere.feed_url, "feed_port": elsewhere.feed_port, "takes_images": takes_images}
        return JSONResponse(content, headers={"Cache-Control": "no-cache", **_COMMON_HEADERS})

    for path, endpoint in {
        "/": catalogue_page,
        "/sell": sell_page,
        "/selling": selling_page,
        "/items/{item_id}": item_page,
        "/sign-in": sign_in_page,
        "/ops": ops_page,
        "/docs": docs_page,
        "/redoc": redoc,
        "/static/{path:path}": static_file,
        "/favicon.ico": favicon,
        "/config.json": config,
    }.items():
        # add_route, not add_api_route: it answers HEAD too, and there is no model to document.
        router.add_route(path, endpoint, methods=["GET"], include_in_schema=False)
    app.include_router(router)


def content_security_policy(elsewhere: Elsewhere, host: str | None, *, images: str = _OUR_IMAGES) -> str:
    """The policy for a page of ``host`` (the name alone): it allows our own files, the feed, and images of hosts that
    the operator has named. ``images``: from where others may come."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            " ".join((f"img-src {images}", *(f"https://{each}" for each in elsewhere.image_hosts))),
            f"connect-src 'self' {_feed_sources(elsewhere, host)}",
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


def _answer(
    request: Request,
    asset: _Asset,
    elsewhere: Elsewhere,
    *,
    status: int = 200,
    for_good: bool = False,
    images: str = _OUR_IMAGES,
) -> Response:
    """The asset, or 304 if the client has it already. Only pages need the policy. ``for_good``: its address has the
    version, so it never changes."""
    headers = {
        # Without a version browsers must revalidate cached copies, which costs one small 304.
        "Cache-Control": _FOR_GOOD if for_good else "no-cache",
        "ETag": asset.etag,
        "Vary": "Accept-Encoding",
        **_COMMON_HEADERS,
    }
    if asset.media_type.startswith("text/html"):
        headers["Content-Security-Policy"] = content_security_policy(elsewhere, request.url.hostname, images=images)
    if status == 200 and _matches(request.headers.get("if-none-match", ""), asset.etag):
        return Response(status_code=304, headers=headers)
    body = asset.body
    if asset.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        body = asset.packed
        headers["Content-Encoding"] = "gzip"
    kind = InPieces if asset.is_large else Response
    return kind(body, status_code=status, headers=headers, media_type=asset.media_type)


def _matches(if_none_match: str, etag: str) -> bool:
    """Weak comparison (RFC 9110, section 13.1.2)."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags


def _feed_sources(elsewhere: Elsewhere, host: str | None) -> str:
    if elsewhere.feed_url:
        parts = urlsplit(elsewhere.feed_url)
        return f"{parts.scheme}://{parts.netloc}"
    if host and _HOST_NAME.fullmatch(host):
        return f"ws://{host}:{elsewhere.feed_port} wss://{host}:{elsewhere.feed_port}"
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


def _load_assets(*, left_out: Collection[str] = ()) -> tuple[str, dict[str, _Asset]]:
    """The version, and every file below static/ and vendor/ that may be served, by its path with forward slashes; paths
    of vendor/ begin with that.

    Args:
        left_out: parts in whose place nothing stands.

    Raises:
        FileNotFoundError: a page names a part that does not exist.
    """
    files: dict[str, bytes] = {}
    package = resources.files(__package__)
    scripts = package / "static" / "js"

    def part(mention: re.Match[str]) -> str:
        if mention[1] in left_out:
            return ""
        return (package / "parts" / f"{mention[1]}.html").read_text("utf-8")

    def script(tag: re.Match[str]) -> str:
        links = (f'{tag[1]}<link rel="modulepreload" href="/static/js/{name}">\n' for name in _imports(scripts, tag[2]))
        return tag[0] + "".join(links)

    def filled(page: bytes, version: str) -> bytes:
        text = _SCRIPT.sub(script, _PART.sub(part, page.decode()))
        return text.replace('="/static/', f'="/static/{version}/').encode()

    def walk(folder: Traversable, prefix: str) -> None:
        for entry in folder.iterdir():
            if entry.is_dir():
                walk(entry, f"{prefix}{entry.name}/")
                continue
            if _media_type(entry.name) is not None:
                files[prefix + entry.name] = entry.read_bytes()

    walk(package / "static", "")
    walk(package / "vendor", "vendor/")
    digest = hashlib.sha256()
    for path, body in sorted(files.items()):
        if not path.endswith(".html"):
            digest.update(f"{path}\0{len(body)}\0".encode() + body)
    version = digest.hexdigest()[:16]
    assets = {
        path: _Asset(filled(body, version) if path.endswith(".html") else body, media_type)
        for path, body in files.items()
        if (media_type := _media_type(path)) is not None
    }
    for asset in assets.values():
        if not asset.is_large:
            _ = asset.packed  # now, so that no request waits for it
    return version, assets


def _media_type(path: str) -> str | None:
    return _MEDIA_TYPES.get("." + path.rpartition(".")[2])


def _imports(scripts: Traversable, entry: str) -> list[str]:
    """The modules that ``entry`` imports, directly or not, each once, the nearest first. Paths are below js/."""
    found = [entry]
    for name in found:  # `found` grows during the loop.
        mentions = _IMPORT.findall((scripts / name).read_text("utf-8"))
        paths = (posixpath.normpath(posixpath.join(posixpath.dirname(name), mention)) for mention in mentions)
        found += dict.fromkeys(path for path in paths if path not in found)
    return found[1:]
