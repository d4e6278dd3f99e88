"""A service without its servers: its requests, and how it closes its viewers."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from redis.asyncio import Redis

from broadcast_service.core.close_codes import SERVICE_RESTART
from broadcast_service.core.feed import Recovery
from broadcast_service.service import DRAIN_SLICE, Service
from broadcast_service.settings import Settings
from broadcast_service.sources.left_items import LeftItems
from broadcast_service.transport.connection import Connection
from shared import names
from shared.messages import encode_event, frame_batch
from tests.unit.broadcast_service.builders import ITEM, bid, item
from tests.unit.broadcast_service.transport.test_connection import Clock, Pipe


def new_service(**settings: object) -> Service:
    """A service that does not connect: only the tasks of its lifespan would."""
    nobody: Any = None
    return Service(Settings.model_validate(settings), Redis(), LeftItems(nobody, nobody))


def enter(service: Service) -> Pipe:
    pipe = Pipe()
    connection = Connection(
        pipe, "c", single=True, limits=service.outgoing_limits, metrics=service.metrics, clock=Clock()
    )
    service.enter(connection)
    service.broadcaster.carry_out(service.hub.subscribe(connection, ITEM))
    return pipe


def message(*events: bytes, item_id: str = ITEM) -> bytes:
    return frame_batch(names.shard_of(item_id), 1, 1, item_id, b"[%b]" % b",".join(events))


async def test_events_reach_the_viewers_of_their_item() -> None:
    service = new_service()
    pipe = enter(service)
    service.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    service.broadcaster.on_message(names.subject_of(ITEM), message(encode_event(bid(2)), encode_event(bid(3))))
    service.broadcaster.on_message(names.subject_of("other"), b"not even looked at")
    assert pipe.seqs == [1, 2, 3]
    assert service.metrics.messages_received == 2
    assert service.metrics.events_watched == 2
    assert service.metrics.events_unreadable == 0


async def test_messages_that_make_no_sense_are_counted_and_harmless() -> None:
    service = new_service()
    pipe = enter(service)
    service.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    for nonsense in (
        b"",
        b"[]",
        b"\xff",
        message(b'{"type":"party"}'),
        message(encode_event(bid(2, item_id="other")), item_id="other"),
        msgspec.json.encode({"v": 2}),
    ):
        service.broadcaster.on_message(names.subject_of(ITEM), nonsense)
    assert service.metrics.events_unreadable == 6
    service.broadcaster.on_message(names.subject_of(ITEM), message(encode_event(bid(2))))
    assert pipe.seqs == [1, 2]


async def test_a_message_for_the_archive_alone_reaches_no_viewer() -> None:
    service = new_service()
    pipe = enter(service)
    service.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    raised = frame_batch(names.shard_of(ITEM), 1, 1, ITEM, b"[]", b'[{"max_amount":4711}]')
    service.broadcaster.on_message(names.subject_of(ITEM), raised)
    assert pipe.seqs == [1]
    assert service.metrics.events_unreadable == 0


async def test_a_viewer_that_left_gets_nothing_and_makes_room() -> None:
    service = new_service(feed_connections_max=1)
    pipe = enter(service)
    [connection] = service.connections
    assert service.is_full
    service.leave(connection)
    assert not service.is_full
    service.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    assert pipe.written == []


async def test_draining_is_spread_where_there_are_many() -> None:
    service = new_service(feed_drain_s=0.02)
    pipes = [enter(service) for _ in range(2 * DRAIN_SLICE + 1)]
    draining = asyncio.create_task(service.drain())
    await asyncio.sleep(0)
    assert sum(bool(pipe.finished) for pipe in pipes) == DRAIN_SLICE
    await draining
    assert all(pipe.finished == [SERVICE_RESTART.code] for pipe in pipes)


async def test_draining_a_few_takes_no_time() -> None:
    service = new_service(feed_drain_s=60)
    pipes = [enter(service) for _ in range(DRAIN_SLICE)]
    async with asyncio.timeout(10):
        await service.drain()
    assert all(pipe.finished for pipe in pipes)
