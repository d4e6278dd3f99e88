"""Reads what the stream holds beyond the archive. Does not touch the workers' consumer, and leaves no trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import aclosing
from typing import Final

from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import Header
from nats.js.errors import NotFoundError

from archival_worker.consume.deliveries import Delivery, read_delivery
from shared import names
from shared.clients.nats import StreamUnavailable
from shared.streams import reader

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
    """As :func:`shared.streams.reader.has_message`.

    Raises:
        StreamUnavailable: JetStream cannot be asked now.
    """
    try:
        return await reader.has_message(jetstream, subject, epoch=epoch)
    except (NatsError, OSError, TimeoutError) as error:
        raise StreamUnavailable(f"the stream cannot be read: {type(error).__name__}: {error}") from error


async def newest_epochs(jetstream: JetStreamContext, shards: Iterable[str]) -> dict[str, int]:
    """For each of these shards, the highest epoch in its last message in the stream and in the newest messages of the
    whole stream. A shard is left out if none of these messages tells its epoch.

    Raises:
        StreamUnavailable: JetStream cannot be asked now.
    """
    wanted = set(shards)
    found: dict[str, int] = {}

    def note(entry: names.OutboxEntry | None, of: Collection[str]) -> None:
        # A foreign message in the stream must not use up the epochs.
        if entry is not None and entry.shard in of and entry.epoch < _EPOCH_MAX:
            found[entry.shard] = max(entry.epoch, found.get(entry.shard, 0))

    try:
        for shard in wanted:
            message_id = await reader.last_id(jetstream, f"{names.SUBJECT_PREFIX}.{shard}.*")
            note(names.entry_of_message_id(message_id), (shard,))
        async with aclosing(reader.newest_entries(jetstream)) as entries:
            async for entry in entries:
                note(entry, wanted)
    except StreamUnavailable:
        raise
    except (NatsError, OSError, TimeoutError) as error:
        raise StreamUnavailable(f"the stream cannot be read: {type(error).__name__}: {error}") from error
    return found


async def read_backlog(jetstream: JetStreamContext, first_seq: int) -> AsyncIterator[list[Delivery]]:
    """The messages from ``first_seq`` to the last one, in order and in pages; none if there is no stream.

    Raises:
        StreamUnavailable: JetStream cannot be read now, or a message got lost on the way.
    """
    async for messages in reader.read_from(jetstream, first_seq):
        yield [
            read_delivery(each.subject, each.data, each.reply, (each.headers or {}).get(Header.MSG_ID))
            for each in messages
        ]
