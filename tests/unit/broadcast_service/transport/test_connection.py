"""One connection: direct writes, the queue behind a full socket, and the end."""

from __future__ import annotations

import json
from typing import Any

from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from broadcast_service.core.close_codes import INTERNAL_ERROR, ITEM_NOT_FOUND, SLOW_VIEWER
from broadcast_service.core.frames import Frame, error_frame, event_frame
from broadcast_service.core.outgoing import OutgoingLimits
from broadcast_service.metrics import Metrics
from broadcast_service.transport.connection import Connection, send_to_all, wire_of
from tests.unit.broadcast_service.builders import bid


class Pipe:
    """A transport that writes into a list and takes ``room`` writes before it is full."""

    def __init__(self, room: int = 1_000) -> None:
        self.room = room
        self.written: list[bytes] = []
        self.finished: list[int] = []
        self.connection: Connection | None = None

    @property
    def is_writable(self) -> bool:
        return self.room > 0 and not self.finished

    def write(self, data: bytes) -> None:
        assert self.is_writable
        self.room -= 1
        self.written.append(data)
        if not self.room and self.connection is not None:
            self.connection.on_full()

    def finish(self, code: int, reason: str) -> None:
        self.finished.append(code)

    @property
    def seqs(self) -> list[int]:
        """Seqs of the snapshots and events that were written."""
        return [content["seq"] for content in self.contents if "current_bid" in content]

    @property
    def contents(self) -> list[dict[str, Any]]:
        """The text messages that were written."""
        data, contents = b"".join(self.written), []
        while data:
            length = data[1] if data[1] < 126 else int.from_bytes(data[2:4], "big")
            start = 2 if data[1] < 126 else 4
            assert data[0] == 0x80 | Opcode.TEXT
            contents.append(json.loads(data[start : start + length]))
            data = data[start + length :]
        return contents


