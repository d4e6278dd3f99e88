"""The publisher alone: whose answers are awaited, and for how long."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from nats.js.api import Header

from api_gateway.engine.relay.in_flight import InFlight, PubAck
from api_gateway.engine.relay.publisher import Publisher
from shared import names
from tests.unit.api_gateway.engine.relay.bench import OURS, SHARD


class Client:
    """Sends nothing; what was to be sent waits for the test to answer it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, str, str]] = []
        self.heard: Any = None

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str, *, cb: Any) -> None:
        assert subject == "_INBOX.x.*"
        self.heard = cb

    async def publish(self, subject: str, payload: bytes, *, reply: str, headers: dict[Header, str]) -> None:
        self.sent.append((subject, payload, reply, headers[Header.MSG_ID]))

    async def answer(self, number: int, **told: Any) -> None:
        data = msgspec.json.encode({"stream": names.STREAM} | told)
        await self.heard(SimpleNamespace(subject=self.sent[number][2], data=data))


def entry(number: int) -> InFlight:
    return InFlight(SHARD, OURS, 0, number, f"subject-{number}", b"%d" % number)


@pytest.fixture
def client() -> Client:
    return Client()


async def opened(client: Client) -> Publisher:
    return await Publisher.open(cast(Any, client))


async def test_each_publication_has_its_own_answer_whatever_their_order(client: Client) -> None:
    publisher = await opened(client)
    one, other = entry(1), entry(2)
    await publisher.publish(one, "id-1")
    await publisher.publish(other, "id-2")
    assert [(subject, payload, message_id) for subject, payload, _, message_id in client.sent] == [
        ("subject-1", b"1", "id-1"),
        ("subject-2", b"2", "id-2"),
    ]
    await client.answer(1, seq=12, duplicate=True)
    assert (one.ack, other.ack) == (None, PubAck(12, duplicate=True))
    assert not await publisher.answered(timeout_s=0.001)
    await client.answer(0, seq=11)
    assert one.ack == PubAck(11)
    assert await publisher.answered(timeout_s=0.0)


async def test_that_an_earlier_load_was_answered_says_nothing_of_the_next_one(client: Client) -> None:
    """It would count as published without a PubAck, or be published again and again."""
    publisher = await opened(client)
    await publisher.publish(entry(1), "id-1")
    await client.answer(0, seq=1)
    assert await publisher.answered(timeout_s=0.0)
    await publisher.publish(entry(2), "id-2")
    waiting = asyncio.create_task(publisher.answered(timeout_s=60))
    done, _ = await asyncio.wait([waiting], timeout=0.02)
    assert not done
    await client.answer(1, seq=2)
    assert await asyncio.wait_for(waiting, 10)


async def test_whoever_waits_for_what_was_given_up_waits_no_longer(client: Client) -> None:
    publisher = await opened(client)
    late = entry(1)
    await publisher.publish(late, "id-1")
    waiting = asyncio.create_task(publisher.answered(timeout_s=60))
    await asyncio.sleep(0)
    publisher.give_up()
    assert await asyncio.wait_for(waiting, 10)
    await client.answer(0, seq=1)
    assert (late.ack, late.error) == (None, None), "a late answer says nothing"
    again = entry(1)
    await publisher.publish(again, "id-1")
    await client.answer(0, seq=1)
    assert again.ack is None, "nor does it once the entry was sent again"
    await client.answer(1, seq=1)
    assert again.ack == PubAck(1)


async def test_an_answer_that_cannot_be_read_is_an_error_and_ends_the_wait(client: Client) -> None:
    publisher = await opened(client)
    one = entry(1)
    await publisher.publish(one, "id-1")
    await client.heard(SimpleNamespace(subject=client.sent[0][2], data=b"{"))
    assert isinstance(one.error, msgspec.DecodeError)
    assert await publisher.answered(timeout_s=0.0)
