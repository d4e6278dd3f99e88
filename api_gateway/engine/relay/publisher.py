"""Publishes entries to JetStream, many in flight at once.

nats-py has that too (``publish_async``), with a future, a semaphore and a random token for each message. With bids on
many items there are as many messages as bids, and that was a sixth of a gateway's CPU (decision 0052). Here a message
costs its publication and an entry in a dictionary; the relay waits until the dictionary is empty.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import Header
from nats.js.errors import APIError, NoStreamResponseError

from api_gateway.engine.relay.in_flight import InFlight, PubAck
from shared import names
from shared.tracing.spans import TRACES_HEADER


class _Answer(msgspec.Struct):
    """JetStream's reply to a publication."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: dict[str, Any] | None = None


_decoder: Final = msgspec.json.Decoder(_Answer)


class Publisher:
    """Publishes on one client of NATS. Its user bounds how many messages wait for their PubAck."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._count = 0
        self._waiting: dict[str, InFlight] = {}
        self._all_answered = asyncio.Event()

    @classmethod
    async def open(cls, client: Client) -> Publisher:
        """A publisher that hears the answers.

        Raises:
            nats.errors.Error, OSError: the client is not connected.
        """
        publisher = cls(client)
        await client.subscribe(f"{publisher._inbox}.*", cb=publisher._on_answer)
        return publisher

    async def publish(self, one: InFlight, message_id: str) -> None:
        """Send a message; its ``ack`` or ``error`` is set when JetStream answers.

        Raises:
            nats.errors.Error, OSError: it was not sent.
        """
        self._count += 1
        reply = f"{self._inbox}.{self._count:x}"
        self._all_answered.clear()
        self._waiting[reply] = one
        headers: dict[str, str] = {Header.MSG_ID: message_id}
        if one.traced is not None:
            headers[TRACES_HEADER] = one.traced.header
        try:
            await self._client.publish(one.subject, one.payload, reply=reply, headers=headers)
        except BaseException:
            # The message may be answered already: the client sends at once, and waits afterwards.
            self._waiting.pop(reply, None)
            raise

    async def answered(self, *, timeout_s: float) -> bool:
        """Wait until everything that was published is answered, at most this long; whether it is."""
        if self._waiting:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._all_answered.wait()
            except TimeoutError:
                return False
        return True

    def give_up(self) -> None:
        """Wait for no answer any more. One that comes later says nothing to anybody."""
        for one in self._waiting.values():
            if one.traced is not None:
                one.traced.answered(TimeoutError())
        self._waiting.clear()
        self._all_answered.set()

    async def _on_answer(self, message: Msg) -> None:
        one = self._waiting.pop(message.subject, None)
        if one is None:
            return
        try:
            answer = _decoder.decode(message.data)
        except msgspec.DecodeError as error:
            # Where nobody listens on the subject, NATS answers with a header and no data.
            one.error = NoStreamResponseError() if not message.data else error
        else:
            if answer.error is not None:
                one.error = _api_error(answer.error)
            elif answer.stream == names.STREAM and answer.seq > 0:
                one.ack = PubAck(answer.seq, answer.duplicate)
            else:
                # Another stream or service listens on our subjects: the message is not where our readers look.
                one.error = APIError(description=f"not an answer of {names.STREAM}: {message.data[:200]!r}")
        if one.traced is not None:
            one.traced.answered(one.error)
        if not self._waiting:
            self._all_answered.set()


def _api_error(error: dict[str, Any]) -> APIError:
    try:
        APIError.from_error(error)
    except APIError as translated:
        return translated
    except (KeyError, TypeError):
        return APIError(description=str(error))  # of a form that the client does not know
    raise AssertionError("it raises the error that it reads")
