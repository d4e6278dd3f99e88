"""What is written down outside of Redis about shards and items: in PostgreSQL, and in the stream.

Redis alone decides, so Redis must not have forgotten anything. A Redis that was wiped, or was put back to an older
copy, looks sound from inside. From outside it does not: the archive, or the stream, has entries that it has not given
out yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, TypeVar

from nats.errors import Error as NatsError
from nats.js.errors import APIError

from api_gateway.reads.archive import Archive
from shared import names
from shared.clients.nats import NatsLink
from shared.domain.errors import Unavailable
from shared.redis_layout.outbox import EntryId
from shared.streams.last_ids import last_ids
from shared.streams.reader import LOOK_BACK_MESSAGES, last_id, newest_entries

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_BACK_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Known:
    """The highest known entry of each shard, and which witnesses answered."""

    places: dict[str, EntryId] = field(default_factory=dict)
    archive_asked: bool = False
    stream_asked: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether both answered, so that a shard without a place has nothing written down."""
        return self.archive_asked and self.stream_asked


class Witnesses:
    """Asks the archive and the stream, both within a bound; not for the hot path."""

    def __init__(self, archive: Archive, nats: NatsLink, *, timeout_s: float = 2.0) -> None:
        self._archive = archive
        self._nats = nats
        self._timeout_s = timeout_s

    async def shards(self, *, look_back: bool = False) -> Known:
        """How far each shard is known to have been. Never raises: it says who could not be asked.

        Args:
            look_back: look at the newest messages of the whole stream, too, not only at the last one of each shard.

        A shard's last message need not be its highest entry (:func:`shared.streams.reader.newest_entries`). The higher
        entry is then archived, or among the newest messages. It is missed where the archive cannot be asked, or is
        further behind than the newest messages reach.
        """
        archived, published = await asyncio.gather(
            self._tried(self._archived()), self._tried(self._published(look_back=look_back))
        )
        places: dict[str, EntryId] = {}
        for found in (archived or {}, published or {}):
            for shard, place in found.items():
                places[shard] = max(place, places.get(shard, place))
        return Known(places, archived is not None, published is not None)

    async def _tried(self, question: Awaitable[T]) -> T | None:
        try:
            return await question
        except Unavailable as error:
            logger.warning("shards: %s", error)
            return None

    async def _archived(self) -> dict[str, EntryId]:
        return {shard: EntryId(epoch, n) for shard, epoch, n in await self._archive.shard_places()}

    async def _published(self, *, look_back: bool) -> dict[str, EntryId]:
        answers = await asyncio.gather(*(self._last(f"{names.SUBJECT_PREFIX}.{shard}.*") for shard in names.SHARDS))
        places = {shard: _place_of(shard, message_id) for shard, message_id in zip(names.SHARDS, answers, strict=True)}
        found = {shard: place for shard, place in places.items() if place is not None}
        if look_back:
            for shard, place in (await self._newest()).items():
                found[shard] = max(place, found.get(shard, place))
        return found

    async def _newest(self) -> dict[str, EntryId]:
        """The highest place of each shard among the newest messages of the stream.

        Raises:
            Unavailable: the stream cannot be read.
        """
        places: dict[str, EntryId] = {}
        try:
            async with asyncio.timeout(_LOOK_BACK_S):
                jetstream = (await self._nats.connected()).jetstream()
                async with aclosing(newest_entries(jetstream, most=LOOK_BACK_MESSAGES)) as entries:
                    async for entry in entries:
                        place = EntryId(entry.epoch, entry.n)
                        places[entry.shard] = max(place, places.get(entry.shard, place))
        except (NatsError, APIError, OSError, TimeoutError) as error:
            raise Unavailable(f"the stream cannot be read: {type(error).__name__}", retry_after_s=2) from error
        return places

    async def _last(self, subject: str) -> str | None:
        """The Nats-Msg-Id of the last message under a subject, '' where it has none; None where there is no message.

        Raises:
            Unavailable: the stream cannot be asked.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._nats.connected()
                return await last_id(client.jetstream(), subject)
        except (NatsError, APIError, OSError, TimeoutError) as error:
            raise _stream_away(error) from error

    async def published_epochs(self, item_ids: Sequence[str]) -> dict[str, int]:
        """For each of these items that has a message in the stream, the epoch of its shard in which the newest message
        was published; 0 where the message does not tell.

        Raises:
            Unavailable: the stream cannot be asked.
        """
        by_subject = {names.subject_of(item_id): item_id for item_id in item_ids}
        try:
            client = await self._nats.connected()
            found = await last_ids(client, list(by_subject), timeout_s=self._timeout_s)
        except (NatsError, APIError, OSError, TimeoutError) as error:
            raise _stream_away(error) from error
        epochs: dict[str, int] = {}
        for subject, message_id in found.items():
            item_id = by_subject[subject]
            place = _place_of(names.shard_of(item_id), message_id)
            epochs[item_id] = 0 if place is None else place.epoch
        return epochs

    async def archived(self, item_ids: Sequence[str]) -> dict[str, bool]:
        """The items among these of which PostgreSQL has an event, each with whether it is closed and PostgreSQL has all
        of it.

        Raises:
            Unavailable: it cannot be asked.
        """
        return await self._archive.known(item_ids)


def _stream_away(error: Exception) -> Unavailable:
    return Unavailable(f"the stream cannot be asked: {type(error).__name__}", retry_after_s=2)


def _place_of(shard: str, message_id: str | None) -> EntryId | None:
    """The entry of the shard's outbox that a message comes from. A message with a foreign id gives the lowest place: it
    shows only that the shard is not new."""
    if message_id is None:
        return None
    entry = names.entry_of_message_id(message_id)
    return EntryId(entry.epoch, entry.n) if entry is not None and entry.shard == shard else EntryId(0, 0)
