"""The WebSocket endpoints, and the session of a connection.

``/ws/items/{id}`` and ``/ws?item_id={id}`` are for one item, ``/ws`` for many, which the viewer names in messages: see
:mod:`broadcast_service.endpoints.operations`. An endpoint returns once the WebSocket is open; from then on the
transport calls a :class:`Session`.
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
from broadcast_service.core.quota import Allowance, Quota, noise_rate
from broadcast_service.endpoints.admission import ConnectRequest, connect_request_of, refusal
from broadcast_service.endpoints.operations import operate, too_many_operations
from broadcast_service.service import Service
from broadcast_service.transport.connection import Connection
from shared.http.protocols.websockets import DirectWebSocket, transport_of
from shared.pacing.seldom import Seldom

logger = logging.getLogger(__name__)
_asks_for_too_much: Final = Seldom(logger)

ERRORS_MAX: Final = 100
"""Failed operations after which a connection is closed."""


class Session:
    """Handles what one viewer sends. Implements :class:`~shared.http.protocols.websockets.Listener`."""

    __slots__ = ("_connection", "_errors", "_full", "_noise", "_quota", "_service")

    def __init__(self, service: Service, connection: Connection, *, full: bool) -> None:
        self._service = service
        self._connection = connection
        self._full = full
        self._errors = 0
        self._quota = Quota(service.operations_rate)
        # Made at the first ping, pong or fragment: most viewers send none.
        self._noise: Quota | None = None

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
        service = self._service
        service.metrics.operations += 1
        if self._noise is None:
            self._noise = Quota(noise_rate(service.operations_rate))
        if not self._noise.spend(service.clock(), 1):
            service.metrics.operations_refused += 1
            self._give_up()

    def _is_admitted(self) -> bool:
        service = self._service
        service.metrics.operations += 1
        allowance = self._quota.admit(service.clock())
        if allowance is Allowance.ALLOWED:
            return True
        service.metrics.operations_refused += 1
        if allowance is Allowance.EXHAUSTED:
            self._give_up()
        else:
            self._connection.send((too_many_operations(service.operations_rate.per_s),))
        return False

    def _give_up(self) -> None:
        address = self._service.connections.get(self._connection)
        _asks_for_too_much.warning("connection %s of %s asks for too much: closed", self._connection.client_id, address)
        self._connection.close(TOO_MANY_OPERATIONS)

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
    """``/ws/items/{item_id}``, with ``?since=<epoch>:<seq>`` for a viewer who reconnects."""
    await _watch(websocket, websocket.path_params["item_id"])


async def watch_any(websocket: WebSocket) -> None:
    """``/ws?item_id={id}`` for one item, ``/ws`` for many."""
    await _watch(websocket, websocket.query_params.get("item_id"))


async def _watch(websocket: WebSocket, item_id: str | None) -> None:
    service: Service = websocket.state.service
    wanted = connect_request_of(websocket, item_id, service)
    if isinstance(wanted, Response):
        await _refuse(websocket, service, wanted)
        return
    # Nothing is awaited from here to `enter`. Otherwise several requests could pass a limit that has room for one.
    refused = refusal(service, wanted.address)
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
    service.enter(connection, transport, wanted.address)
    try:
        await websocket.accept()
        begin(service, connection, transport, wanted)
    except BaseException:
        service.leave(connection)
        raise


async def _refuse(websocket: WebSocket, service: Service, response: Response) -> None:
    service.metrics.upgrades_refused[str(response.status_code)] += 1
    await websocket.send_denial_response(response)


def begin(service: Service, connection: Connection, transport: DirectWebSocket, wanted: ConnectRequest) -> None:
    """Start the session of an open WebSocket, and send its first frames."""
    transport.take_over(Session(service, connection, full=wanted.full))
    try:
        greet(service, connection, wanted)
    except Exception:
        connection.close(INTERNAL_ERROR)
        raise


def greet(service: Service, connection: Connection, wanted: ConnectRequest) -> None:
    """Send ``connected``, and start what the viewer asked for in its URL."""
    connection.send(
        (
            connected_frame(
                connection.client_id,
                wanted.item_id,
                now_us(),
                heartbeat_s=service.settings.feed_time_s,
                full=wanted.full,
            ),
        )
    )
    if wanted.identity is not None:
        service.private.authenticate(connection, wanted.identity)
    if wanted.item_id is not None:
        service.follow(connection, wanted.item_id, wanted.since, full=wanted.full)


def now_us() -> int:
    """Microseconds since 1970, by this machine's clock."""
    return time.time_ns() // 1000
