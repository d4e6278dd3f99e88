"""What the service does to all connections by itself, and how it counts them; without sockets."""

from __future__ import annotations

import json
from typing import Any

from broadcast_service.core.close_codes import SERVICE_RESTART
from broadcast_service.service import Service
from broadcast_service.transport.connection import Connection
from tests.unit.broadcast_service.test_service import new_service
from tests.unit.broadcast_service.transport.test_connection import Clock, Pipe


def enter(service: Service, pipe: Pipe, address: str = "") -> Connection:
    connection = Connection(
        pipe, "c", single=True, limits=service.outgoing_limits, metrics=service.metrics, clock=Clock()
    )
    service.enter(connection, address=address)
    return connection


def frames(pipe: Pipe) -> list[dict[str, Any]]:
    return [json.loads(data[data.index(b"{") :]) for data in pipe.written]


async def test_a_heartbeat_says_that_events_do_not_flow() -> None:
    service = new_service()
    pipe = Pipe()
    service._beat([enter(service, pipe)])
    [beat] = frames(pipe)
    assert (beat["type"], beat["stale"]) == ("heartbeat", True)


async def test_a_viewer_with_frames_waiting_is_sent_no_heartbeat_on_top() -> None:
    service = new_service()
    full, gone = Pipe(room=0), Pipe()
    connections = [enter(service, full), enter(service, gone)]
    connections[1].close(SERVICE_RESTART)
    service._beat(connections)
    assert full.written == gone.written == []
    assert service.metrics.frames_queued == 0


async def test_all_pings_of_a_moment_are_alike_and_none_like_the_one_before() -> None:
    service = new_service(feed_ping_interval_s=7, feed_ping_timeout_s=3)
    pinged: list[tuple[bytes, float, float]] = []

    class Socket:
        def tend(self, now_s: float, ping: bytes, *, interval_s: float, timeout_s: float) -> None:
            pinged.append((ping, interval_s, timeout_s))

    for _ in range(2):
        service._ping([Socket(), Socket()])
    assert all(each[1:] == (7, 3) for each in pinged)
    first, second, third, fourth = (each[0] for each in pinged)
    assert first == second
    assert third == fourth != first
    assert len(first) == 4


async def test_places_are_given_back() -> None:
    service = new_service(feed_connections_max=2, feed_connections_per_address_max=1)
    connection = enter(service, Pipe(), "192.0.2.1")
    assert service.addresses.is_full("192.0.2.1")
    enter(service, Pipe(), "192.0.2.2")
    assert service.is_full
    for _ in range(2):
        service.leave(connection)
    assert not service.is_full
    assert not service.addresses.is_full("192.0.2.1")
    assert service.addresses.is_full("192.0.2.2")
