"""The WebSocket endpoints: who may come in, and the life of a connection.

``/ws/items/{id}`` and ``/ws?item_id={id}`` are for one item, ``/ws`` for many, which the viewer names in messages: see
:mod:`broadcast_service.operations`.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final
from uuid import uuid4

from starlette.responses import Response
from starlette.websockets import WebSocket

from broadcast_service.close_codes import INTERNAL_ERROR, TOO_MANY_ERRORS
from broadcast_service.connection import Connection
from broadcast_service.frames import Version, connected_frame
from broadcast_service.operations import ITEM_HINT, SinceInvalid, operate, parse_since
from broadcast_service.origins import is_allowed
from broadcast_service.problems import problem
from broadcast_service.service import Service
from broadcast_service.transport import transport_of
from shared import names

ERRORS_MAX: Final = 100
"""Operations of one connection that may fail before it is closed."""


async def watch_item(websocket: WebSocket) -> None:
    """``/ws/items/{item_id}``, with ``?since=<epoch>:<seq>`` where the viewer comes back."""
    await _watch(websocket, websocket.path_params["item_id"])


async def watch_any(websocket: WebSocket) -> None:
    """``/ws?item_id={id}`` for one item, ``/ws`` for many."""
    await _watch(websocket, websocket.query_params.get("item_id"))


async def _watch(websocket: WebSocket, item_id: str | None) -> None:
    service: Service = websocket.state.service
    since_text = websocket.query_params.get("since")
    since: Version | None = None
    refusal = _refusal(service, websocket, item_id)
    if refusal is None and since_text:
        try:
            since = parse_since(since_text)
        except SinceInvalid as error:
            refusal = problem(422, "SINCE_INVALID", str(error))
    if refusal is not None:
        service.metrics.upgrades_refused[str(refusal.status_code)] += 1
        await websocket.send_denial_response(refusal)
        return

    await websocket.accept()
    transport = transport_of(websocket.scope)
    connection = Connection(
        transport,
        uuid4().hex,
        single=item_id is not None,
        limits=service.outgoing_limits,
        metrics=service.metrics,
        clock=asyncio.get_running_loop().time,
    )
    transport.on_writable = connection.on_writable
    service.enter(connection)
    try:
        connection.send((connected_frame(connection.client_id, item_id, _now_us()),))
        if item_id is not None:
            service.broadcaster.carry_out(service.hub.subscribe(connection, item_id, since))
        await _listen(websocket, connection, service)
    except Exception:
        connection.close(INTERNAL_ERROR)
        raise
    finally:
        service.leave(connection)


def _refusal(service: Service, websocket: WebSocket, item_id: str | None) -> Response | None:
    """Why the upgrade is refused, as an ordinary HTTP answer, or None."""
    headers = websocket.headers
    if not is_allowed(headers.get("origin"), headers.get("host"), service.origins):
        return problem(403, "ORIGIN_NOT_ALLOWED", "pages of this origin may not use the feed; see FEED_ORIGINS")
    if item_id is not None and not names.is_item_id(item_id):
        return problem(422, "ITEM_ID_INVALID", ITEM_HINT)
    if service.is_full:
        return problem(503, "TOO_MANY_CONNECTIONS", "the feed is full; try again later", headers={"retry-after": "5"})
    return None


async def _listen(websocket: WebSocket, connection: Connection, service: Service) -> None:
    """Carry out what the viewer says until it is gone. The next message is read when the last one is dealt with."""
    errors = 0
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        failed = operate(service, connection, message.get("text"), _now_us())
        if failed:
            service.metrics.operations_failed += len(failed)
            errors += len(failed)
            connection.send(failed)
        if errors > ERRORS_MAX:
            connection.close(TOO_MANY_ERRORS)


def _now_us() -> int:
    return time.time_ns() // 1000
