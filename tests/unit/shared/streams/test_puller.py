"""What ends a request for messages: only what JetStream says of the one that is open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from nats.aio.msg import Msg

from shared.clients.nats import StreamUnavailable
from shared.streams.puller import Pulled, Puller, PullOptions


class Line:
    """A connection that is up, and on which JetStream answers what the test has it say."""

    is_connected = True

    def __init__(self) -> None:
        self._answered: Callable[[Msg], Awaitable[None]] | None = None
        self.answer_to: list[str] = []
        self.pulled: list[Pulled] = []
        self.ended = 0
        self.puller = Puller(
            cast(Any, self), PullOptions("counter"), on_message=self.pulled.append, on_ended=self._on_ended
        )

    def _on_ended(self) -> None:
        self.ended += 1

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str, *, cb: Callable[[Msg], Awaitable[None]]) -> None:
        assert subject == "_INBOX.x.*"
        self._answered = cb

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        self.answer_to.append(reply)

    async def says(self, request: int, status: str, description: str) -> None:
        assert self._answered is not None
        headers = {"Status": status, "Description": description}
        await self._answered(Msg(cast(Any, self), subject=self.answer_to[request], headers=headers))


@pytest.mark.parametrize(
    ("status", "description"), [("408", "Request Timeout"), ("409", "Consumer Deleted"), ("503", "")]
)
async def test_what_is_said_of_a_request_before_says_nothing_of_the_one_that_is_open(
    status: str, description: str
) -> None:
    line = Line()
    await line.puller.open()
    await line.puller.pull(10)
    await line.puller.pull(10)
    await line.says(0, status, description)
    line.puller.check(pulling=True)
    assert line.ended == 0, "otherwise more would be asked for while as much as may wait is on its way"


@pytest.mark.parametrize(
    ("status", "description", "is_failure"), [("408", "Request Timeout", False), ("409", "Consumer Deleted", True)]
)
async def test_the_open_request_ends_when_it_is_said_so(status: str, description: str, is_failure: bool) -> None:
    line = Line()
    await line.puller.open()
    await line.puller.pull(10)
    await line.puller.pull(10)
    await line.says(1, status, description)
    assert line.ended == 1
    if is_failure:
        with pytest.raises(StreamUnavailable, match=description):
            line.puller.check(pulling=True)
    else:
        line.puller.check(pulling=True)
