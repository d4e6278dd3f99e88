"""Checks of a request before its body is read: whether a foreign page has sent it, and whether its address may send one
more. The caller is checked after these (:mod:`api_gateway.door.strangers`)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from api_gateway.context import Context
from api_gateway.contract.problems import problem_of
from api_gateway.door.limits import refuse_with
from api_gateway.door.rates import peer_of
from api_gateway.door.strangers import READING
from shared.domain.errors import BiddingError
from shared.http.problems import MEDIA_TYPE
from shared.http.proxies import Proxies
from shared.logs import request_facts

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


class Door:
    """ASGI middleware. Puts the account of the address into the state of the request."""

    def __init__(
        self, app: ASGIApp, *, proxies: Proxies, hsts_s: int, other_bodies: Collection[str] = frozenset()
    ) -> None:
        """
        Args:
            other_bodies: paths at which a body is no JSON.
            proxies: the peers that are believed when they say that a request came to them over TLS.
            hsts_s: for how long browsers are to use nothing but TLS, once they have used it; 0: no header says so.
        """
        self._app = app
        self._proxies = proxies
        self._other_bodies = other_bodies
        self._hsts = f"max-age={hsts_s}" if hsts_s else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            context: Context = scope["state"]["context"]
            request_facts.set({"request": _request_id(scope["headers"])})
            if self._hsts is not None and self._is_over_tls(scope):
                send = _with_hsts(send, self._hsts)
            try:
                if scope["method"] not in READING:
                    context.pages.check(scope["headers"], is_json=scope["path"] not in self._other_bodies)
                scope["state"]["account"] = context.rates.enter(peer_of(scope), scope["headers"])
                if context.rates.is_on:
                    send = _with_near(send, scope["state"])
            except BiddingError as error:
                await refuse_with(*problem_of(error), receive, send)
                return
        elif scope["type"] == "websocket":
            context = scope["state"]["context"]
            try:
                scope["state"]["account"] = context.rates.enter(peer_of(scope), scope["headers"])
            except BiddingError as error:
                status, body, headers = problem_of(error)
                refused = Response(body, status, headers, MEDIA_TYPE)
                await WebSocket(scope, receive, send).send_denial_response(refused)
                return
        await self._app(scope, receive, send)

    def _is_over_tls(self, scope: Scope) -> bool:
        if scope["scheme"] == "https":
            return True
        peer = peer_of(scope)
        told = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        return bool(told) and peer is not None and told[-1].strip().lower() == b"https" and self._proxies.has(peer)


def _with_hsts(send: Send, hsts: str) -> Send:
    async def send_with_hsts(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["strict-transport-security"] = hsts
        await send(message)

    return send_with_hsts


def _with_near(send: Send, state: Mapping[str, Any]) -> Send:
    """Add headers that say how little may still be asked for, where little is left: by the caller, once that one is
    known."""

    async def send_with_near(message: Message) -> None:
        if message["type"] == "http.response.start":
            account = state["permit"].account if "permit" in state else state["account"]
            for name, value in account.near.headers.items() if account.near is not None else ():
                MutableHeaders(scope=message).setdefault(name, value)
        await send(message)

    return send_with_near


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """What a client or a proxy calls the request, or a new name."""
    said = next((value for name, value in headers if name == b"x-request-id"), b"").decode("latin-1")
    return said if _REQUEST_ID.fullmatch(said) else secrets.token_hex(8)
