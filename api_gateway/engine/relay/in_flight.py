"""Entries on their way into the stream: what a PubAck says about each, and what it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from api_gateway.engine.relay.shard_scripts import Advance
from api_gateway.tracing.entries import Publication
from shared import names
from shared.redis_layout.cursors import Lineage

_QUESTIONS_AT_ONCE: Final = 32


class ForeignMessage(Exception):
    """JetStream has another message under the id of an entry, so the entry is not published, and never will be."""


class StreamWentBack(Exception):
    """JetStream has stored a message at a number that it had given to another one."""


class PubAck(NamedTuple):
    """JetStream has the message, as ``seq`` of the stream; ``duplicate``: it says that it had it already."""

    seq: int
    duplicate: bool = False


class InFlight(msgspec.Struct):
    """An entry on its way to the stream; ``after`` is where this read of its shard began.

    ``ack`` and ``error`` are JetStream's answer, None while there is none. Where it says that it had the message
    already, ``is_ours`` and ``is_foreign`` tell what a look at that message has shown; both are False before the look.
    ``traced``: where it has sampled bids.
    """

    shard: str
    lineage: Lineage
    after: int
    entry: int
    subject: str
    payload: bytes
    ack: PubAck | None = None
    error: Exception | None = None
    is_ours: bool = False
    is_foreign: bool = False
    traced: Publication | None = None

    @property
    def failure(self) -> Exception | None:
        """Why it does not count as published, None where it does. A PubAck that has not come by now counts as
        missing."""
        if self.error is not None:
            return self.error
        if self.ack is None:
            return TimeoutError("no PubAck in time")
        if self.is_foreign:
            return ForeignMessage(
                f"shard {self.shard}: JetStream has another message in the place of entry {self.entry}"
            )
        if self.ack.duplicate and not self.is_ours:
            return TimeoutError("no answer about a message that JetStream had already")
        return None


class Settled(NamedTuple):
    """What the answers of JetStream to one turn say.

    Attributes:
        reached: by shard, how far its cursor may move.
        foreign: entries in whose place JetStream has another message.
        error: why an entry does not count as published; None where all do.
    """

    reached: dict[str, Advance]
    foreign: list[InFlight]
    error: BaseException | None


async def verify(jetstream: JetStreamContext, in_flight: Sequence[InFlight], *, timeout_s: float) -> None:
    """Look at the messages that JetStream says it had already. Nearly always they are ours, and the PubAck got lost."""
    doubtful = [(one, one.ack.seq) for one in in_flight if one.ack is not None and one.ack.duplicate]
    if not doubtful:
        return
    questions = asyncio.Semaphore(_QUESTIONS_AT_ONCE)

    async def look(one: InFlight, seq: int) -> None:
        async with questions:
            try:
                message = await jetstream.get_msg(names.STREAM, seq=seq)
            except NotFoundError:
                # Purged since, as archived messages are. Its id had the digest of what we sent.
                one.is_ours = True
            else:
                one.is_ours = message.data == one.payload and message.subject == one.subject
                one.is_foreign = not one.is_ours

    async with asyncio.timeout(timeout_s):
        await asyncio.gather(*(look(one, seq) for one, seq in doubtful))
