"""Reads the event stream through a durable pull consumer: requests, deliveries, acknowledgements, and how they fail.

Requests are made here, without nats-py's ``fetch``. That returns only when a request is over, while here messages of
the next request arrive during a write. And it cannot tell a deleted consumer from a quiet one.

Requests are short, so there is a sign of life at least twice a second. A connection that hangs, a server that was
replaced, a consumer that is gone: for any reason, silence ends the puller with :class:`StreamUnavailable`, and its
owner begins anew with the stream and the consumer. An orderly end lets the open request run out. Cutting it off would
leave messages on their way, which nobody receives or gives back until the ack wait is over.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy, Header
from nats.js.errors import NotFoundError

from shared import names
from shared.clients.nats import StreamUnavailable
from shared.tracing.spans import TRACES_HEADER

logger = logging.getLogger(__name__)

_NAK: Final = b"-NAK"
_NANOSECONDS: Final = 1_000_000_000

# Statuses that end a request in the ordinary way: nothing there, expired, or its bound of bytes or messages reached.
_ENDED: Final = ("404", "408")
_CONFLICT: Final = "409"
_ENDED_BY_BOUND: Final = ("message size exceeds maxbytes", "batch completed")

_NATS_ERRORS: Final = (NatsError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How the consumer is made and asked.

    Attributes:
        durable: the consumer's name; all who use it share its messages.
        ack_wait_s: a message that is not acknowledged for this long is delivered again, to any puller. It must be
            longer than handling a message may take.
        ack_pending_max: messages out for acknowledgement, over all who pull.
        pull_expires_s: how long a request stays open, and so how long an orderly stop may take in an idle worker.
        pull_bytes_max: bytes that one request may bring, a bound on memory. It must exceed the largest message.
        patience_s: how long after ``pull_expires_s`` JetStream counts as silent.
    """

    durable: str
    ack_wait_s: float = 30.0
    ack_pending_max: int = 50_000
    pull_expires_s: float = 0.5
    pull_bytes_max: int = 8 * 1024**2
    patience_s: float = 2.0


async def ensure_consumer(jetstream: JetStreamContext, options: PullOptions) -> ConsumerInfo:
    """The durable consumer, made if it does not exist; one that exists keeps its configuration.

    Raises:
        StreamUnavailable: JetStream is not reachable, or has no such stream.
    """
    try:
        try:
            return cast(ConsumerInfo, await jetstream.consumer_info(names.STREAM, options.durable))
        except NotFoundError:
            config = ConsumerConfig(
                name=options.durable,
                durable_name=options.durable,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=options.ack_wait_s,
                max_ack_pending=options.ack_pending_max,
                max_deliver=-1,
                filter_subject=names.SUBJECT_ALL,
            )
            return await jetstream.add_consumer(names.STREAM, config)
    except _NATS_ERRORS as error:
        raise StreamUnavailable(f"consumer {options.durable}: {type(error).__name__}: {error}") from error


class Pulled(NamedTuple):
    """A message as received. ``reply`` takes its acknowledgement; ``message_id`` is its Nats-Msg-Id, ``traces`` its
    :data:`~shared.tracing.spans.TRACES_HEADER`."""

    subject: str
    data: bytes
    reply: str
    message_id: str | None
    traces: str = ""


