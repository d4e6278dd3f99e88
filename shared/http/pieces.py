"""Answers that are sent in pieces: each waits until the client has taken most of those before it.

The server would copy an answer that is one piece into the buffer of every connection that does not read. Of an answer
in pieces it copies about two, and all waiting connections share the rest. Each turn of the loop sends one piece of one
answer: the pieces of many answers in one turn would hold up everybody else.
"""

from __future__ import annotations

from typing import ClassVar, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from shared.pacing.turns import OneByOne

PIECE_BYTES: Final = 32 * 1024


class InPieces(Response):
    """A response of which at most about 100 KB are in the connection's buffer."""

    turns: ClassVar[OneByOne] = OneByOne()

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = self.body
        for start in range(0, len(body), PIECE_BYTES):
            piece = body[start : start + PIECE_BYTES]
            await self.turns.turn()
            await send({"type": "http.response.body", "body": piece, "more_body": start + PIECE_BYTES < len(body)})
        if not body:
            await send({"type": "http.response.body", "body": b""})
