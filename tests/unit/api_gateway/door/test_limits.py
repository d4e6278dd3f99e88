"""Bodies that a handler reads itself: what it answers before they have come is heard, and what comes is thrown away."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from api_gateway.door.limits import BodyLimit
from tests.unit.api_gateway.contexts import with_context

Message = MutableMapping[str, Any]
PATH = "/upload"
BYTES_MAX = 100


class Wire:
    """A request whose body comes in pieces, and what was answered."""

    def __init__(self, *pieces: bytes, length: int | None = None) -> None:
        self._pieces = list(pieces)
        headers = [] if length is None else [(b"content-length", b"%d" % length)]
        self.scope: Message = {"type": "http", "method": "POST", "path": PATH, "headers": headers}
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self._pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._pieces.pop(0), "more_body": bool(self._pieces)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def left(self) -> int:
        return len(self._pieces)

    @property
    def status(self) -> int:
        found: int = self.sent[0]["status"]
        return found

    @property
    def closes(self) -> bool:
        return (b"connection", b"close") in self.sent[0]["headers"]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def answering(*, reads: int) -> tuple[Any, list[bytes]]:
    """An application that reads so many messages, and then answers."""
    read: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(reads):
            message = await receive()
            read.append(message.get("body", b""))
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        await send({"type": "http.response.body", "body": b"k"})

    return app, read


async def answered(wire: Wire, app: Any) -> None:
    limited = with_context(BodyLimit(app, bytes_max=10, streamed={PATH: BYTES_MAX}))
    await limited(wire.scope, wire.receive, wire.send)


async def test_the_handler_reads_the_body_piece_by_piece() -> None:
    wire = Wire(b"a" * 60, b"b" * 30, length=90)
    app, read = answering(reads=2)
    await answered(wire, app)
    assert read == [b"a" * 60, b"b" * 30]
    assert (wire.status, wire.body, wire.closes) == (201, b"ok", False)


async def test_an_early_answer_closes_and_the_rest_is_thrown_away() -> None:
    wire = Wire(b"a", b"b", b"c", b"d")
    app, read = answering(reads=1)
    await answered(wire, app)
    assert (read, wire.left) == ([b"a"], 0)
    assert (wire.status, wire.body, wire.closes) == (201, b"ok", True)
    # The answer is out before the rest is thrown away, and complete afterwards.
    assert [message.get("more_body", False) for message in wire.sent[1:]] == [True, True, False]


async def test_what_says_that_it_is_too_large_is_not_read() -> None:
    wire = Wire(b"a", length=BYTES_MAX + 1)
    app, read = answering(reads=1)
    await answered(wire, app)
    assert (read, wire.status, wire.closes) == ([], 413, True)


async def test_other_paths_are_bounded_as_before() -> None:
    wire = Wire(b"a" * 11)
    wire.scope["path"] = "/other"
    app, read = answering(reads=1)
    await answered(wire, app)
    assert (read, wire.status) == ([], 413)
