"""Events from JetStream, through one ephemeral push consumer for all items.

The consumer is ordered in the sense that a gap in its numbering, a heartbeat that disagrees, silence, or a new
connection ends it; a new one then starts with *new* messages, and the listener looks at Redis for what was missed in
between. So it does not matter what became of the old consumer, or of the stream: a NATS server that lost its disk is
followed again like any other.
(The ordered consumer of nats-py resumes at the next stream sequence instead, and would wait for ever for one that a
new stream reaches only much later.)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

import nats.errors
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared import names
from shared.clients.nats import Client, ensure_stream, open_nats
from shared.pacing.backoff import Backoff
from shared.server_urls import without_password
from shared.streams.ack_subject import consumer_sequence, stream_sequence
from shared.streams.reader import has_message
from shared.tracing.spans import TRACES_HEADER

logger = logging.getLogger(__name__)

HEARTBEATS_MISSED_MAX: Final = 3
CHECK_EVERY_S: Final = 0.1
RETRY_MOST_S: Final = 0.5
UNUSED_CONSUMER_KEPT_S: Final = 10.0
ASK_TIMEOUT_S: Final = 1.0
_SILENCE_STEP_S: Final = 0.01
"""The least wait for a consumer that has been silent for almost as long as it may be."""
_LOST: Final = "the connection was lost"
_NAMES: Final = "follower-"
"""How the names of consumers begin. Each consumer has another one."""


class Listener(Protocol):
    """Is told of the stream. Calls are synchronous: the next message is handled when they have returned."""

    def on_message(self, subject: str, data: bytes) -> None:
        """One message of the stream, in order."""

    def on_stream_up(self) -> None:
        """From now on every new message arrives; earlier ones may have been missed."""

    def on_stream_down(self) -> None:
        """Messages do not arrive any more."""


class Follower:
    """``run`` works until it is cancelled, whether NATS is there or not.

    Args:
        name: of the connection, shown in the server's monitoring.
        heartbeat_s: seconds between heartbeats while there are no events; three missed ones end the consumer.
        subjects: subjects of core NATS to listen to on the same connection, and who is told of their messages.
        on_traces: called with the :data:`~shared.tracing.spans.TRACES_HEADER` of each message, empty where it has none,
            before the listener gets the message; None where nobody traces.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        heartbeat_s: float,
        subjects: Mapping[str, Callable[[bytes], object]] = MappingProxyType({}),
        on_traces: Callable[[str], object] | None = None,
    ) -> None:
        self._url = url
        self._name = name
        self.consumers_made = 0
        self._heartbeat_s = heartbeat_s
        self._silent_max_s = HEARTBEATS_MISSED_MAX * heartbeat_s
        self._subjects = subjects
        self._on_traces = on_traces
        self._client: Client | None = None
        self._consumer: _Consumer | None = None
        self._is_up = False
        self.sequence = 0
        """The stream's number of the message that the listener got last or is handling now; 0 before the first."""

    @property
    def is_up(self) -> bool:
        """Whether events flow."""
        return self._is_up

    async def publish(self, subject: str, data: bytes) -> None:
        """Core NATS, at most once: nothing is sent, and nothing kept for later, while NATS is away."""
        if self._is_up and self._client is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.publish(subject, data)

    async def has_message(self, subject: str, epoch: int = 0) -> bool:
        """Whether the newest message that the stream holds under this subject is of this epoch of its shard or of a
        later one, or does not tell its epoch. Takes at most a second.

        Raises:
            nats.errors.Error, OSError, TimeoutError: it cannot be asked now.
        """
        client = self._client
        if client is None or not self._is_up:
            raise TimeoutError("NATS is not there")
        async with asyncio.timeout(ASK_TIMEOUT_S):
            return await has_message(client.jetstream(), subject, epoch=epoch)

    def begin_anew(self, reason: str) -> None:
        """Replace the consumer that is followed now, if there is one. For a caller that has found that it does not get
        all messages."""
        if self._consumer is not None:
            self._consumer.end(reason)

    def _on_lost(self) -> None:
        self.begin_anew(_LOST)

    async def run(self, listener: Listener) -> None:
        """Connect, follow, and start over after every failure, until cancelled."""
        backoff = Backoff(most_s=RETRY_MOST_S)
        while True:
            try:
                # Returns when NATS is there for the first time; from then on the client itself reconnects for ever.
                client = await open_nats(self._url, name=self._name, on_lost=self._on_lost)
            except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
                shown = without_password(self._url)
                logger.warning("nats: cannot connect to %s: %s: %s", shown, type(error).__name__, error)
                await asyncio.sleep(backoff.failed())
                continue
            try:
                # The client itself renews these wherever it reconnects.
                for subject, tell in self._subjects.items():
                    await client.subscribe(subject, cb=_teller(tell))
                self._client = client
                while not client.is_closed:
                    await self._follow_or_wait(client, listener, backoff)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                logger.warning("nats: connecting anew: %s: %s", type(error).__name__, error)
                await asyncio.sleep(backoff.failed())
            finally:
                self._client = None
                await _close(client)

    async def _follow_or_wait(self, client: Client, listener: Listener, backoff: Backoff) -> None:
        if client.is_connected:
            try:
                await self._follow(client, listener)
                backoff.succeeded()
            except (nats.errors.Error, OSError, TimeoutError) as error:
                logger.warning("nats: the events cannot be followed: %s: %s", type(error).__name__, error)
                await asyncio.sleep(backoff.failed())
        else:
            await asyncio.sleep(CHECK_EVERY_S)

    async def _follow(self, client: Client, listener: Listener) -> None:
        """Make one consumer and follow it until something is wrong with it."""
        reconnects = client.stats["reconnects"]
        jetstream = client.jetstream()
        await ensure_stream(jetstream)
        self.sequence = 0
        consumer = self._consumer = _Consumer(client, listener, self._at, self._on_traces)
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=consumer.on_message)
        try:
            await jetstream.add_consumer(names.STREAM, self._config(inbox))
            self.consumers_made += 1
            self._is_up = True
            logger.info("nats: following the events")
            listener.on_stream_up()
            while (wrong := self._what_is_wrong(client, consumer, reconnects)) is None:
                # Whatever else may be wrong ends the consumer: see `_on_lost` and `_Consumer.end`.
                left_s = self._silent_max_s - _silent_s(consumer)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(consumer.broken.wait(), max(left_s, _SILENCE_STEP_S))
            logger.warning("nats: following anew: %s", wrong)
        finally:
            self._consumer = None
            if self._is_up:
                self._is_up = False
                listener.on_stream_down()
            with contextlib.suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    def _at(self, sequence: int) -> None:
        self.sequence = sequence

    def _what_is_wrong(self, client: Client, consumer: _Consumer, reconnects: int) -> str | None:
        if consumer.broken.is_set():
            return consumer.reason
        if not client.is_connected or client.stats["reconnects"] != reconnects:
            return _LOST
        silent_s = _silent_s(consumer)
        return f"nothing was heard for {silent_s:.1f} s" if silent_s > self._silent_max_s else None

    def _config(self, inbox: str) -> ConsumerConfig:
        return ConsumerConfig(
            # A consumer with a name has it in the subject of the request: permissions see subjects alone.
            name=f"{_NAMES}{secrets.token_hex(8)}",
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.NEW,
            ack_policy=AckPolicy.NONE,
            filter_subject=names.SUBJECT_ALL,
            max_deliver=1,
            flow_control=True,
            idle_heartbeat=self._heartbeat_s,
            # The consumer need not survive the server, nor this process.
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=UNUSED_CONSUMER_KEPT_S,
        )