class Broken(Pipe):
    """A transport that fails unexpectedly."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("the handle is closed")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def connect(
    pipe: Pipe, *, single: bool = True, frames_max: int = 4, bytes_max: int = 100_000
) -> tuple[Connection, Clock]:
    clock = Clock()
    limits = OutgoingLimits(frames_max=frames_max, bytes_max=bytes_max, stalled_max_s=10)
    connection = Connection(pipe, "c1", single=single, limits=limits, metrics=Metrics(), clock=clock)
    pipe.connection = connection
    return connection, clock


def test_frames_of_one_message_are_one_write() -> None:
    pipe = Pipe()
    connection, _ = connect(pipe)
    connection.send([event_frame(bid(1))])
    connection.send([event_frame(bid(2)), event_frame(bid(3))])
    assert len(pipe.written) == 2
    assert pipe.seqs == [1, 2, 3]


def test_a_frame_is_prepared_once_for_all_viewers() -> None:
    frame = event_frame(bid(1))
    pipes = [Pipe() for _ in range(50)]
    for pipe in pipes:
        connect(pipe)[0].send([frame])
    assert len({id(pipe.written[0]) for pipe in pipes}) == 1
    assert pipes[0].written[0] == WireFrame(Opcode.TEXT, frame.text).serialize(mask=False)
    assert wire_of(frame) is wire_of(frame)


def test_a_full_socket_makes_frames_wait_in_order() -> None:
    pipe = Pipe(room=1)
    connection, _ = connect(pipe)
    for seq in (1, 2, 3):
        connection.send([event_frame(bid(seq))])
    assert pipe.seqs == [1]
    pipe.room = 1
    connection.on_writable()
    assert pipe.seqs == [1, 2]
    # A new frame must not overtake those that wait.
    pipe.room = 10
    connection.send([event_frame(bid(4))])
    assert pipe.seqs == [1, 2]
    connection.on_writable()
    assert pipe.seqs == [1, 2, 3, 4]


def test_a_slow_viewer_gets_the_newest_state() -> None:
    pipe = Pipe(room=1)
    connection, _ = connect(pipe)
    for seq in range(1, 21):
        connection.send([event_frame(bid(seq))])
    pipe.room = 100
    connection.on_writable()
    assert pipe.seqs[0] == 1
    assert pipe.seqs[-1] == 20
    assert len(pipe.seqs) <= 6
    assert not pipe.finished


def test_a_viewer_that_takes_nothing_is_closed() -> None:
    pipe = Pipe(room=0)
    connection, clock = connect(pipe)
    connection.send([event_frame(bid(1))])
    clock.now_s = 10.0
    connection.close_if_stalled()
    assert pipe.finished == []
    clock.now_s = 10.5
    connection.close_if_stalled()
    assert pipe.finished == [SLOW_VIEWER.code]
    connection.close_if_stalled()
    connection.send([event_frame(bid(2))])
    connection.on_writable()
    assert pipe.finished == [SLOW_VIEWER.code], "once"
    assert pipe.written == []


def test_a_viewer_with_more_than_its_share_of_memory_is_closed() -> None:
    pipe = Pipe(room=0)
    connection, _ = connect(pipe, bytes_max=2_000, single=False)
    connection.send([event_frame(bid(1, item_id=f"item-{number}")) for number in range(20)])
    assert pipe.finished == [SLOW_VIEWER.code]


def test_a_transport_that_fails_ends_its_connection_and_nothing_else() -> None:
    """A task that sends to one viewer, for example a heartbeat or a standing, serves all viewers."""
    pipe = Broken()
    connection, _ = connect(pipe)
    for _ in range(2):
        connection.send([event_frame(bid(1))])
    assert pipe.finished == [INTERNAL_ERROR.code]


def test_an_item_that_does_not_exist_ends_only_a_connection_that_is_for_it_alone() -> None:
    error = error_frame("ITEM_NOT_FOUND", "no such item", item_id="x")
    for single, finished in ((True, [ITEM_NOT_FOUND.code]), (False, [])):
        pipe = Pipe()
        connection, _ = connect(pipe, single=single)
        connection.refuse(error, ITEM_NOT_FOUND)
        assert pipe.written == [wire_of(error)]
        assert pipe.finished == finished


def test_a_connection_ends_once_whatever_comes_after() -> None:
    pipe = Pipe()
    connection, _ = connect(pipe)
    connection.close(ITEM_NOT_FOUND)
    connection.close(SLOW_VIEWER)
    assert pipe.finished == [ITEM_NOT_FOUND.code]
    assert connection._metrics.connections_closed == {ITEM_NOT_FOUND.name: 1}
    assert not connection.is_direct
    assert connection.is_behind, "it gets no heartbeat"


def test_frames_that_had_to_wait_are_counted_when_they_are_sent() -> None:
    pipe = Pipe(room=0)
    connection, _ = connect(pipe)
    connection.send([event_frame(bid(1)), event_frame(bid(2))])
    metrics = connection._metrics
    assert (metrics.frames_sent, metrics.frames_queued) == (0, 2)
    pipe.room = 10
    connection.on_writable()
    assert (metrics.frames_sent, pipe.seqs, connection.is_direct) == (2, [1, 2], True)


def test_a_viewer_with_a_form_of_its_own_never_gets_that_of_the_others() -> None:
    pipe = Pipe(room=0)
    limits = OutgoingLimits(frames_max=4, bytes_max=100_000, stalled_max_s=10)
    connection = Connection(
        pipe, "c1", single=True, limits=limits, metrics=Metrics(), clock=Clock(), encode=lambda frame: b"own"
    )
    connection.send([event_frame(bid(1))])
    pipe.room = 10
    connection.on_writable()
    send_to_all((event_frame(bid(2)),), [connection], Metrics())
    assert (pipe.written, connection.is_direct) == ([b"own", b"own"], False)


class TestManyViewers:
    def test_each_gets_the_same_bytes_and_all_are_counted_once(self) -> None:
        metrics = Metrics()
        pipes = [Pipe() for _ in range(5)]
        frames = (event_frame(bid(1)), event_frame(bid(2)))
        send_to_all(frames, [connect(pipe)[0] for pipe in pipes], metrics)
        assert {b"".join(pipe.written) for pipe in pipes} == {wire_of(frames[0]) + wire_of(frames[1])}
        assert metrics.frames_sent == 10

    def test_who_is_full_has_them_wait_and_gets_them_in_order_when_there_is_room(self) -> None:
        metrics = Metrics()
        pipes = [Pipe(), Pipe(room=1), Pipe()]
        connections = [connect(pipe)[0] for pipe in pipes]
        for seq in (1, 2, 3):
            send_to_all((event_frame(bid(seq)),), connections, metrics)
        assert [pipe.seqs for pipe in pipes] == [[1, 2, 3], [1], [1, 2, 3]]
        assert metrics.frames_sent == 7
        assert connections[1].is_behind
        pipes[1].room = 2
        connections[1].on_writable()
        assert pipes[1].seqs == [1, 2, 3]
        # Nothing waits, but there is no room either.
        send_to_all((event_frame(bid(4)),), connections, metrics)
        assert pipes[1].seqs == [1, 2, 3]
        pipes[1].room = 100
        connections[1].on_writable()
        send_to_all((event_frame(bid(5)),), connections, metrics)
        assert pipes[1].seqs == [1, 2, 3, 4, 5]
        assert not connections[1].is_behind

    def test_what_waits_is_not_overtaken_even_where_nobody_said_that_the_socket_is_full(self) -> None:
        pipe = Pipe()
        connection, _ = connect(pipe)
        pipe.room = 0
        connection.send([event_frame(bid(1))])
        pipe.room = 10
        send_to_all((event_frame(bid(2)),), [connection], Metrics())
        assert pipe.seqs == []
        connection.on_writable()
        assert pipe.seqs == [1, 2]

    def test_a_transport_that_fails_costs_the_others_nothing(self) -> None:
        metrics = Metrics()
        pipes = [Pipe(), Broken(), Pipe()]
        connections = [connect(pipe)[0] for pipe in pipes]
        for seq in (1, 2):
            send_to_all((event_frame(bid(seq)),), connections, metrics)
        assert [pipe.seqs for pipe in pipes] == [[1, 2], [], [1, 2]]
        assert [pipe.finished for pipe in pipes] == [[], [INTERNAL_ERROR.code], []]
        assert metrics.frames_sent == 4

    def test_who_is_closed_gets_nothing_more(self) -> None:
        pipe = Pipe()
        connection, _ = connect(pipe)
        connection.close(SLOW_VIEWER)
        connection.on_writable()
        send_to_all((event_frame(bid(1)),), [connection], Metrics())
        assert pipe.written == []

    def test_another_form_of_the_same_frames(self) -> None:
        """Some of the viewers are event streams, others WebSockets."""
        pipe, other = Pipe(), Pipe()
        limits = OutgoingLimits(frames_max=4)

        def encode(frame: Frame) -> bytes:
            return b"data: %b\n\n" % frame.text

        stream = Connection(pipe, "c2", single=True, limits=limits, metrics=Metrics(), clock=Clock(), encode=encode)
        frames = (event_frame(bid(1)), event_frame(bid(2)))
        send_to_all(frames, [stream, connect(other)[0]], Metrics())
        assert pipe.written == [encode(frames[0]) + encode(frames[1])]
        assert other.seqs == [1, 2]