class Puller:
    """The requests of one subscription. Deliveries are at-least-once and in any order.

    ``on_message`` and ``on_ended`` are called from the event loop, between awaits of its owner; ``on_ended`` when a
    request is over before its messages have come, or when something failed: :meth:`check` tells which.
    """

    def __init__(
        self,
        client: Client,
        options: PullOptions,
        *,
        on_message: Callable[[Pulled], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._client = client
        self._options = options
        self._on_message = on_message
        self._on_ended = on_ended
        self._next_subject = f"$JS.API.CONSUMER.MSG.NEXT.{names.STREAM}.{options.durable}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        # Not asked for with each message: in Python 3.11 that is a system call.
        self._now_s: Callable[[], float] = asyncio.get_running_loop().time
        self._pull = 0
        self._heard_s = 0.0
        self._failure: str | None = None

    async def open(self) -> None:
        """Subscribe to the answers.

        Raises:
            StreamUnavailable: the connection is closed.
        """
        try:
            self._subscription = await self._client.subscribe(f"{self._inbox}.*", cb=self._received)
        except _NATS_ERRORS as error:
            raise StreamUnavailable(f"{type(error).__name__}: {error}") from error

    def leave_request(self) -> None:
        """What is still said about the request before counts no more, though the next one is yet to be made: JetStream
        tells that a request is over a moment after the last of its messages."""
        self._pull += 1
        self._heard_s = self._now_s()

    async def pull(self, messages: int) -> None:
        """Ask for at most ``messages`` messages, in place of the request before.

        Raises:
            StreamUnavailable: the connection is closed or its buffer full.
        """
        self.leave_request()
        request = {
            "batch": messages,
            "max_bytes": self._options.pull_bytes_max,
            "expires": int(self._options.pull_expires_s * _NANOSECONDS),
        }
        await self._publish(self._next_subject, json.dumps(request).encode(), f"{self._inbox}.{self._pull}")

    async def _received(self, message: Msg) -> None:
        self._heard_s = self._now_s()
        headers = message.headers
        status = headers.get(Header.STATUS) if headers else None
        if status is None:
            message_id, traces = None, ""
            if headers:
                message_id, traces = headers.get(Header.MSG_ID), headers.get(TRACES_HEADER, "")
            self._on_message(Pulled(message.subject, message.data, message.reply, message_id, traces))
        elif message.subject == f"{self._inbox}.{self._pull}":
            # A status of an earlier request would say nothing about the open one.
            description = (headers or {}).get(Header.DESCRIPTION, "")
            ended = status in _ENDED or (status == _CONFLICT and description.lower() in _ENDED_BY_BOUND)
            if not ended:
                self._failure = f"{status} {description}".strip()
            self._on_ended()

    @property
    def silent_at_s(self) -> float:
        """When silence would be a failure, in the event loop's time, while a request is open."""
        return self._heard_s + self._options.pull_expires_s + self._options.patience_s

    def check(self, *, pulling: bool) -> None:
        """Return while all is well.

        Args:
            pulling: whether a request is open, so that there must be signs of life.

        Raises:
            StreamUnavailable: disconnected, silent, or the server ended a request for good (consumer deleted, shutting
                down, no such stream).
        """
        if self._failure is not None:
            raise StreamUnavailable(f"the stream ended a request: {self._failure}")
        if not self._client.is_connected:
            raise StreamUnavailable("NATS is disconnected")
        if pulling and self._now_s() >= self.silent_at_s:
            silent_s = self._options.pull_expires_s + self._options.patience_s
            raise StreamUnavailable(f"no sign of life from JetStream for {silent_s:g} s")

    async def acknowledge(self, replies: Iterable[str]) -> None:
        """Tell JetStream that the messages with these reply subjects are done: one small write each, no answer awaited.
        A write that gets lost costs a redelivery.

        Raises:
            StreamUnavailable: the connection is closed or its buffer full.
        """
        for reply in replies:
            await self._publish(reply, b"")

    async def give_back(self, replies: Iterable[str]) -> None:
        """Have JetStream deliver these again at once, to any puller; while JetStream is away, the end of the ack wait
        has the same effect."""
        if not self._client.is_connected:
            return
        try:
            for reply in replies:
                await self._publish(reply, _NAK)
        except StreamUnavailable as error:
            logger.info("messages not given back, JetStream will notice: %s", error)

    async def _publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        try:
            await self._client.publish(subject, payload, reply)
        except _NATS_ERRORS as error:
            raise StreamUnavailable(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Unsubscribe. Nobody receives what is still on its way."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            # Not drain(), which flushes: where a flush times out and the server answers later, nats-py's reader breaks.
            await subscription.unsubscribe()
        except _NATS_ERRORS as error:
            logger.debug("unsubscribe: %s", error)
