"""Reads what the event stream holds, beside its consumers; the reader's own consumer expires after a minute."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header
from nats.js.errors import NotFoundError

from shared import names
from shared.clients.nats import StreamUnavailable

LOOK_BACK_MESSAGES: Final = 4_096
"""The most messages that are looked at: four times what a relay may have on its way at once."""
_PAGE: Final = 500
_FETCH_TIMEOUT_S: Final = 5.0
_IDLE_S: Final = 60.0


async def last_id(jetstream: JetStreamContext, subject: str) -> str | None:
    """The Nats-Msg-Id of the last message under a subject, '' where it has none; None where there is no message, or no
    stream.

    Raises:
        nats.errors.Error, OSError, TimeoutError: JetStream cannot be asked now.
    """
    try:
        message = await jetstream.get_last_msg(names.STREAM, subject)
    except NotFoundError:
        return None
    return str((message.headers or {}).get(Header.MSG_ID, ""))


async def newest_entries(
    jetstream: JetStreamContext, *, most: int = LOOK_BACK_MESSAGES
) -> AsyncGenerator[names.OutboxEntry]:
    """The outbox entries from which the newest messages of the whole stream come; nothing without a stream.

    Look at these beside :func:`last_id`, because a shard's last message need not be its highest entry. A relay that
    slept past its lease publishes again what it had read, and JetStream remembers ids for two minutes only. A late
    message of a former epoch names a lower entry. And after a loss everything is published again from the archived
    cursor on.

    Raises:
        StreamUnavailable: a message got lost on the way.
        nats.errors.Error, OSError, TimeoutError: JetStream cannot be asked now.
    """
    try:
        state = (await jetstream.stream_info(names.STREAM)).state
    except NotFoundError:
        return
    first_seq = max(1, state.first_seq, state.last_seq - most + 1)
    left = most
    async with contextlib.aclosing(read_from(jetstream, first_seq, headers_only=True)) as pages:
        async for messages in pages:
            for message in messages[:left]:
                entry = names.entry_of_message_id((message.headers or {}).get(Header.MSG_ID))
                if entry is not None and message.subject.startswith(f"{names.SUBJECT_PREFIX}.{entry.shard}."):
                    yield entry
            left -= len(messages)
            if left <= 0:
                break  # what is published meanwhile is not needed


async def has_message(jetstream: JetStreamContext, subject: str, *, epoch: int = 0) -> bool:
    """Whether the newest message that the stream holds under this subject is of this epoch of its shard or a later one,
    or does not tell its epoch.

    Raises:
        nats.errors.Error, OSError, TimeoutError: JetStream cannot be asked now.
    """
    message_id = await last_id(jetstream, subject)
    if message_id is None:
        return False
    entry = names.entry_of_message_id(message_id)
    return entry is None or entry.epoch >= epoch


async def read_from(
    jetstream: JetStreamContext, first_seq: int, *, headers_only: bool = False
) -> AsyncGenerator[list[Msg]]:
    """The messages from ``first_seq`` on, in order and in pages, until there are no more; nothing without a stream.

    ``headers_only``: without their content.

    Raises:
        StreamUnavailable: JetStream cannot be read now, or a message got lost on the way.
    """
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=first_seq,
        ack_policy=AckPolicy.NONE,
        headers_only=headers_only,
        inactive_threshold=_IDLE_S,
        mem_storage=True,
    )
    try:
        try:
            source = await jetstream.pull_subscribe(names.SUBJECT_ALL, stream=names.STREAM, config=config)
        except NotFoundError:
            return
        try:
            pending, read = (await source.consumer_info()).num_pending or 0, 0
            while pending:
                messages = await source.fetch(min(_PAGE, pending), timeout=_FETCH_TIMEOUT_S)
                for message in messages:
                    read += 1
                    if message.metadata.sequence.consumer != read:
                        raise StreamUnavailable("a message of the stream got lost on the way; start again")
                pending = messages[-1].metadata.num_pending
                yield messages
        finally:
            # If the caller is cancelled, an error here would take the place of the cancellation. The server forgets the
            # consumer by itself.
            with contextlib.suppress(NatsError, OSError):
                await source.unsubscribe()
    except StreamUnavailable:
        raise
    except (NatsError, OSError, TimeoutError) as error:
        raise StreamUnavailable(f"the stream cannot be read: {type(error).__name__}: {error}") from error
