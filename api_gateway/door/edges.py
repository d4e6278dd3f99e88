"""Small ASGI wrappers around the framework: what it leaves open about methods, paths and origins."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.http.problems import problem


def head_as_get(app: ASGIApp) -> ASGIApp:
    """Answer HEAD as GET; the server leaves the body out. The framework alone would refuse HEAD."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return answer


def one_line_paths(app: ASGIApp) -> ASGIApp:
    """Refuse a path with a line break. The framework's patterns end with ``$``, which allows one at the end:
    ``/pause%0A`` would pause an item even where a proxy in front blocks ``/pause``."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ("\n" in scope["path"] or "\r" in scope["path"]):
            await problem(422, "INVALID", "the path must not hold a line break")(scope, receive, send)
            return
        await app(scope, receive, send)

    return answer


def with_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Let pages of these origins use the API (CORS), bids among it."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "PUT", "DELETE"),
        allow_headers=("authorization", "content-type", "idempotency-key"),
        expose_headers=("location", "ratelimit", "ratelimit-policy", "retry-after"),
    )
