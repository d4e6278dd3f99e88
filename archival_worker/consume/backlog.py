"""Reads what the stream holds beyond the archive, beside the workers: without their consumer, and without a trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final

from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, Header
from nats.js.errors import NotFoundError

from archival_worker.consume.deliveries import Delivery, read_delivery
from archival_worker.errors import StreamUnavailable
from shared import names

_PAGE: Final = 500
_FETCH_TIMEOUT_S: Final = 5.0
_IDLE_S: Final = 60.0
_EPOCH_MAX: Final = 2**30


async def first_unarchived(jetstream: JetStreamContext) -> int:
    """The sequence number in the stream up to which the workers have acknowledged everything, plus 1.

    A worker acknowledges after its COMMIT, so everything before is archived. 1 where no worker ever read the stream.

    Raises:
        StreamUnavailable: JetStream cannot be asked now.
    """
    try:
        info = await jetstream.consumer_info(names.STREAM, names.ARCHIVER_DURABLE)
    except NotFoundError:
        return 1
    except (NatsError, OSError, TimeoutError) as error:
        raise StreamUnavailable(f"consumer {names.ARCHIVER_DURABLE}: {type(error).__name__}: {error}") from error
    return info.ack_floor.stream_seq + 1 if info.ack_floor is not None else 1


async def has_message(jetstream: JetStreamContext, subject: str, *, epoch: int = 0) -> bool:
    """Whether the newest message that the stream holds under this subject is of this epoch or a later one, or does not
    tell its epoch.

    Raises:
        StreamUnavailable: JetStream cannot be asked now.
    """
    try:
        message = await jetstream.get_last_msg(names.STREAM, subject)
    except NotFoundError:
        return False
    except (NatsError, OSError, TimeoutError) as error:
        raise StreamUnavailable(f"the stream cannot be read: {type(error).__name__}: {error}") from error
    entry = names.entry_of_message_id((message.headers or {}).get(Header.MSG_ID))
    return entry is None or entry.epoch >= epoch


async def newest_epochs(jetstream: JetStreamContext, shards: Iterable[str]) -> dict[str, int]:
    """The epoch of the newest message that the stream holds of each of these shards, where it tells one.

    Raises:
        StreamUnavailable: JetStream cannot be asked now.
    """
    found: dict[str, int] = {}
    for shard in shards:
        try:
            message = await jetstream.get_last_msg(names.STREAM, f"{names.SUBJECT_PREFIX}.{shard}.*")
        except NotFoundError:
            continue
        except (NatsError, OSError, TimeoutError) as error:
            raise StreamUnavailable(f"the stream cannot be read: {type(error).__name__}: {error}") from error
        entry = names.entry_of_message_id((message.headers or {}).get(Header.MSG_ID))
        # Whoever else publishes into the stream must not use up the epochs.
        if entry is not None and entry.shard == shard and entry.epoch < _EPOCH_MAX:
            found[shard] = entry.epoch
    return found


async def read_backlog(jetstream: JetStreamContext, first_seq: int) -> AsyncIterator[list[Delivery]]:
    """The messages from ``first_seq`` on, in order and in pages, until there are no more; nothing without a stream.

    Raises:
        StreamUnavailable: JetStream cannot be read now, or a message got lost on the way.
    """
    config = ConsumerConfig(
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=first_seq,
        ack_policy=AckPolicy.NONE,
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
                yield [
                    read_delivery(
                        message.subject, message.data, message.reply, (message.headers or {}).get(Header.MSG_ID)
                    )
                    for message in messages
                ]
        finally:
            await source.unsubscribe()
    except (NatsError, NatsTimeoutError, OSError, TimeoutError) as error:
        raise StreamUnavailable(f"the stream cannot be read: {type(error).__name__}: {error}") from error
