"""One connection: direct writes, the queue behind a full socket, and the end."""

from __future__ import annotations

import json

from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from broadcast_service.close_codes import ITEM_NOT_FOUND, SLOW_VIEWER
from broadcast_service.connection import Connection, wire_of
from broadcast_service.frames import error_frame, event_frame
from broadcast_service.metrics import Metrics
from broadcast_service.outgoing import OutgoingLimits
from tests.unit.broadcast_service.builders import bid


class Pipe:
    """A transport that writes into a list and takes ``room`` writes before it is full."""

    def __init__(self, room: int = 1_000) -> None:
        self.room = room
        self.written: list[bytes] = []
        self.finished: list[int] = []

    @property
    def is_writable(self) -> bool:
        return self.room > 0 and not self.finished

    def write(self, data: bytes) -> None:
        assert self.is_writable
        self.room -= 1
        self.written.append(data)

    def finish(self, code: int, reason: str) -> None:
        self.finished.append(code)

    @property
    def seqs(self) -> list[int]:
        """Seqs of the text messages that were written."""
        data, seqs = b"".join(self.written), []
        while data:
            length = data[1] if data[1] < 126 else int.from_bytes(data[2:4], "big")
            start = 2 if data[1] < 126 else 4
            assert data[0] == 0x80 | Opcode.TEXT
            seqs.append(json.loads(data[start : start + length])["seq"])
            data = data[start + length :]
        return seqs


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
    return Connection(pipe, "c1", single=single, limits=limits, metrics=Metrics(), clock=clock), clock


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
    # What comes now must not overtake what waits.
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


def test_an_item_that_does_not_exist_ends_only_a_connection_that_is_for_it_alone() -> None:
    error = error_frame("ITEM_NOT_FOUND", "no such item", item_id="x")
    for single, finished in ((True, [ITEM_NOT_FOUND.code]), (False, [])):
        pipe = Pipe()
        connection, _ = connect(pipe, single=single)
        connection.refuse(error, ITEM_NOT_FOUND)
        assert pipe.written == [wire_of(error)]
        assert pipe.finished == finished
