"""How far the archive is behind the event stream."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from shared import names
from shared.clients.nats import NatsLink

ASK_TIMEOUT_S: Final = 2.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Progress(NamedTuple):
    """Sequence numbers of the stream: of its last message, and up to which everything is committed in PostgreSQL; and
    when the stream was made, in microseconds, which tells it from a stream that was made anew."""

    last: int
    archived: int
    stream: int = 0


class Head(NamedTuple):
    """The number of the stream's last message, and when the stream was made, in microseconds; zeros without one."""

    last: int
    stream: int


class ArchiveProgress:
    """Asks JetStream. The archiver acknowledges after its commit, so its acknowledgements tell the commits."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link

    async def head(self) -> Head:
        """The head of the stream, as its leader knows it now.

        Raises:
            StreamUnavailable, nats.errors.Error, OSError, TimeoutError: it cannot be told now.
        """
        async with asyncio.timeout(ASK_TIMEOUT_S):
            jetstream = (await self._link.connected()).jetstream(timeout=ASK_TIMEOUT_S)
            try:
                info = await jetstream.stream_info(names.STREAM)
            except NotFoundError:
                return Head(0, 0)
            return Head(info.state.last_seq, _micros_of(info.created))

    async def ask(self) -> Progress:
        """The progress now. Without a stream there is nothing to archive; without an archiver nothing is archived.

        Raises:
            StreamUnavailable, nats.errors.Error, OSError, TimeoutError: it cannot be told now.
        """
        async with asyncio.timeout(ASK_TIMEOUT_S):
            jetstream = (await self._link.connected()).jetstream(timeout=ASK_TIMEOUT_S)
            try:
                info = await jetstream.stream_info(names.STREAM)
            except NotFoundError:
                return Progress(0, 0)
            state, stream = info.state, _micros_of(info.created)
            last = state.last_seq
            try:
                consumer = await jetstream.consumer_info(names.STREAM, names.ARCHIVER_DURABLE)
            except NotFoundError:
                return Progress(last, 0, stream)
            archived = consumer.ack_floor.stream_seq if consumer.ack_floor is not None else 0
            if archived >= last or consumer.num_pending or consumer.num_ack_pending:
                return Progress(last, archived, stream)
            # Either the stream no longer holds the messages after the acknowledged ones, so there is nothing to wait
            # for; or the leader of the consumer, which may be another server than that of the stream, has not heard of
            # them.
            is_behind = state.messages and await _holds_any_from(jetstream, archived + 1)
            return Progress(last, archived if is_behind else last, stream)


def _micros_of(made: datetime | None) -> int:
    return 0 if made is None else (made - _EPOCH) // timedelta(microseconds=1)


async def _holds_any_from(jetstream: JetStreamContext, sequence: int) -> bool:
    """Whether the stream, as its leader knows it, holds a message with this number or a later one."""
    try:
        await jetstream.get_msg(names.STREAM, sequence, names.SUBJECT_ALL, next=True)
    except NotFoundError:
        return False
    return True