class _Consumer:
    """The messages of one consumer, checked for gaps."""

    def __init__(
        self,
        client: Client,
        listener: Listener,
        at: Callable[[int], None] = lambda sequence: None,
        on_traces: Callable[[str], object] | None = None,
    ) -> None:
        """``at``: called with each message's number in the stream, before the listener gets the message."""
        self._client = client
        self._listener = listener
        self._at = at
        self._on_traces = on_traces
        self._last_sequence = 0
        self.heard_s = asyncio.get_running_loop().time()
        self.broken = asyncio.Event()
        self.reason = ""

    async def on_message(self, msg: Msg) -> None:
        self.heard_s = asyncio.get_running_loop().time()
        if self.broken.is_set():
            return
        if msg.headers is not None and "Status" in msg.headers:
            await self._on_status(msg, msg.headers)
            return
        sequence = consumer_sequence(msg.reply)
        if sequence != self._last_sequence + 1:
            self.end(f"message {sequence} came after {self._last_sequence}")
            return
        self._last_sequence = sequence
        self._at(stream_sequence(msg.reply))
        try:
            if self._on_traces is not None:
                self._on_traces((msg.headers or {}).get(TRACES_HEADER, ""))
            self._listener.on_message(msg.subject, msg.data)
        except Exception:
            # A defect in our code. The feed must not stop for it, and the next snapshot may make up for it.
            logger.exception("nats: message %d on %s was not handled", sequence, msg.subject)
            self.end("a message was not handled")

    async def _on_status(self, msg: Msg, headers: dict[str, str]) -> None:
        """A heartbeat, which tells the last number, or a request of the flow control, which wants an answer."""
        if headers["Status"] != "100":
            self.end(f"status {headers['Status']} {headers.get('Description', '')}")
            return
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._last_sequence:
            self.end(f"the heartbeat speaks of message {last}, the last one here is {self._last_sequence}")
            return
        answer_to = msg.reply or headers.get("Nats-Consumer-Stalled")
        if answer_to:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._client.publish(answer_to)

    def end(self, reason: str) -> None:
        """Give the listener nothing more: this consumer is to be replaced."""
        self.reason = reason
        self.broken.set()


def _silent_s(consumer: _Consumer) -> float:
    return asyncio.get_running_loop().time() - consumer.heard_s


def _teller(tell: Callable[[bytes], object]) -> Callable[[Msg], Awaitable[None]]:
    async def on_message(msg: Msg) -> None:
        tell(msg.data)

    return on_message


async def _close(client: Client) -> None:
    """Close without waiting for a server that is not there."""
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        async with asyncio.timeout(1):
            await client.close()
