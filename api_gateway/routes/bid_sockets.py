"""``/api/v1/bids``: a WebSocket for bids, for market makers and load runs."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from api_gateway.bid_socket.protocol import BidSocket
from api_gateway.bid_socket.session import Session
from api_gateway.context import Context
from api_gateway.contract.problems import problem_of
from api_gateway.door.rates import peer_of
from shared.domain.errors import BiddingError
from shared.http.problems import MEDIA_TYPE, problem
from shared.http.protocols.websockets import transport_of

PATH: Final = "/api/v1/bids"
NAME: Final = "bid_socket"
_RETRY: Final = {"retry-after": "5"}


async def _open(websocket: WebSocket) -> None:
    context: Context = websocket.state.context
    peer = peer_of(websocket.scope)
    address = context.rates.address(peer, websocket.headers.raw)
    refused = _refusal(websocket, context, address)
    try:
        context.pages.check(websocket.headers.raw)
        # Its address was charged at the door.
        permit = context.access.permit(NAME, websocket.headers.raw, websocket.scope["state"]["account"])
        caller = "" if permit.principal is None else permit.principal.user_id
        refused = refused or _refusal_of_caller(context, caller)
    except BiddingError as error:
        status, body, headers = problem_of(error)
        refused = Response(body, status, headers, MEDIA_TYPE)
    if refused is not None:
        await websocket.send_denial_response(refused)
        return
    socket = transport_of(websocket.scope)
    assert isinstance(socket, BidSocket)
    session = Session(context, permit, socket, on_gone=context.bid_sockets.leave)
    # Before anything is awaited: many requests at once must not pass the bound together.
    context.bid_sockets.enter(session, socket, address, caller)
    try:
        await websocket.accept()
        socket.open(session)
    except BaseException:
        context.bid_sockets.leave(session)
        raise


def _refusal(websocket: WebSocket, context: Context, address: str) -> Response | None:
    if context.bid_sockets.is_full:
        context.bid_sockets.refused_total += 1
        detail = "this gateway has as many WebSockets of bids as it may have; try again later, or use bids:batch"
        return problem(503, "TOO_MANY_CONNECTIONS", detail, headers=_RETRY)
    if context.bid_sockets.is_full_for(address):
        context.bid_sockets.refused_total += 1
        detail = "too many WebSockets of bids from this address; use those that are open: each takes many bids"
        return problem(429, "TOO_MANY_CONNECTIONS_FROM_ADDRESS", detail, headers=_RETRY)
    return None


def _refusal_of_caller(context: Context, user_id: str) -> Response | None:
    if not context.bid_sockets.is_full_for_caller(user_id):
        return None
    context.bid_sockets.refused_total += 1
    detail = "you have as many WebSockets of bids as one may have; use those that are open: each takes many bids"
    return problem(429, "TOO_MANY_CONNECTIONS_OF_CALLER", detail, headers=_RETRY)


route: Final = WebSocketRoute(PATH, _open, name=NAME)
