"""The WebSocket endpoints: who may come in, and the life of a connection.

``/ws/items/{id}`` and ``/ws?item_id={id}`` are for one item, ``/ws`` for many, which the viewer names in messages: see
:mod:`broadcast_service.endpoints.operations`. An endpoint returns when the WebSocket is open; from then on a
:class:`Session` is called when something comes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final
from uuid import uuid4

from starlette.responses import Response
from starlette.websockets import WebSocket

from broadcast_service.core.close_codes import INTERNAL_ERROR, TOO_MANY_ERRORS, TOO_MANY_OPERATIONS
from broadcast_service.core.frames import connected_frame
from broadcast_service.core.quota import Quota, Verdict
from broadcast_service.endpoints.admission import Wishes, refusal, wishes_of
from broadcast_service.endpoints.operations import operate, too_many_operations
from broadcast_service.service import Service
from broadcast_service.transport.connection import Connection
from broadcast_service.transport.websockets import FeedProtocol, transport_of

logger = logging.getLogger(__name__)

ERRORS_MAX: Final = 100
"""Operations of one connection that may fail before it is closed."""


class Session:
    """What one viewer says, and its end. Implements :class:`~broadcast_service.transport.websockets.Viewer`."""

    __slots__ = ("_connection", "_errors", "_full", "_quota", "_service")

    def __init__(self, service: Service, connection: Connection, *, full: bool) -> None:
        self._service = service
        self._connection = connection
        self._full = full
        self._errors = 0
        self._quota = Quota(service.operations_rate)

    def on_message(self, text: str | None) -> None:
        if not self._is_admitted():
            return
        try:
            failed, too_many = operate(self._service, self._connection, text, now_us(), self._spend, full=self._full)
        except Exception:
            logger.exception("a message of a viewer was not handled")
            self._connection.close(INTERNAL_ERROR)
            return
        if failed:
            self._service.metrics.operations_failed += len(failed)
            self._errors += len(failed)
            self._connection.send(failed)
        if too_many is not None:
            self._service.metrics.operations_refused += 1
            self._connection.send((too_many,))
        if self._errors > ERRORS_MAX:
            self._connection.close(TOO_MANY_ERRORS)

    def on_noise(self) -> None:
        self._is_admitted()

    def _is_admitted(self) -> bool:
        service = self._service
        service.metrics.operations += 1
        verdict = self._quota.admit(service.clock())
        if verdict is Verdict.CARRIED_OUT:
            return True
        service.metrics.operations_refused += 1
        if verdict is Verdict.GIVEN_UP:
            address = service.connections.get(self._connection)
            logger.warning("connection %s of %s asks for too much: closed", self._connection.client_id, address)
            self._connection.close(TOO_MANY_OPERATIONS)
        else:
            self._connection.send((too_many_operations(service.operations_rate.per_s),))
        return False

    def _spend(self, operations: int) -> bool:
        if not self._quota.spend(self._service.clock(), operations):
            return False
        self._service.metrics.operations += operations
        return True

    def on_writable(self) -> None:
        self._connection.on_writable()

    def on_full(self) -> None:
        self._connection.on_full()

    def on_gone(self) -> None:
        self._connection.on_full()
        self._service.leave(self._connection)


async def watch_item(websocket: WebSocket) -> None:
    """``/ws/items/{item_id}``, with ``?since=<epoch>:<seq>`` where the viewer comes back."""
    await _watch(websocket, websocket.path_params["item_id"])


async def watch_any(websocket: WebSocket) -> None:
    """``/ws?item_id={id}`` for one item, ``/ws`` for many."""
    await _watch(websocket, websocket.query_params.get("item_id"))


async def _watch(websocket: WebSocket, item_id: str | None) -> None:
    service: Service = websocket.state.service
    wishes = wishes_of(websocket, item_id, service)
    if isinstance(wishes, Response):
        await _refuse(websocket, service, wishes)
        return
    # From here to `enter` nothing is awaited, so no bound can be passed by many who come at once.
    refused = refusal(service, wishes.address)
    if refused is not None:
        await _refuse(websocket, service, refused)
        return
    transport = transport_of(websocket.scope)
    connection = Connection(
        transport,
        uuid4().hex,
        single=item_id is not None,
        limits=service.outgoing_limits,
        metrics=service.metrics,
        clock=asyncio.get_running_loop().time,
    )
    service.enter(connection, transport, wishes.address)
    try:
        await websocket.accept()
        begin(service, connection, transport, wishes)
    except BaseException:
        service.leave(connection)
        raise


async def _refuse(websocket: WebSocket, service: Service, response: Response) -> None:
    service.metrics.upgrades_refused[str(response.status_code)] += 1
    await websocket.send_denial_response(response)


def begin(service: Service, connection: Connection, transport: FeedProtocol, wishes: Wishes) -> None:
    """The first frames of a WebSocket that is open."""
    transport.take_over(Session(service, connection, full=wishes.full))
    try:
        greet(service, connection, wishes)
    except Exception:
        connection.close(INTERNAL_ERROR)
        raise


def greet(service: Service, connection: Connection, wishes: Wishes) -> None:
    """``connected``, and what the viewer asked for in its address."""
    connection.send(
        (
            connected_frame(
                connection.client_id,
                wishes.item_id,
                now_us(),
                heartbeat_s=service.settings.feed_time_s,
                full=wishes.full,
            ),
        )
    )
    if wishes.identity is not None:
        service.private.authenticate(connection, wishes.identity)
    if wishes.item_id is not None:
        service.follow(connection, wishes.item_id, wishes.since, full=wishes.full)


def now_us() -> int:
    """The time of this machine."""
    return time.time_ns() // 1000
